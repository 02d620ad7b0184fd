"""The run folder: its files, the check that it belongs to one configuration, and the lock against other processes.

An exported model is a run folder in small, which every command but `train` accepts.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import platform
import warnings
from collections.abc import Iterator
from typing import Any

from experiments import files, tasks
from experiments.runner import weights
from experiments.runner.config import ExperimentConfig, differences, resolve
from experiments.schema import UserError
from experiments.tasks.base import ARTIFACTS, Task

SUMMARY = (
    *("task", "config", "overrides", "cell", "parameters", "seed"),
    *("test", "validation", "steps", "minutes", "machine", "versions", "commit"),
)
"""The keys of summary.json."""

NAMES = {dict: "object", list: "array"}
"""The names of these types in JSON."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    config.json         the resolved configuration; `train --config=<this file>` repeats the run
    environment.json    versions, devices and commit of each start
    metrics.jsonl       one row per log and per evaluation
    checkpoints/        the newest two, each with the training state and the best parameters so far
    learning_curve.png  drawn at the end
    summary.json        the test scores; exists once the run is finished
    tensorboard/        event files, with --tensorboard
    nonfinite.json      the diagnosis of a step that was not finite and stopped the run
    artifacts.json      what the task learned from its data, such as a vocabulary, and the data's fingerprint
    subwords.*.model    for translation: the vocabulary of each language
    lock                process id and host of the process that trains here

    An exported model has config.json, the artifacts, and instead of the rest:

    model.safetensors   the best parameters
    card.md             what the model is, its scores, and where it comes from
    """

    path: pathlib.Path
    shared: pathlib.Path | None = None
    """The folder with the checkpoints, if it is another one: the first process's, in the other processes."""

    @property
    def config(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def environment(self) -> pathlib.Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> pathlib.Path:
        return (self.shared or self.path) / "checkpoints"

    @property
    def artifacts(self) -> pathlib.Path:
        return self.path / ARTIFACTS

    @property
    def learning_curve(self) -> pathlib.Path:
        return self.path / "learning_curve.png"

    @property
    def summary(self) -> pathlib.Path:
        return self.path / "summary.json"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.path / "tensorboard"

    @property
    def nonfinite(self) -> pathlib.Path:
        return self.path / "nonfinite.json"

    @property
    def weights(self) -> pathlib.Path:
        return self.path / "model.safetensors"

    @property
    def card(self) -> pathlib.Path:
        return self.path / "card.md"

    @property
    def is_exported(self) -> bool:
        """Whether this is an exported model, complete or not."""
        return self.weights.exists() or self.card.exists()

    def output(self, name: str, folder: str | None) -> pathlib.Path:
        """Returns where a command writes a file that it makes with the model.

        Args:
          name: the name of the file in a run folder.
          folder: the folder to write to. If None, a run folder is written to; for an exported model, which is never
            changed, the current folder is used, and the file's name begins with the model's.

        Raises:
          UserError: the folder is an exported model.
        """
        path = pathlib.Path(folder) if folder else self.path
        if self.is_exported:
            path = pathlib.Path(folder or "")
            if path.resolve() == self.path.resolve():
                raise UserError(f"--output_dir: expected a folder outside the exported model, got {path.resolve()}")
            name = f"{self.path.resolve().name}_{name}"
        path.mkdir(parents=True, exist_ok=True)
        return path / name

    @contextlib.contextmanager
    def claimed(self, config: ExperimentConfig) -> Iterator[None]:
        """Creates or reopens the folder for a configuration, and locks it against other processes.

        Raises:
          UserError: it belongs to another configuration, holds other files, cannot be written, or is locked.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self.check_config(config)
                stack.enter_context(locked(self.path / "lock"))
                self.check_config(config)  # again, now that no other process can write
                if not self.config.exists() or self.read_config() != json.loads(json.dumps(config.to_dict())):
                    files.write_json(self.config, config.to_dict())
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"{self.path} cannot be used as a run folder: {reason}") from None
            yield

    def check_config(self, config: ExperimentConfig) -> None:
        """Checks that the folder is missing, empty, or a run of this configuration.

        Two settings may differ: `train.on_nonfinite`, if it was "stop", since such a run has had no such step; and the
        path of your own data file, if the run has the file's fingerprint.

        Raises:
          UserError: the folder is a run of another configuration or an exported model, or holds other files.
        """
        if self.is_exported:
            raise UserError(f"{self.path} holds an exported model, which cannot be trained; choose another --workdir")
        if self.config.exists():
            saved = self.load_config()
            kind = tasks.find(saved.task.name)
            if isinstance(config.task, kind.Config) and kind.user_path(saved.task) and self.artifacts.exists():
                place = kind.user_path(config.task)
                saved = dataclasses.replace(saved, task=kind.with_user_path(saved.task, place) if place else saved.task)
            if saved.train.on_nonfinite == "stop":
                now = config.train.on_nonfinite, config.train.nonfinite_limit
                settings = dataclasses.replace(saved.train, on_nonfinite=now[0], nonfinite_limit=now[1])
                saved = dataclasses.replace(saved, train=settings)
            differing = differences(saved.to_dict(), config.to_dict())
            if differing:
                raise UserError(f"{self.path} holds a run of another configuration: {'; '.join(differing)}")
        elif self.path.exists() and any(
            entry.name != "lock" and entry.suffix != ".tmp" for entry in self.path.iterdir()
        ):
            raise UserError(f"{self.path} is not empty and holds no run (there is no config.json in it)")

    def save_artifacts(self, task: Task) -> None:
        """Writes the task's artifacts, unless they exist.

        Runs of an earlier version have none, so their data cannot be checked.
        """
        if self.artifacts.exists():
            return
        data = task.fingerprint()
        if data is not None and (self.path / "checkpoints").exists():
            warnings.warn(f"{self.path} has no fingerprint of its data; assuming {data}", stacklevel=2)
        task.save_artifacts(self.path)

    def read_config(self) -> dict[str, Any]:
        """Returns config.json as plain data."""
        try:
            return _read(self.config, dict)
        except OSError as error:
            raise UserError(f"{self.path} is not a run folder: {error.strerror}: {self.config}") from None

    def load_config(self) -> ExperimentConfig:
        """Returns the run's configuration. Keys that are newer than the run have their defaults.

        Raises:
          UserError: the folder holds no run, or its configuration or a file of an exported model cannot be used.
        """
        values = self.read_config()
        if self.is_exported:
            self._check_complete()
        try:
            return resolve(values)
        except UserError as error:
            raise UserError(f"{self.config} was written by another version: {error}") from None

    def _check_complete(self) -> None:
        """Raises `UserError` if a file of an exported model is missing. Its task would learn other artifacts."""
        names = weights.read_origin(self.weights).files if self.weights.exists() else (self.weights.name,)
        missing = [name for name in names if not (self.path / name).exists()]
        if missing:
            raise UserError(f"{self.path} is not a whole exported model: missing {', '.join(missing)}")

    def read_summary(self) -> dict[str, Any] | None:
        """Returns summary.json, or None for an unfinished run."""
        try:
            summary = _read(self.summary, dict)
        except FileNotFoundError:
            return None
        missing = [name for name in SUMMARY if name not in summary]
        if missing:
            raise UserError(f"{self.summary} is damaged: missing {', '.join(missing)}")
        return summary

    def read_environment(self) -> list[dict[str, Any]]:
        """Returns the starts in environment.json; an empty list if the run has not begun."""
        try:
            starts = _read(self.environment, list)
        except FileNotFoundError:
            return []
        for start in starts:
            if not isinstance(start, dict) or not {"from_step", "machine", "commit"} <= set(start):
                raise UserError(f"{self.environment} is damaged: expected a start, got {json.dumps(start)[:40]}")
        return starts


def _read(path: pathlib.Path, kind: type) -> Any:
    """Returns a JSON file's contents.

    Raises:
      UserError: the file is not JSON, or holds another type.
    """
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(value, kind):
        raise UserError(f"{path} is damaged: expected a JSON {NAMES[kind]}, got {json.dumps(value)[:40]}")
    return value


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock file `path`, which names its owner. A lock left by a dead process of this host is taken over.

    The lock is `flock`'s; the file's content is informative. A network file system need not share `flock` between
    hosts, so a file that names another host is an error, and has to be deleted by hand.

    Raises:
      UserError: another process holds the lock, or may hold it.
      OSError: the file cannot be created.
    """
    handle = _acquire(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: pathlib.Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(handle, path):  # its owner removed it after it was opened here
                os.close(handle)
                continue
            owner = _owner(handle)
            here = platform.node()
            if owner is not None and owner["host"] != here:
                raise UserError(
                    f"{path} says that process {owner['pid']} on {owner['host']} is training here, which {here} cannot "
                    "check; delete that file if the process has ended"
                )
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)
            return handle
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            who = "another process" if owner is None else f"process {owner['pid']} on {owner['host']}"
            raise UserError(f"{path.parent} is in use: {who} is training there") from None
        except BaseException:
            os.close(handle)
            raise


def _is_at(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> dict[str, str | int] | None:
    """Returns the process that the file names, or None if it is empty or incomplete."""
    try:
        owner = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
    return owner if isinstance(owner, dict) and {"pid", "host"} <= set(owner) else None
