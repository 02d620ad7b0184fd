"""Checkpoints: written atomically, verified when restored, the newest two kept.

A checkpoint is a folder `step_<n>` with `arrays/`, written by orbax, `progress.json`, and `manifest.json` with the
SHA-256 of every other file. It is written under a temporary name and renamed once it is on the disk, so a run that is
killed at any moment keeps its last checkpoint. Training state and best parameters are in one checkpoint, so they always
match.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp

from experiments import files
from experiments.runner import processes
from experiments.schema import UserError

KEPT = 2
NONE, ALL_DAMAGED = -1, -2
"""In place of a step: there is no checkpoint, or no intact one."""
PLAIN = re.compile(r"[\w/.,=+@ -]*", re.ASCII)
"""Paths with the same meaning to orbax, which globs them, to TensorStore, and to the file system."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of the training loop, except the arrays.

    Attributes:
      step: number of training steps.
      best_value: the best validation metric so far; None before the first evaluation.
      best_step: the step of the best value.
      stale: number of evaluations since the best value.
      finished: whether training has ended, at the last step or by early stopping.
      seconds: training time over all starts.
      sums: the training sums since the last row of metrics.
      due: whether the evaluation of this step is still pending.
      skipped: number of steps that were skipped because they were not finite.
      skipped_in_a_row: number of skipped steps since the last finite one.
    """

    step: int = 0
    best_value: float | None = None
    best_step: int = 0
    stale: int = 0
    finished: bool = False
    seconds: float = 0.0
    sums: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    due: bool = False
    skipped: int = 0
    skipped_in_a_row: int = 0


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, folder: pathlib.Path):
        """Args: folder: the folder of the checkpoints; it need not exist."""
        self.folder = folder

    def steps(self) -> list[int]:
        """Returns the steps with a checkpoint, oldest first."""
        names = [path.name for path in self.folder.glob("step_*")] if self.folder.exists() else []
        return sorted(int(name[5:]) for name in names if name[5:].isdigit())

    def save(self, arrays: Any, progress: Progress) -> None:
        """Writes the checkpoint of `progress.step`, then removes all but the newest two.

        Each process writes the arrays of its own devices. The first process writes everything else.

        Args:
          arrays: a pytree of arrays.
          progress: the state of the loop.

        Raises:
          UserError: it cannot be written. The earlier checkpoints are unchanged.
        """
        temporary = self.folder / f".step_{progress.step}.tmp"
        final = self.folder / f"step_{progress.step}"
        try:
            self._write(arrays, progress, temporary)
            if processes.is_first():
                self._rename(temporary, final, progress.step)
            processes.wait_for_all(f"checkpoint of step {progress.step} in place")
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # orbax and TensorStore raise many types if a disk is full
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"the checkpoint of step {progress.step} cannot be written to {self.folder}: {_reason(error)}; "
                "the earlier ones are unchanged"
            ) from error

    def _rename(self, temporary: pathlib.Path, final: pathlib.Path, step: int) -> None:
        """Renames a written checkpoint, and removes checkpoints that are no longer needed."""
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        _sync(self.folder)
        # Later ones are damaged, since training would have resumed from them otherwise.
        later = [other for other in self.steps() if other > step]
        for other in self.steps()[: -len(later) - KEPT] + later:
            shutil.rmtree(self.folder / f"step_{other}")

    def _write(self, arrays: Any, progress: Progress, folder: pathlib.Path) -> None:
        """Writes a checkpoint into a folder and syncs it to the disk."""
        if processes.is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):
                shutil.rmtree(leftover)
        processes.wait_for_all(f"checkpoint of step {progress.step} begun")
        with _late_errors_ignored(), plain(self.folder) as base, ocp.StandardCheckpointer() as writer:
            writer.save(base / folder.name / "arrays", arrays)
            writer.wait_until_finished()
        if processes.is_first():
            files.write_json(folder / "progress.json", dataclasses.asdict(progress))
            files.write_json(folder / "manifest.json", digests(folder))
            _sync(folder)

    def restore(self, template: Any) -> tuple[Any, Progress] | None:
        """Restores the newest intact checkpoint. A damaged one is skipped with a warning that names it.

        Args:
          template: a pytree of arrays with the shapes, dtypes and shardings to restore.

        Returns:
          (arrays, progress), or None if there is no checkpoint.

        Raises:
          UserError: all checkpoints are damaged.
        """
        step, faults = self._newest_intact() if processes.is_first() else (NONE, [])
        step = processes.broadcast_from_first(step)
        if step == ALL_DAMAGED:
            raise UserError(f"no checkpoint can be used: {'; '.join(faults) or 'the first process says which'}")
        return None if step == NONE else self._read(self.folder / f"step_{step}", template)

    def _newest_intact(self) -> tuple[int, list[str]]:
        """Returns the step of the newest intact checkpoint, and the damage of later ones."""
        faults = []
        for step in reversed(self.steps()):
            path = self.folder / f"step_{step}"
            fault = damage(path)
            if fault is None:
                for later in faults:
                    warnings.warn(f"skipped a checkpoint: {later}; resuming from {path}", stacklevel=4)
                return step, faults
            faults.append(fault)
        return (ALL_DAMAGED if faults else NONE), faults

    def _read(self, path: pathlib.Path, template: Any) -> tuple[Any, Progress]:
        """Reads an intact checkpoint.

        Raises:
          UserError: its arrays do not match `template`.
        """
        values = json.loads((path / "progress.json").read_bytes())
        values["sums"] = {name: tuple(pair) for name, pair in values["sums"].items()}
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template)
        try:
            with _late_errors_ignored(), plain(self.folder) as base, ocp.StandardCheckpointer() as reader:
                arrays = reader.restore(base / path.name / "arrays", abstract)
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} does not match the arrays of this run: {_reason(error)}") from error
        return arrays, Progress(**values)


@contextlib.contextmanager
def plain(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields an absolute path to `folder` without special characters.

    Orbax treats [ ] * ? as patterns, TensorStore treats a backslash as a slash, and both expect UTF-8. If the path has
    such a character, the result is a symbolic link to it in a temporary folder.
    """
    path = folder.absolute()
    if PLAIN.fullmatch(str(path)):
        yield path
        return
    place = None if PLAIN.fullmatch(tempfile.gettempdir()) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="gru_jax-", dir=place) as temporary:
        link = pathlib.Path(temporary) / "checkpoints"
        link.symlink_to(path, target_is_directory=True)
        yield link


