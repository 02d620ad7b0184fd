"""A run's folder: what lies where in it, and that it belongs to one configuration.

A lock that one process holds at a time, and that the system takes away from it when it dies.
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
from experiments.runner.config import ExperimentConfig, differences, resolve
from experiments.schema import UserError
from experiments.tasks.base import ARTIFACTS, Task

SUMMARY = (
    *("task", "config", "overrides", "cell", "parameters", "seed"),
    *("test", "validation", "steps", "minutes", "machine", "versions", "commit"),
)
"""What summary.json says."""

NAMES = {dict: "object", list: "array"}
"""What JSON calls them."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    config.json         the resolved configuration; `train --config=<it>` repeats the run
    environment.json    versions, devices and commit, of every start
    metrics.jsonl       a row for every log and every evaluation, up to the last checkpoint or beyond
    checkpoints/        the newest two, each with the training state and the best parameters so far
    learning_curve.png  drawn at the end
    summary.json        the test score and what led to it; there when the run is finished
    tensorboard/        event files, with --tensorboard
    nonfinite.json      where a step that was not finite stopped the run: what is known of it
    artifacts.json      what the task has learned from its data, as a vocabulary or a scaling, and their fingerprint
    subwords.*.model    for translation: the vocabulary of each language, learnt from the training sentences
    lock                while a process trains here: its number and its host
    """

    path: pathlib.Path
    shared: pathlib.Path | None = None
    """Where the checkpoints lie, if they are those of another folder: that of the first of several processes."""

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

    @contextlib.contextmanager
    def claimed(self, config: ExperimentConfig) -> Iterator[None]:
        """Makes the folder this configuration's, or finds that it already is, and keeps other processes out.

        Raises:
          UserError: it belongs to another configuration (the line says what differs), holds other things, or
            cannot be written; another process trains in it.
        """
        with contextlib.ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                self.refuse_others(config)
                stack.enter_context(locked(self.path / "lock"))
                self.refuse_others(config)  # once more, now that nobody else can write
                if not self.config.exists() or self.read_config() != json.loads(json.dumps(config.to_dict())):
                    files.write_json(self.config, config.to_dict())
            except OSError as error:
                reason = error.strerror or error
                raise UserError(f"{self.path} cannot be used as a run folder: {reason}") from None
            yield

    def refuse_others(self, config: ExperimentConfig) -> None:
        """Raises where the folder belongs to another configuration, or is no run folder; one that is not there is fine.

        What to do at a step that is not finite may change from "stop": a run that got this far has had no such step.
        So may the place of your own file, where the run has the fingerprint of what it read there.
        """
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

    def record(self, task: Task) -> None:
        """Writes what a task has learned from its data, unless it is there.

        Of a run that an earlier version began it is not, and nothing tells whether the data have changed since.
        """
        if self.artifacts.exists():
            return
        data = task.fingerprint()
        if data is not None and (self.path / "checkpoints").exists():
            warnings.warn(f"{self.path} does not say what it has learned from: it is taken to be {data}", stacklevel=2)
        task.save_artifacts(self.path)

    def read_config(self) -> dict[str, Any]:
        """Returns config.json as plain data."""
        try:
            return _read(self.config, dict)
        except OSError as error:
            raise UserError(f"{self.path} is no run folder: {error.strerror}: {self.config}") from None

    def load_config(self) -> ExperimentConfig:
        """Returns the run's configuration; a key that came later than the run has its default."""
        try:
            return resolve(self.read_config())
        except UserError as error:
            raise UserError(f"{self.config} is not of this version: {error}") from None

    def read_summary(self) -> dict[str, Any] | None:
        """Returns summary.json, or None for an unfinished run."""
        try:
            summary = _read(self.summary, dict)
        except FileNotFoundError:
            return None
        missing = [name for name in SUMMARY if name not in summary]
        if missing:
            raise UserError(f"{self.summary} is damaged: it lacks {', '.join(missing)}")
        return summary

    def read_environment(self) -> list[dict[str, Any]]:
        """Returns what environment.json says of every start; nothing of a run that has not begun."""
        try:
            return _read(self.environment, list)
        except FileNotFoundError:
            return []


def _read(path: pathlib.Path, kind: type) -> Any:
    """Returns a JSON file's contents.

    Raises:
      UserError: it is not one, or holds something of another type.
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
    """Holds the lock file `path`, which names its owner; what a dead process of this host left is taken over.

    The system's own lock (`flock`) decides, and the file's content says who it is. Between hosts a file system need
    not pass the system's lock on: a file that names another host is refused, and stays for a person to remove.

    Raises:
      UserError: another process holds it, or may.
      OSError: the file cannot be made.
    """
    handle = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _take(path: pathlib.Path) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(handle, path):  # its owner removed it between our opening and our locking
                os.close(handle)
                continue
            owner = _owner(handle)
            here = platform.node()
            if owner is not None and owner["host"] != here:
                raise UserError(
                    f"{path} says that process {owner['pid']} on {owner['host']} is at work here, which {here} cannot "
                    "check; if it is gone, delete that file"
                )
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "host": here}).encode(), 0)
            return handle
        except BlockingIOError:
            owner = _owner(handle)
            os.close(handle)
            who = "another process" if owner is None else f"process {owner['pid']} on {owner['host']}"
            raise UserError(f"{path.parent} is in use: {who} is at work there") from None
        except BaseException:
            os.close(handle)
            raise


def _is_at(handle: int, path: pathlib.Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _owner(handle: int) -> dict[str, str | int] | None:
    """Who the file names; None where it is empty, or torn by its owner's death."""
    try:
        return json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return None
