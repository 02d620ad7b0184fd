"""The environment of a run: versions, machine, devices, commit."""

import contextlib
import importlib.metadata
import itertools
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any

import jax

import gru_jax
from experiments import files
from experiments.runner.devices import available_cores
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "ml_collections",
    "scikit-learn",
    "sentencepiece",
    "sacrebleu",
    "jiwer",
)
ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDED = ("experiments/results", "RESULTS.md", "docs/results", "README.md")
"""Files that records and reports are written to. No run depends on them."""


def describe(devices: int) -> dict[str, Any]:
    """Returns the environment of this start as plain data; `devices` is the number of devices in use."""
    return {
        "command": [sys.executable, *sys.argv],
        "commit": commit(),
        "versions": versions(),
        "machine": machine(),
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "devices": devices,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(("JAX_", "XLA_", "GLIBC_TUNABLES"))},
    }


def append(folder: RunFolder, step: int, environment: dict[str, Any]) -> None:
    """Appends a start at `step` to environment.json."""
    files.write_json(folder.environment, [*folder.read_environment(), {"from_step": step, **environment}])


def machines(folder: RunFolder) -> str:
    """Returns the machine of a run, or all machines of a resumed run in order."""
    return ", then ".join(dict.fromkeys(start["machine"] for start in folder.read_environment()))


def trained_commit(folder: RunFolder) -> str:
    """Returns the commit that a run was started from: the last one, or the first with uncommitted changes.

    The checkout may have moved on during the run. Starts that saved no step do not count.
    """
    starts = folder.read_environment()
    pairs = itertools.pairwise(starts)
    commits = [start["commit"] for start, following in pairs if following["from_step"] > start["from_step"]]
    commits.append(starts[-1]["commit"])
    return next((found for found in commits if not is_clean(found)), commits[-1])


def versions() -> dict[str, str]:
    """Returns the versions of Python, of this project, and of the installed packages that results depend on."""
    found = {"python": platform.python_version(), "gru_jax": gru_jax.__version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # of an extra
            found[package] = importlib.metadata.version(package)
    return found


def commit() -> str:
    """Returns the commit of the checkout, with "-dirty" if tracked files other than results differ, or "unknown"."""
    head = _git("rev-parse", "HEAD")
    if head is None:
        return "unknown"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *(f":!{path}" for path in RECORDED))
    return head + ("-dirty" if changed else "")


def is_clean(commit: str) -> bool:
    """Returns whether a commit, as `commit` returns it, is known and has no uncommitted changes."""
    return commit != "unknown" and not commit.endswith("-dirty")


def require_clean_commit(flag: str, found: str) -> None:
    """Checks that a commit, as `commit` returns it, has no uncommitted changes.

    Raises:
      UserError: it has uncommitted changes, or it is unknown.
    """
    if not is_clean(found):
        raise UserError(f"{flag}: expected a clean commit, got {found}")


def machine() -> str:
    """Returns the processor or accelerators: "Intel(R) Xeon(R) Processor, 2 cores"."""
    devices = jax.devices()
    if devices[0].platform != "cpu":
        return f"{len(devices)} x {devices[0].device_kind}"
    return f"{_processor()}, {available_cores()} cores"


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
