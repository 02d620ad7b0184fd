"""The one face of all tasks: data, model, loss, metrics. The trainer knows nothing else of them."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np
from flax import nnx

from experiments import extras, files
from experiments.data.batching import every_example_once
from experiments.data.fetch import DataError
from experiments.data.fingerprint import Fingerprint
from experiments.schema import Checked

Batch: TypeAlias = dict[str, np.ndarray]
"""Arrays with a first axis of rows, so that a batch can be cut over devices."""

Sums: TypeAlias = dict[str, tuple[Any, Any]]
"""Name -> (sum, weight). Kept apart, they add up exactly over devices, batches and padding."""

Carry: TypeAlias = Any
"""What goes from one batch to the next: arrays with a first axis of rows, or `()`."""

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

ARTIFACTS = "artifacts.json"
"""The file of a run's folder that holds what the task learnt from its data, and their fingerprint."""


@dataclasses.dataclass(frozen=True)
class FinalConfig(Checked):
    """The keys of tasks that may train on all there is but the test split.

    Attributes:
      train_on_validation: whether the validation split is trained on too, as published figures do, in a last run with
        settings and steps that earlier runs have chosen; no checkpoint is then chosen, the last one counts.
    """

    train_on_validation: bool = False


class Scoring(NamedTuple):
    """What a task's scores are called, and which of them chooses.

    Attributes:
      metric: the name, among those of `Task.metrics`, by which checkpoints are selected on the validation split.
      mode: whether less ("min") or more ("max") of it is better.
      reported: the metrics of the test split that results report.
      selects: whether the validation split is held out, and chooses among checkpoints; else the last one counts.
    """

    metric: str
    mode: str
    reported: tuple[str, ...]
    selects: bool


