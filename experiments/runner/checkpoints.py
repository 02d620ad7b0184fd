"""Checkpoints that can be trusted: whole, verified, and two of them.

A checkpoint is a folder `step_<n>` with `arrays/`, written by orbax, `progress.json`, and `manifest.json`, which holds
the SHA-256 of every other file. It is written under another name and renamed when all of it is on the
disk, so that a run killed at any moment leaves the last one as it was. Each holds the training state and the
best parameters so far, so that the two always belong together.
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
"""In the place of a step: there is no checkpoint, or no whole one."""
PLAIN = re.compile(r"[\w/.,=+@ -]*", re.ASCII)
"""Paths that mean the same to orbax, which globs them, to TensorStore, and to the file system."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What the loop knows beside the arrays.

    Attributes:
      step: how many steps have been taken.
      best_value: the best validation metric so far; None before the first evaluation.
      best_step: the step that it was reached at.
      stale: evaluations since then.
      finished: whether training is over, be it at the last step or by early stopping.
      seconds: how long training has taken, all starts together.
      sums: the training sums since the last row of metrics.
      due: whether the validation that belongs to this step is still to be done.
      skipped: steps whose update was dropped because it was not finite.
      skipped_in_a_row: those of them since the last finite one.
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
        """Takes the folder that they lie in; it need not exist yet."""
        self.folder = folder

    def steps(self) -> list[int]:
        """The steps with a checkpoint, oldest first."""
        names = [path.name for path in self.folder.glob("step_*")] if self.folder.exists() else []
        return sorted(int(name[5:]) for name in names if name[5:].isdigit())

    def save(self, arrays: Any, progress: Progress) -> None:
        """Writes a checkpoint of `progress.step`, then removes all but the newest two.

        Of several processes each writes the arrays of its own devices, and the first all else.

        Args:
          arrays: a pytree of arrays.
          progress: goes with them.

        Raises:
          UserError: it cannot be written. The earlier ones are as they were.
        """
        temporary = self.folder / f".step_{progress.step}.tmp"
        final = self.folder / f"step_{progress.step}"
        try:
            self._write(arrays, progress, temporary)
            if processes.is_first():
                self._put_in_place(temporary, final, progress.step)
            processes.wait_for_all(f"checkpoint of step {progress.step} in place")
        except jax.errors.JaxRuntimeError:
            raise
        except Exception as error:  # orbax and TensorStore raise errors of many kinds where a disk is full
            shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(
                f"the checkpoint of step {progress.step} cannot be written to {self.folder}: {_reason(error)}; "
                "the earlier ones are unharmed"
            ) from error

    def _put_in_place(self, temporary: pathlib.Path, final: pathlib.Path, step: int) -> None:
        """Gives a checkpoint its name, and removes those that are no longer needed."""
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
        _sync(self.folder)
        # Later ones can only be damaged, else training would have gone on from them.
        later = [other for other in self.steps() if other > step]
        for other in self.steps()[: -len(later) - KEPT] + later:
            shutil.rmtree(self.folder / f"step_{other}")

    def _write(self, arrays: Any, progress: Progress, folder: pathlib.Path) -> None:
        """Puts all of a checkpoint into a folder, and on the disk."""
        if processes.is_first():
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(".*.tmp"):
                shutil.rmtree(leftover)
        processes.wait_for_all(f"checkpoint of step {progress.step} begun")
        hook = sys.unraisablehook
        sys.unraisablehook = _pass_over_late_writes
        with plain(self.folder) as base, ocp.StandardCheckpointer() as writer:
            writer.save(base / folder.name / "arrays", arrays)
            writer.wait_until_finished()
        sys.unraisablehook = hook  # not after a failure, where other arrays are still on their way
        if processes.is_first():
            files.write_json(folder / "progress.json", dataclasses.asdict(progress))
            files.write_json(folder / "manifest.json", digests(folder))
            _sync(folder)

    def restore(self, template: Any) -> tuple[Any, Progress] | None:
        """Reads the newest checkpoint that is whole.

        Args:
          template: a pytree of arrays with the shapes, dtypes and shardings to restore to.

        Returns:
          the arrays and the progress, or None where nothing was ever saved. A damaged checkpoint is passed over with a
          warning that names it.

        Raises:
          UserError: there are checkpoints, and all are damaged.
        """
        step, faults = self._newest_whole() if processes.is_first() else (NONE, [])
        step = processes.of_first(step)
        if step == ALL_DAMAGED:
            raise UserError(f"no checkpoint can be used: {'; '.join(faults) or 'the first process says which'}")
        return None if step == NONE else self._read(self.folder / f"step_{step}", template)

    def _newest_whole(self) -> tuple[int, list[str]]:
        """Returns the step of the newest checkpoint that is whole, and what is wrong with later ones."""
        faults = []
        for step in reversed(self.steps()):
            path = self.folder / f"step_{step}"
            fault = damage(path)
            if fault is None:
                for later in faults:
                    warnings.warn(f"checkpoint passed over: {later}; going on from {path}", stacklevel=4)
                return step, faults
            faults.append(fault)
        return (ALL_DAMAGED if faults else NONE), faults

    def _read(self, path: pathlib.Path, template: Any) -> tuple[Any, Progress]:
        """Reads a whole checkpoint.

        Raises:
          UserError: it holds other arrays than `template`.
        """
        values = json.loads((path / "progress.json").read_bytes())
        values["sums"] = {name: tuple(pair) for name, pair in values["sums"].items()}
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), template)
        try:
            with plain(self.folder) as base, ocp.StandardCheckpointer() as reader:
                arrays = reader.restore(base / path.name / "arrays", abstract)
        except (ValueError, KeyError) as error:
            raise UserError(f"{path} does not hold this run's arrays: {_reason(error)}") from error
        return arrays, Progress(**values)


@contextlib.contextmanager
def plain(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives an absolute path to `folder` in which no character has a meaning of its own.

    Orbax takes [ ] * ? for patterns, TensorStore a backslash for a slash, and both expect UTF-8. Where the folder's own
    path has any such character, the path given leads there through a symbolic link in a temporary folder.
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
    """Returns the SHA-256 of every file under `folder` but the manifest, by its path in there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "manifest.json"
    }


def damage(folder: pathlib.Path) -> str | None:
    """Says in one line what is wrong with a checkpoint; None where its files are those that were written."""
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


def _pass_over_late_writes(raised: "sys.UnraisableHookArgs") -> None:
    """Of one array that cannot be written orbax hears; what TensorStore says of the others comes when it has gone."""
    if str(raised.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(raised)


def _reason(error: Exception) -> str:
    """Says in a few words why something cannot be written; TensorStore buries the system's reason in pages."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]))
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _sync(folder: pathlib.Path) -> None:
    """Makes sure that everything in a folder is on the disk, names included."""
    for path in [*folder.rglob("*"), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
