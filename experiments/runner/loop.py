"""The training loop: steps, rows of metrics, validation, checkpoints, early stopping.

`load_run` reads the newest checkpoint of a run folder, `train` continues from it. A run depends only on its
configuration. If stopped at any moment and restarted, it ends with the rows and numbers of an uninterrupted run.

A step with a nonfinite loss or gradient stops the run with a `NonFiniteError`, or is skipped. The diagnosis in
nonfinite.json is enough to repeat that step.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments import files
from experiments.runner import devices
from experiments.runner.checkpoints import Checkpoints, Progress
from experiments.runner.config import ExperimentConfig, TrainConfig
from experiments.runner.evaluation import EvaluationStopped, Evaluator, add_sums
from experiments.runner.logging import Display, MetricsFile
from experiments.runner.optimizer import eval_params, learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import TrainState, initial_state, make_train_step, shard_state
from experiments.schema import UserError
from experiments.tasks.base import Batch, Task
from experiments.tasks.recurrent import weight_bounds

RowWriter = Callable[[int, str, Mapping[str, float]], None]
"""Writes a row of metrics, given its step, split and values."""


class NonFiniteError(UserError):
    """The loss or the gradient is not finite."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The state of a run between two calls of `train`.

    Attributes:
      graphdef: the model's graphdef, which `nnx.merge` combines with parameters.
      state: the training state.
      best: the parameters with the best validation metric so far.
      progress: the content of a checkpoint other than the arrays.
    """

    graphdef: Any
    state: TrainState
    best: Any
    progress: Progress


def load_run(config: ExperimentConfig, task: Task, folder: RunFolder, mesh: Mesh) -> Run:
    """Restores the run in a folder from its newest intact checkpoint, or initializes it if there is none."""
    graphdef, state = initial_state(task, config, make_optimizer(config.optimizer, config.train.steps))
    state = shard_state(state, mesh)
    best = copy(state.params)
    restored = Checkpoints(folder.checkpoints).restore({"state": state, "best": best})
    if restored is None:
        return Run(graphdef, state, best, Progress())
    arrays, progress = restored
    return Run(graphdef, arrays["state"], arrays["best"], progress)


def train(
    config: ExperimentConfig,
    task: Task,
    folder: RunFolder,
    run: Run,
    mesh: Mesh,
    display: Display,
    writers: Sequence[RowWriter] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Run:
    """Trains until the run is finished or `stop` returns True.

    Args:
      config: the whole configuration.
      task: the task of `config`.
      folder: the run folder, for metrics and checkpoints.
      run: from `load_run`. The arrays of its state are donated.
      mesh: from `devices.make_mesh`.
      display: shows rows and progress.
      writers: called with each row of the metrics file.
      stop: called after each step and between the batches of an evaluation. Once it returns True, a checkpoint is
        written, and training ends with `progress.finished` false.

    Returns:
      The final run, identical to its last checkpoint.

    Raises:
      NonFiniteError: the loss or the gradient is not finite and the step may not be skipped. The last checkpoint is
        kept, and the diagnosis is in the folder.
    """
    trainer = Trainer(config, task, folder, run, mesh, display, writers, stop)
    try:
        if trainer.progress.due:
            trainer.log_eval_save(log=False, evaluate=True, save=True)
        while not trainer.progress.finished and not trainer.stopped:
            trainer.train_one_step()
    finally:
        trainer.metrics_file.close()
    return Run(run.graphdef, trainer.state, trainer.best, trainer.progress)


class Trainer:
    """Implements the training loop; see `train` for the arguments."""

    def __init__(
        self,
        config: ExperimentConfig,
        task: Task,
        folder: RunFolder,
        run: Run,
        mesh: Mesh,
        display: Display,
        writers: Sequence[RowWriter],
        stop: Callable[[], bool],
    ):
        self.config, self.task, self.folder, self.mesh = config, task, folder, mesh
        self.display, self.writers, self.stop = display, writers, stop
        self.state, self.best, self.progress = run.state, run.best, run.progress
        optimizer = make_optimizer(config.optimizer, config.train.steps, weight_bounds(config.model))
        schedule = learning_rate(config.optimizer, config.train.steps)
        self.train_step = make_train_step(
            task, run.graphdef, optimizer, schedule, mesh, config.seed, config.train.accumulate
        )
        self.evaluator = Evaluator(task, run.graphdef, mesh, stop)
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.metrics_file = MetricsFile(folder.metrics, run.progress.step)
        self.started = time.monotonic() - run.progress.seconds
        self.step = run.progress.step
        self.stopped = False
        self.pending: Any = None  # the sums of the last step, still on the devices
        self.last_finite: dict[str, float] = {}

    def train_one_step(self) -> None:
        """Dispatches a step, fetches the metrics of the step before, then logs, evaluates and saves if due."""

        def read(rows: slice) -> Batch:
            return self.task.train_rows(self.config.seed, self.step, rows)

        batch = devices.load_batch(read, self.task.batch_size, self.mesh)
        self.state, sums = self.train_step(self.state, batch)
        self.fetch_metrics()
        self.step += 1
        self.pending = sums
        settings = self.config.train
        everies = (settings.log_every, settings.eval_every, settings.checkpoint_every)
        log, evaluate, save = (self.step == settings.steps or self.step % every == 0 for every in everies)
        self.stopped = self.stop()
        if log or evaluate or save or self.stopped:
            self.fetch_metrics()
            self.progress = dataclasses.replace(self.progress, step=self.step)
            self.log_eval_save(log, evaluate, save or self.stopped)

    def fetch_metrics(self) -> None:
        """Fetches the sums of the pending step. The devices computed them while the next step was dispatched."""
        if self.pending is None:
            return
        fetched, self.pending = jax.device_get(self.pending), None
        nonfinite = fetched.pop("nonfinite")[0]
        values = {name: float(fetched[name][0] / fetched[name][1]) for name in ("loss", "grad_norm", "learning_rate")}
        self.display.advance(self.step, values["loss"])
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            self.last_finite = {"step": self.step, **values}
            sums = add_sums(self.progress.sums, fetched)
            self.progress = dataclasses.replace(self.progress, sums=sums, skipped_in_a_row=0)
        else:
            self.skip_or_raise(values["loss"], values["grad_norm"], nonfinite)

    def skip_or_raise(self, loss: float, grad_norm: float, nonfinite: np.ndarray) -> None:
        """Counts a step that is not finite. Raises `NonFiniteError` if it may not be skipped."""
        skipped, in_a_row = self.progress.skipped + 1, self.progress.skipped_in_a_row + 1
        self.progress = dataclasses.replace(self.progress, skipped=skipped, skipped_in_a_row=in_a_row)
        settings = self.config.train
        if settings.on_nonfinite == "skip" and in_a_row < settings.nonfinite_limit:
            self.display.line(f"step {self.step}: loss {loss}, gradient norm {grad_norm}: skipped")
            return
        step = NonFiniteStep(self.step, loss, grad_norm, nonfinite, in_a_row, self.last_finite)
        write_diagnosis(self.folder.nonfinite, step, self.task, self.config.seed, self.state.params)
        kept = "the last checkpoint is kept" if self.checkpoints.steps() else "there is no checkpoint yet"
        raise NonFiniteError(f"{step.describe(settings.on_nonfinite)}; {kept}; see {self.folder.nonfinite}")

    def log_eval_save(self, log: bool, evaluate: bool, save: bool) -> None:
        """Writes a row, evaluates and saves a checkpoint after the metrics of a step are fetched."""
        if log:
            self.write_row("train", self.training_row())
            self.progress = dataclasses.replace(self.progress, sums={})
        if evaluate:
            self.evaluate()
        finished = self.progress.finished or (self.step == self.config.train.steps and not self.progress.due)
        if save or finished or self.progress.due:
            seconds = time.monotonic() - self.started
            self.progress = dataclasses.replace(self.progress, finished=finished, seconds=seconds)
            self.metrics_file.flush()
            self.checkpoints.save({"state": self.state, "best": self.best}, self.progress)

    def training_row(self) -> dict[str, float]:
        """Returns the means since the last row, over the steps that were not skipped."""
        sums, skipped = self.progress.sums, self.progress.skipped
        row: dict[str, float] = {"skipped": skipped} if skipped else {}
        if not sums:
            return row
        return (
            self.task.metrics(sums)
            | {name: sums[name][0] / sums[name][1] for name in ("grad_norm", "learning_rate")}
            | row
        )

    def evaluate(self) -> None:
        """Scores the parameters on the validation split. An evaluation that is stopped is due at the next start."""
        params = eval_params(self.state)
        try:
            row = self.evaluator(params, "validation")
        except EvaluationStopped:
            self.stopped = True
            self.progress = dataclasses.replace(self.progress, due=True)
            return
        self.progress = dataclasses.replace(self.progress, due=False)
        self.write_row("validation", row)
        self.progress = update_best(self.progress, row[self.task.scoring.metric], self.task, self.config.train)
        if self.progress.best_step == self.step:
            self.best = copy(params)

    def write_row(self, split: str, row: Mapping[str, float]) -> None:
        """Writes one row of metrics to the metrics file, the display and all writers."""
        self.metrics_file.write(self.step, split, row)
        self.display.row(self.step, split, row)
        for writer in self.writers:
            writer(self.step, split, row)


@jax.jit
def copy(tree: Any) -> Any:
    """Copies arrays, so that they outlive a step that donates the originals."""
    return jax.tree.map(jnp.copy, tree)


def update_best(progress: Progress, value: float, task: Task, settings: TrainConfig) -> Progress:
    """Returns the progress after an evaluation: a new best value, or one more evaluation without improvement."""

    def improves(on: float) -> bool:
        return value < on if task.scoring.mode == "min" else value > on

    best, goal = progress.best_value, settings.goal
    better = best is None or not task.scoring.selects or improves(best)
    reached = goal is not None and (value == goal or improves(goal))
    if better and math.isfinite(value):
        return dataclasses.replace(progress, best_value=value, best_step=progress.step, stale=0, finished=reached)
    stale = progress.stale + 1
    return dataclasses.replace(progress, stale=stale, finished=reached or 0 < settings.patience <= stale)


@dataclasses.dataclass(frozen=True)
class NonFiniteStep:
    """A training step with a nonfinite loss or gradient.

    Attributes:
      step: number of the step, from 1. Its batch is `task.train_batch(seed, step - 1)`.
      loss: mean loss of the batch.
      grad_norm: global norm of the gradient before clipping.
      nonfinite: 1 for each parameter array with a nonfinite gradient, in the order of `jax.tree.leaves`.
      in_a_row: number of such steps in a row.
      last_finite: step, loss, gradient norm and learning rate of the last finite step since the start; empty if there
        was none.
    """

    step: int
    loss: float
    grad_norm: float
    nonfinite: np.ndarray
    in_a_row: int
    last_finite: Mapping[str, float]

    def describe(self, on_nonfinite: Literal["stop", "skip"]) -> str:
        """Returns in one line why training stopped."""
        what = "loss" if not np.isfinite(self.loss) else "gradient norm"
        value = self.loss if what == "loss" else self.grad_norm
        if on_nonfinite == "skip":
            return f"step {self.step}: the {what} is {value}, and {self.in_a_row} steps in a row were not finite"
        advice = "--config.train.on_nonfinite=skip skips such steps"
        return f"step {self.step}: the {what} is {value}; training stopped ({advice})"


def write_diagnosis(path: pathlib.Path, step: NonFiniteStep, task: Task, seed: int, params: Any) -> None:
    """Writes the diagnosis of a step as JSON.

    Args:
      path: the file.
      step: the step.
      task: recreates the batch.
      seed: the seed of the run.
      params: the parameters, for the names of the arrays.
    """
    batch = task.train_batch(seed, step.step - 1)
    indices = task.batch_indices(seed, step.step - 1)
    rows = {name: np.flatnonzero(~_finite_rows(array)).tolist() for name, array in batch.items()}
    named = zip(jax.tree_util.tree_leaves_with_path(params), step.nonfinite, strict=True)
    files.write_json(
        path,
        {
            "step": step.step,
            "loss": str(step.loss),
            "grad_norm": str(step.grad_norm),
            "steps_in_a_row": step.in_a_row,
            "parameters_with_nonfinite_gradient": [
                jax.tree_util.keystr(place, simple=True, separator=".") for (place, _), flag in named if flag
            ],
            "batch": {
                "repeat_with": f"task.train_batch({seed}, {step.step - 1})",
                "indices": None if indices is None else indices.tolist(),
                "rows_with_nonfinite_values": {name: found for name, found in rows.items() if found},
            },
            "last_finite": dict(step.last_finite) or None,
        },
    )


def _finite_rows(array: np.ndarray) -> np.ndarray:
    """Returns whether each row of an array (B, ...) is finite: (B,) bool."""
    if not np.issubdtype(array.dtype, np.floating):
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array.reshape(len(array), -1)).all(axis=1))