class Task(Protocol):
    """A data set or generator, the model it takes, its loss and its metrics.

    Attributes:
      Config: the dataclass of the keys under `task`; its `name` is the task's.
      ModelConfig: the dataclass of the keys under `model`.
      config: of the first kind, with a `batch_size`.
      metric, mode: see `Scoring`.
      result_name: the task's name in the results, where one task file serves several: "adding_600".
      result_metrics: what is `reported`, see `Scoring`.
      batch_size: rows in a training batch.
      extra: that of pyproject.toml whose packages the task needs; empty for none.
      own_file: the key of `config` that may name a file of your own; empty for none.
      learns: the names of the artifacts.
      artifacts: what was learned from the data beside the parameters, as plain data: a vocabulary, a scaling.
      recorded: the fingerprint of those data, if the artifacts come from a run's folder.
    """

    Config: ClassVar[type[Any]]
    ModelConfig: ClassVar[type[Any]]
    metric: ClassVar[str]
    mode: ClassVar[str]
    result_metrics: ClassVar[tuple[str, ...]]
    extra: ClassVar[str] = ""
    own_file: ClassVar[str] = ""
    learns: ClassVar[tuple[str, ...]] = ()
    config: Any
    data_dir: str | None
    artifacts: dict[str, Any]
    recorded: Fingerprint | None

    def __init__(self, config: Any, data_dir: str | None, folder: pathlib.Path | None = None) -> None:
        """Takes what a run has learned from its data, or else loads the data and learns it.

        Args:
          config: of the type `Config`.
          data_dir: where the data are looked for first; else in the data cache or at their public address.
          folder: the run's. Where it holds artifacts, the data are not loaded until they are needed.

        Raises:
          MissingExtraError: a package that the task needs is not installed.
          ConfigError: the configuration does not fit the data.
          DataError: the data, or the artifacts, cannot be read.
        """
        if self.extra:
            extras.require(self.extra)
        self.config, self.data_dir, self.artifacts, self.recorded = config, data_dir, {}, None
        if folder is None or not self.load_artifacts(folder):
            self.artifacts = self.learn()

    def learn(self) -> dict[str, Any]:
        """Loads the data, sees that the configuration fits them, and returns the artifacts: of most tasks none."""
        return {}

    def fingerprint(self) -> Fingerprint | None:
        """Returns that of the data as they are now; None where a program draws them."""
        return None

    def save_artifacts(self, folder: pathlib.Path) -> None:
        """Writes the artifacts, and the fingerprint of the data, into a run's folder; nothing where there are none."""
        data = self.recorded or self.fingerprint()
        if data is None:
            return
        content = {"data": dataclasses.asdict(data), "artifacts": self.artifacts}
        files.write_json(folder / ARTIFACTS, content)

    def load_artifacts(self, folder: pathlib.Path) -> bool:
        """Takes the artifacts from a run's folder; returns whether there are any.

        Raises:
          DataError: they are damaged.
        """
        content = read_artifacts(folder)
        if content is None:
            return False
        missing = [name for name in self.learns if name not in content["artifacts"]]
        if missing:
            raise DataError(f"{folder / ARTIFACTS} is damaged: it lacks {', '.join(missing)}")
        self.artifacts = content["artifacts"]
        self.recorded = Fingerprint(**content["data"])
        return True

    @classmethod
    def own_path_of(cls, config: Any) -> str:
        """Returns where your own file lies that a configuration names; empty where it names none."""
        return getattr(config, cls.own_file) if cls.own_file else ""

    @classmethod
    def moved_to(cls, config: Any, path: str) -> Any:
        """Returns a configuration that names another place of your own file."""
        return dataclasses.replace(config, **{cls.own_file: path})

    def refuse_other_data(self, folder: pathlib.Path, option: str) -> None:
        """Raises where the data are not those that the run in a folder has learned from.

        Args:
          folder: the run's; one without artifacts may have learned from any.
          option: of the command, by which it is told where your own file lies.

        Raises:
          DataError: in one line, which says what was recorded, what there is now, and what to do.
        """
        content = read_artifacts(folder)
        if content is None:
            return
        recorded = Fingerprint(**content["data"])
        own_path = self.own_path_of(self.config)
        if own_path and not os.path.exists(own_path):
            raise DataError(
                f"{folder} has learned from {recorded}, and {own_path} is not there; if it was moved, name its new "
                f"place with {option}"
            )
        found = self.fingerprint()
        if found is None or found.sha256 != recorded.sha256:
            way = f"name the place of the one recorded with {option}" if own_path else "use the version recorded"
            raise DataError(
                f"{folder} has learned from {recorded}, got {found} in its place; {way}, or train in another folder"
            )

    @property
    def result_name(self) -> str: ...

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @classmethod
    def scoring(cls, config: Any) -> Scoring:
        """Says how runs of a configuration are scored, without the data."""
        selects = not (isinstance(config, FinalConfig) and config.train_on_validation)
        return Scoring(cls.metric, cls.mode, cls.result_metrics, selects)

    @property
    def selects(self) -> bool:
        """Whether the validation split is held out; see `Scoring`."""
        return self.scoring(self.config).selects

    def model(self, config: Any, rngs: nnx.Rngs) -> nnx.Module:
        """Makes the model, with fresh parameters."""
        ...

    def train_batch(self, seed: int, step: int) -> Batch:
        """Returns the training batch of a step (from 0): a pure function of its arguments."""
        ...

    def train_rows(self, seed: int, step: int, rows: slice) -> Batch:
        """Returns some rows of `train_batch`, what one of several processes needs; a task may read them alone."""
        batch = self.train_batch(seed, step)
        return batch if rows == slice(0, self.batch_size) else {name: array[rows] for name, array in batch.items()}

    def batch_indices(self, seed: int, step: int) -> np.ndarray | None:
        """Returns which examples of the training split `train_batch` takes: (B,); None where they are not numbered."""
        del seed, step
        return None

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split in a fixed order, batches of as many rows each and of few shapes, padding with weight zero."""
        ...

    def initial_carry(self, model: nnx.Module, rows: int) -> Carry:
        """Returns what the first batch of training, or of a split, starts from: `()` where batches are independent."""
        del model, rows
        return ()

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        """Returns the sums of one batch, of which `sums["loss"]` is differentiated, and the next carry.

        Args:
          model: made by `model`.
          batch: from `train_batch` or `eval_batches`, or some of its rows.
          carry: from `initial_carry` or the batch before.
          key: for dropout, consumed; None for evaluation.
        """
        ...

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Turns the sums over a whole split, or several batches, into metrics, "loss" among them."""
        ...

    def scores(self, model: Any, split: Split) -> dict[str, float]:
        """Returns metrics of a split that are no sums over rows, such as a word error rate or BLEU.

        They are computed after `metrics`, outside `jit` and on one device; most tasks have none.
        """
        del model, split
        return {}


def mean(sums: Mapping[str, tuple[float, float]], name: str) -> float:
    """Returns sum / weight; not a number where nothing was weighed."""
    total, weight = sums[name]
    return total / weight if weight else float("nan")


def padded_batches(arrays: Mapping[str, np.ndarray], batch_size: int) -> Iterator[Batch]:
    """Cuts arrays of examples into batches; the last is filled up with copies of the first example, of weight zero.

    Yields:
      the arrays' rows, and "weights" (batch_size,) float32: 1 for an example, 0 for padding.
    """
    for rows, counts in every_example_once(len(next(iter(arrays.values()))), batch_size):
        yield {name: array[rows] for name, array in arrays.items()} | {"weights": counts.astype(np.float32)}


def read_artifacts(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the contents of a run's artifacts.json: "data" and "artifacts"; None where there is none.

    Raises:
      DataError: the file is damaged.
    """
    path = folder / ARTIFACTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["artifacts"], dict) or set(content["data"]) != {"description", "sha256"}:
            raise ValueError("expected artifacts, and a fingerprint of the data")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}") from None
    return content
