"""The training loop: steps, rows of metrics, validation, checkpoints, early stopping.

What a run does depends on its configuration alone. Stopped at any moment and started again, it goes on from its last
checkpoint and writes the rows, and ends with the numbers, that it would have had.

What is known of a step whose loss or gradient is not finite: enough to repeat it alone.
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
from experiments.runner.optimizer import evaluated, learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import TrainState, initial_state, make_train_step, place
from experiments.schema import UserError
from experiments.tasks.base import Batch, Sums, Task

RowWriter = Callable[[int, str, Mapping[str, float]], None]
"""Takes a row of metrics: its step, its split and its values."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, ready to go on from where it stands.

    Attributes:
      graph: the model's, which `nnx.merge` joins with parameters.
      state: the training state.
      best: the parameters with the best validation metric so far.
      progress: beside them.
    """

    graph: Any
    state: TrainState
    best: Any
    progress: Progress


def load(config: ExperimentConfig, task: Task, folder: RunFolder, mesh: Mesh) -> Run:
    """Returns the run in `folder` as its newest usable checkpoint has it, or at its beginning."""
    graph, state = initial_state(task, config, make_optimizer(config.optimizer, config.train.steps))
    state = place(state, mesh)
    best = copy(state.params)
    restored = Checkpoints(folder.checkpoints).restore({"state": state, "best": best})
    if restored is None:
        return Run(graph, state, best, Progress())
    arrays, progress = restored
    return Run(graph, arrays["state"], arrays["best"], progress)


def moved(run: Run, mesh: Mesh) -> Run:
    """Returns a run with its arrays on another mesh."""
    state, best = jax.device_get((run.state, run.best))
    return dataclasses.replace(run, state=place(state, mesh), best=devices.lay_out(best, mesh))


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
    """Trains from where `run` stands to the end, or until asked to stop.

    Args:
      config: the whole experiment's.
      task: made from it.
      folder: where metrics and checkpoints go.
      run: from `load`; its state's arrays are consumed.
      mesh: from `devices.make_mesh`.
      display: shows rows and progress.
      writers: are given every row that is written to the metrics file.
      stop: asked after every step and between the batches of an evaluation; once it says so, a checkpoint is written,
        and training ends with `progress.finished` false.

    Returns:
      the run as it ended; its last checkpoint holds the same.

    Raises:
      NonFiniteError: the loss or the gradient is not finite, and is not to be skipped. The last checkpoint stays as it
        is; the diagnosis is in the folder.
    """
    training = Training(config, task, folder, run, mesh, display, writers, stop)
    try:
        if training.progress.due:
            training.mark(logs=False, evaluates=True, saves=True)
        while not training.progress.finished and not training.stopped:
            training.advance()
    finally:
        training.metrics_file.close()
    return Run(run.graph, training.state, training.best, training.progress)


class Training:
    """One run while it is being trained; `train` says what it takes."""

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
        settings, optimizer = config.train, make_optimizer(config.optimizer, config.train.steps)
        schedule = learning_rate(config.optimizer, settings.steps)
        self.train_step = make_train_step(task, run.graph, optimizer, schedule, mesh, config.seed, settings.accumulate)
        self.evaluator = Evaluator(task, run.graph, mesh, stop)
        self.checkpoints = Checkpoints(folder.checkpoints)
        self.metrics_file = MetricsFile(folder.metrics, run.progress.step)
        self.started = time.monotonic() - run.progress.seconds
        self.step = run.progress.step
        self.stopped = False
        self.pending: Any = None
        self.last_finite: dict[str, float] = {}

    def advance(self) -> None:
        """Takes one step, and does what is to be done after it."""

        def read(rows: slice) -> Batch:
            return self.task.train_rows(self.config.seed, self.step, rows)

        batch = devices.read_rows(read, self.task.batch_size, self.mesh)
        self.state, sums = self.train_step(self.state, batch)
        self.took(sums)

    def took(self, sums: Sums) -> None:
        """Takes note of a step that was sent to the devices, and does what is to be done after it."""
        self.collect()
        self.step += 1
        self.pending = sums
        logs, evaluates, saves = self.due(self.step)
        self.stopped = self.stop()
        saves = saves or self.stopped
        if logs or evaluates or saves:
            self.collect()
            self.progress = dataclasses.replace(self.progress, step=self.step)
            self.mark(logs, evaluates, saves)

    def due(self, step: int) -> tuple[bool, bool, bool]:
        """Says whether a row, an evaluation, a checkpoint belong to the end of a step (from 1)."""
        settings = self.config.train
        everies = (settings.log_every, settings.eval_every, settings.checkpoint_every)
        logs, evaluates, saves = (step == settings.steps or step % every == 0 for every in everies)
        return logs, evaluates, saves

    def collect(self) -> None:
        """Takes in the sums of the pending step, which the devices finished while the next one was being sent."""
        if self.pending is None:
            return
        fetched, self.pending = jax.device_get(self.pending), None
        broken = fetched.pop("nonfinite")[0]
        values = {name: float(fetched[name][0] / fetched[name][1]) for name in ("loss", "grad_norm", "learning_rate")}
        self.display.advance(self.step, values["loss"])
        if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
            self.last_finite = {"step": self.step, **values}
            sums = add_sums(self.progress.sums, fetched)
            self.progress = dataclasses.replace(self.progress, sums=sums, skipped_in_a_row=0)
            return
        skipped, in_a_row = self.progress.skipped + 1, self.progress.skipped_in_a_row + 1
        self.progress = dataclasses.replace(self.progress, skipped=skipped, skipped_in_a_row=in_a_row)
        settings = self.config.train
        if settings.on_nonfinite == "skip" and in_a_row < settings.nonfinite_limit:
            self.display.line(f"step {self.step}: loss {values['loss']}, gradient norm {values['grad_norm']}: skipped")
            return
        fault = Fault(self.step, values["loss"], values["grad_norm"], broken, in_a_row, self.last_finite)
        write_diagnosis(self.folder.nonfinite, fault, self.task, self.config.seed, self.state.params)
        raise NonFiniteError(
            f"{fault.line(settings.on_nonfinite)}; the last checkpoint is unharmed, see {self.folder.nonfinite}"
        )

    def mark(self, logs: bool, evaluates: bool, saves: bool) -> None:
        """Writes rows, evaluates, judges and saves after a step, whose sums are in."""
        if logs:
            self.write("train", self.training_row())
            self.progress = dataclasses.replace(self.progress, sums={})
        if evaluates:
            self.evaluate()
        finished = self.progress.finished or (self.step == self.config.train.steps and not self.progress.due)
        if saves or finished or self.progress.due:
            seconds = time.monotonic() - self.started
            self.progress = dataclasses.replace(self.progress, finished=finished, seconds=seconds)
            self.metrics_file.flush()
            self.checkpoints.save({"state": self.state, "best": self.best}, self.progress)

    def training_row(self) -> dict[str, float]:
        """Returns the means since the last such row, over the steps whose update was made."""
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
        """Scores the parameters on the validation split; an evaluation that is stopped is due at the next start."""
        params = evaluated(self.state)
        try:
            row = self.evaluator(params, "validation")
        except EvaluationStopped:
            self.stopped = True
            self.progress = dataclasses.replace(self.progress, due=True)
            return
        self.progress = dataclasses.replace(self.progress, due=False)
        self.write("validation", row)
        self.progress = judged(self.progress, row[self.task.scoring.metric], self.task, self.config.train)
        if self.progress.best_step == self.step:
            self.best = copy(params)

    def write(self, split: str, row: Mapping[str, float]) -> None:
        """Writes one row of metrics, and shows it."""
        self.metrics_file.write(self.step, split, row)
        self.display.row(self.step, split, row)
        for writer in self.writers:
            writer(self.step, split, row)


@jax.jit
def copy(tree: Any) -> Any:
    """Copies arrays, so that they outlive a step that consumes the originals."""
    return jax.tree.map(jnp.copy, tree)


def judged(progress: Progress, value: float, task: Task, settings: TrainConfig) -> Progress:
    """Returns the progress after an evaluation that gave `value`: a new best, or one more without."""

    def passes(mark: float) -> bool:
        return value < mark if task.scoring.mode == "min" else value > mark

    best, goal = progress.best_value, settings.goal
    better = best is None or not task.scoring.selects or passes(best)
    reached = goal is not None and (value == goal or passes(goal))
    if better and math.isfinite(value):
        return dataclasses.replace(progress, best_value=value, best_step=progress.step, stale=0, finished=reached)
    stale = progress.stale + 1
    return dataclasses.replace(progress, stale=stale, finished=reached or 0 < settings.patience <= stale)


class NonFiniteError(UserError):
    """Loss or gradient is no longer a number; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """
    Attributes:
      step: from 1; its batch is `task.train_batch(seed, step - 1)`.
      loss: the batch's.
      grad_norm: before clipping.
      broken: for each array of parameters, in the order of `jax.tree.leaves`, whether its gradient is not finite.
      in_a_row: how many such steps there have been one after the other.
      last_finite: step, loss, gradient norm and learning rate of the last step before that were finite; empty where
        there was none since the start.
    """

    step: int
    loss: float
    grad_norm: float
    broken: np.ndarray
    in_a_row: int
    last_finite: Mapping[str, float]

    def line(self, on_nonfinite: Literal["stop", "skip"]) -> str:
        """Says in one line what stopped training."""
        what = "loss" if not np.isfinite(self.loss) else "gradient norm"
        value = self.loss if what == "loss" else self.grad_norm
        if on_nonfinite == "skip":
            return f"step {self.step}: the {what} is {value}, and {self.in_a_row} steps in a row were not finite"
        advice = "--config.train.on_nonfinite=skip goes on without such steps"
        return f"step {self.step}: the {what} is {value}; training stopped ({advice})"