def digests(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file in `folder` except the manifest, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "manifest.json"
    }


def damage(folder: pathlib.Path) -> str | None:
    """Returns in one line how a checkpoint is damaged, or None if its files match the manifest."""
    try:
        recorded = json.loads((folder / "manifest.json").read_bytes())
        found = digests(folder)
    except (OSError, ValueError) as error:
        return f"{folder} cannot be read ({error})"
    if not isinstance(recorded, dict) or "progress.json" not in recorded:
        return f"{folder} has a damaged manifest.json"
    for name in recorded:
        if name not in found:
            return f"{folder} lacks {name}"
        if found[name] != recorded[name]:
            return f"{folder} is damaged in {name}"
    return None


@contextlib.contextmanager
def _late_errors_ignored() -> Iterator[None]:
    """Ignores what threads of TensorStore report to a closed event loop after a failed read or write.

    The failure itself is raised, and everything else reaches the previous hook. After a failure the errors are still
    ignored, since other reads or writes may be pending.
    """
    before = sys.unraisablehook

    def hook(raised: "sys.UnraisableHookArgs") -> None:
        if str(raised.exc_value) != "Event loop is closed":
            before(raised)

    sys.unraisablehook = hook
    yield
    sys.unraisablehook = before


def _reason(error: Exception) -> str:
    """Returns a short reason. TensorStore's messages contain the system's error only as a number."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]))
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _sync(folder: pathlib.Path) -> None:
    """Syncs all files of a folder, and the folder itself, to the disk."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
