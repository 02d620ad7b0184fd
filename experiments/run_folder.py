"""A run's folder: what lies where in it, and that it belongs to one configuration."""

import dataclasses
import json
import pathlib
from typing import Any

from experiments import atomic
from experiments.config import ExperimentConfig, differences, resolve


class RunFolderError(Exception):
    """A folder that cannot be used as asked; the message is one line that says why."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    config.json         the resolved configuration; `train --config=<it>` repeats the run
    environment.json    versions, devices and commit, of every start
    metrics.jsonl       a row for every log and every evaluation, up to the last checkpoint or beyond
    checkpoints/        the newest two, each with the training state and the best parameters so far
    learning_curve.png  drawn at the end
    summary.json        the test score and what led to it; there when the run is finished
    """

    path: pathlib.Path

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
        return self.path / "checkpoints"

    @property
    def learning_curve(self) -> pathlib.Path:
        return self.path / "learning_curve.png"

    @property
    def summary(self) -> pathlib.Path:
        return self.path / "summary.json"

    def claim(self, config: ExperimentConfig) -> None:
        """Makes the folder this configuration's, or finds that it already is.

        Raises:
          RunFolderError: it belongs to another configuration (the line says what differs), holds other things, or
            cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.config.exists():
                differing = differences(self.read_config(), config.to_dict())
                if differing:
                    raise RunFolderError(f"{self.path} holds a run of another configuration: {'; '.join(differing)}")
            elif any(not name.name.endswith(".tmp") for name in self.path.iterdir()):
                raise RunFolderError(f"{self.path} is not empty and holds no run (there is no config.json in it)")
            else:
                atomic.write_json(self.config, config.to_dict())
        except OSError as error:
            raise RunFolderError(f"{self.path} cannot be used as a run folder: {error.strerror or error}") from None

    def read_config(self) -> dict[str, Any]:
        """Returns config.json as plain data."""
        try:
            return json.loads(self.config.read_text())
        except OSError as error:
            raise RunFolderError(f"{self.path} is no run folder: {error.strerror}: {self.config}") from None
        except ValueError as error:
            raise RunFolderError(f"{self.config} is damaged: {error}") from None

    def load_config(self) -> ExperimentConfig:
        """Returns the run's configuration."""
        return resolve(self.read_config())

    def read_summary(self) -> dict[str, Any] | None:
        """Returns summary.json, or None for an unfinished run."""
        return json.loads(self.summary.read_text()) if self.summary.exists() else None
