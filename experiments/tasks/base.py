"""The task interface: a task is its data, model, loss and metrics. The runner uses tasks only through this interface.

Also holds helpers that tasks share: padding evaluation batches, averaging metrics, the file of artifacts.
"""

import abc
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from flax import nnx

from experiments import extras, files
from experiments.data import fingerprint
from experiments.data.batching import every_example_once
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import Dataset
from experiments.schema import Checked, UserError

Batch: TypeAlias = dict[str, np.ndarray]
"""Arrays with the batch axis first, so that a batch can be sharded over devices."""

Sums: TypeAlias = dict[str, tuple[Any, Any]]
"""Name -> (sum, weight). Kept apart, they add up exactly over devices, batches and padding."""

Carry: TypeAlias = Any
"""What one batch hands to the next: a pytree of arrays with a batch axis first, or `()`."""

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

ARTIFACTS = "artifacts.json"
"""The file in a run folder with the task's artifacts and the fingerprint of its data."""


@dataclasses.dataclass(frozen=True)
class FinalConfig(Checked):
    """Keys of tasks that can train on the training and validation splits together.

    Attributes:
      train_on_validation: whether to train on the validation split too, as published results often do. Settings and
        number of steps then come from earlier runs, and the last checkpoint is scored.
    """

    train_on_validation: bool = False


class Scoring(NamedTuple):
    """How runs of a task are scored.

    Attributes:
      metric: the metric that selects checkpoints on the validation split; a key of `Task.metrics` or `Task.scores`.
      mode: "min" or "max": whether lower or higher values are better.
      reported: the metrics of the test split that results report.
      selects: whether the validation split is held out and selects a checkpoint; otherwise the last one is scored.
    """

    metric: str
    mode: Literal["min", "max"]
    reported: tuple[str, ...]
    selects: bool = True