def write_diagnosis(path: pathlib.Path, fault: Fault, task: Task, seed: int, params: Any) -> None:
    """Writes what there is to know, as JSON.

    Args:
      path: the file.
      fault: what was seen.
      task: whose batch it was.
      seed: the experiment's.
      params: a pytree, for the names of the arrays.
    """
    batch = task.train_batch(seed, fault.step - 1)
    indices = task.batch_indices(seed, fault.step - 1)
    rows = {name: np.flatnonzero(~_finite_rows(array)).tolist() for name, array in batch.items()}
    named = zip(jax.tree_util.tree_leaves_with_path(params), fault.broken, strict=True)
    files.write_json(
        path,
        {
            "step": fault.step,
            "loss": str(fault.loss),
            "grad_norm": str(fault.grad_norm),
            "steps_in_a_row": fault.in_a_row,
            "parameters_with_nonfinite_gradient": [
                jax.tree_util.keystr(place, simple=True, separator=".") for (place, _), flag in named if flag
            ],
            "batch": {
                "repeat_with": f"task.train_batch({seed}, {fault.step - 1})",
                "indices": None if indices is None else indices.tolist(),
                "rows_with_nonfinite_values": {name: found for name, found in rows.items() if found},
            },
            "last_finite": dict(fault.last_finite) or None,
        },
    )


def _finite_rows(array: np.ndarray) -> np.ndarray:
    """Whether each row of an array holds finite values alone: (B,)."""
    if not np.issubdtype(array.dtype, np.floating):
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array.reshape(len(array), -1)).all(axis=1))