class Task(abc.ABC):
    """A data set or generator with its model, loss and metrics.

    A subclass sets `Config` and `ModelConfig` and implements the abstract methods. The rest has defaults.

    Attributes:
      Config: dataclass of the keys under `task`. Its `name` is the task's name.
      ModelConfig: dataclass of the keys under `model`.
      command: the program in experiments/ that uses a trained run, with example arguments, such as
        "transcribe mine.wav"; empty for none.
      extra: the extra of pyproject.toml that the task needs; empty for none.
      user_file: the key of `config` that can name a user's own file; empty for none.
      artifact_names: the keys of `artifacts`.
      not_for: what a trained model should not be used for, in sentences for its card.
      config: an instance of `Config`, with a `batch_size`.
      data_dir: the folder where data sets are looked up first, or None.
      artifacts: values learned from the data besides the parameters, such as a vocabulary. Plain JSON values.
      recorded: the fingerprint of the data that a run folder records; None for a fresh run.
    """

    Config: ClassVar[type[Any]]
    ModelConfig: ClassVar[type[Any]]
    command: ClassVar[str] = ""
    extra: ClassVar[str] = ""
    user_file: ClassVar[str] = ""
    artifact_names: ClassVar[tuple[str, ...]] = ()
    not_for: ClassVar[str] = ""
    config: Any
    data_dir: str | None
    artifacts: dict[str, Any]
    recorded: Fingerprint | None

    def __init__(self, config: Any, data_dir: str | None, folder: pathlib.Path | None = None) -> None:
        """Reads the artifacts of a run folder, or loads the data and learns them.

        Args:
          config: an instance of `Config`.
          data_dir: where to look for data first; None for the cache, then the public address.
          folder: the run folder. If it holds artifacts, data are loaded only when first needed.

        Raises:
          UserError: a package of `extra` is not installed, the data or the artifacts cannot be read, or the data do not
            fit `config`.
        """
        if self.extra:
            extras.require(self.extra)
        self.config, self.data_dir, self.artifacts, self.recorded = config, data_dir, {}, None
        if folder is None or not self.load_artifacts(folder):
            self.artifacts = self.learn()

    @classmethod
    @abc.abstractmethod
    def scoring_for(cls, config: Any) -> Scoring:
        """Returns how runs of a configuration are scored. Needs no data."""

    @abc.abstractmethod
    def model(self, config: Any, rngs: nnx.Rngs) -> nnx.Module:
        """Returns a freshly initialized model. `config` is an instance of `ModelConfig`."""

    @abc.abstractmethod
    def train_batch(self, seed: int, step: int) -> Batch:
        """Returns the training batch of a step, counted from 0: a pure function of its arguments."""

    @abc.abstractmethod
    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split in a fixed order. Batches have equal size and few shapes; padding has weight zero."""

    @abc.abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        """Returns the sums of one batch and the next carry. The gradient is taken of `sums["loss"]`.

        Args:
          model: from `model`.
          batch: from `train_batch` or `eval_batches`, or some of its rows.
          carry: from `initial_carry` or the previous batch.
          key: PRNG key for dropout, consumed; None for evaluation.
        """

    @abc.abstractmethod
    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Returns the metrics, "loss" among them, of sums that were added up over batches."""

    @property
    def scoring(self) -> Scoring:
        """How this task's runs are scored."""
        return self.scoring_for(self.config)

    @property
    def result_name(self) -> str:
        """The task's name in the results, such as "adding_600"; by default `config.name`."""
        return self.config.name

    @property
    def dataset(self) -> Dataset | None:
        """The data set, with its license and citation; None for generated data and for a user's own file."""
        return None

    @property
    def batch_size(self) -> int:
        """Rows of a training batch."""
        return self.config.batch_size

    def train_rows(self, seed: int, step: int, rows: slice) -> Batch:
        """Returns some rows of `train_batch`. Each of several processes needs only its own."""
        batch = self.train_batch(seed, step)
        return batch if rows == slice(0, self.batch_size) else {name: array[rows] for name, array in batch.items()}

    def batch_indices(self, seed: int, step: int) -> np.ndarray | None:
        """Returns the indices (B,) of the training examples in `train_batch`; None if examples are not numbered."""
        del seed, step
        return None

    def initial_carry(self, model: nnx.Module, rows: int) -> Carry:
        """Returns the carry before the first batch of training or of a split; `()` for independent batches."""
        del model, rows
        return ()

    def scores(self, model: Any, split: Split) -> dict[str, float]:
        """Returns metrics that are not sums over rows, such as BLEU. Runs outside `jit`, on one device."""
        del model, split
        return {}

    def learn(self) -> dict[str, Any]:
        """Loads the data, checks that the configuration fits them, and returns the artifacts."""
        return {}

    def fingerprint(self) -> Fingerprint | None:
        """Returns the fingerprint of the current data; None for generated data."""
        return None

    @property
    def training_data(self) -> Fingerprint | None:
        """The fingerprint of the data that a run was or will be trained on; None for generated data."""
        return self.recorded or self.fingerprint()

    def save_artifacts(self, folder: pathlib.Path) -> None:
        """Writes the artifacts and the fingerprint of the data to a run folder; nothing for generated data."""
        data = self.training_data
        if data is None:
            return
        content = {"data": dataclasses.asdict(data), "artifacts": self.artifacts}
        files.write_json(folder / ARTIFACTS, content | {"sha256": digest_of(content)})

    def load_artifacts(self, folder: pathlib.Path) -> bool:
        """Reads the artifacts of a run folder. Returns False if there are none.

        Raises:
          UserError: the file is damaged.
        """
        content = read_artifacts(folder)
        if content is None:
            return False
        missing = [name for name in self.artifact_names if name not in content["artifacts"]]
        if missing:
            raise UserError(f"{folder / ARTIFACTS} is damaged: it lacks {', '.join(missing)}")
        self.artifacts = content["artifacts"]
        self.recorded = Fingerprint(**content["data"])
        return True

    def check_data(self, folder: pathlib.Path, option: str) -> None:
        """Checks that the data are the same as in the training of a run.

        Args:
          folder: the run folder. One without artifacts passes.
          option: the flag that tells the command where the user's file is.

        Raises:
          UserError: the data differ, or the user's file is missing.
        """
        content = read_artifacts(folder)
        if content is None:
            return
        recorded = Fingerprint(**content["data"])
        path = self.user_path(self.config)
        if path and not os.path.exists(path):
            raise UserError(
                f"{path}: no such file; {folder} was trained on {recorded}. If it was moved, give its new path with "
                f"{option}"
            )
        found = self.fingerprint()
        if found is None or found.sha256 != recorded.sha256:
            way = f"give the path of the recorded file with {option}" if path else "use the recorded version"
            raise UserError(
                f"{folder}: expected the data that it was trained on, {recorded}, got {found}; {way}, or train in "
                "another folder"
            )

    @classmethod
    def user_path(cls, config: Any) -> str:
        """Returns the path of the user's own file that a configuration names; empty for none."""
        return getattr(config, cls.user_file) if cls.user_file else ""

    @classmethod
    def with_user_path(cls, config: Any, path: str) -> Any:
        """Returns the configuration with another path of the user's own file."""
        return dataclasses.replace(config, **{cls.user_file: path})


def mean(sums: Mapping[str, tuple[float, float]], name: str) -> float:
    """Returns sum / weight; NaN if the weight is zero."""
    total, weight = sums[name]
    return total / weight if weight else float("nan")


def padded_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> Iterator[Batch]:
    """Splits arrays of examples into batches. The last one is padded with the first example, at weight zero.

    Yields:
      the arrays' rows, and "weights" (batch_size,) float32: 1 for an example, 0 for padding.
    """
    for rows, counts in every_example_once(len(next(iter(arrays.values()))), batch_size):
        yield {name: array[rows] for name, array in arrays.items()} | {"weights": counts.astype(np.float32)}


def read_artifacts(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns "data" and "artifacts" of a run folder's artifacts.json; None if there is no such file.

    Raises:
      UserError: the file is damaged.
    """
    path = folder / ARTIFACTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a JSON object, got {type(content).__name__}")
        recorded = content.pop("sha256", None)  # earlier versions have none
        if not isinstance(content["artifacts"], dict) or set(content["data"]) != {"description", "sha256"}:
            raise ValueError("expected artifacts and a fingerprint of the data")
        if recorded is not None and recorded != digest_of(content):
            raise ValueError("its values have another sha256 than recorded")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return content


def digest_of(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of plain data, as JSON with sorted keys."""
    return fingerprint.of_text("", json.dumps(content, sort_keys=True)).sha256
