"""The training loop: steps, rows of metrics, validation, checkpoints, early stopping.

What a run does depends on its configuration alone. Stopped at any moment and started again, it goes on from its last
checkpoint and writes the rows, and ends with the numbers, that it would have had.
"""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.config import ExperimentConfig
from experiments.run_folder import RunFolder
from experiments.tasks.base import Task
from experiments.training import devices
from experiments.training.checkpoints import Checkpoints, Progress
from experiments.training.display import Display
from experiments.training.evaluation import Evaluator, add_sums
from experiments.training.metrics import MetricsFile
from experiments.training.optimizer import learning_rate, make_optimizer
from experiments.training.state import TrainState, initial_state
from experiments.training.step import make_train_step


class NonFiniteError(ArithmeticError):
    """Loss or gradient is no longer a number; the message is one line."""


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
    state = devices.replicate(state._replace(carry=()), mesh)._replace(carry=devices.spread(state.carry, mesh))
    best = copy(state.params)
    restored = Checkpoints(folder.checkpoints).restore({"state": state, "best": best})
    if restored is None:
        return Run(graph, state, best, Progress())
    arrays, progress = restored
    return Run(graph, arrays["state"], arrays["best"], progress)


def train(config: ExperimentConfig, task: Task, folder: RunFolder, run: Run, mesh: Mesh, display: Display) -> Run:
    """Trains from where `run` stands to the end.

    Args:
      config: the whole experiment's.
      task: made from it.
      folder: where metrics and checkpoints go.
      run: from `load`; its state's arrays are consumed.
      mesh: from `devices.make_mesh`.
      display: shows rows and progress.

    Returns:
      the finished run.

    Raises:
      NonFiniteError: the loss or the gradient is not finite. The last checkpoint stays as it is.
    """
    settings, optimizer = config.train, make_optimizer(config.optimizer, config.train.steps)
    schedule = learning_rate(config.optimizer, settings.steps)
    train_step = make_train_step(task, run.graph, optimizer, schedule, mesh, config.seed)
    evaluator = Evaluator(task, run.graph, mesh)
    checkpoints = Checkpoints(folder.checkpoints)
    metrics_file = MetricsFile(folder.metrics, run.progress.step)
    state, best, progress = run.state, run.best, run.progress
    started = time.monotonic() - progress.seconds
    pending = None

    def collect(progress: Progress) -> Progress:
        """Takes in the sums of the pending step, which the devices finished while the next one was being sent."""
        if pending is None:
            return progress
        step, sums = pending
        fetched = jax.device_get(sums)
        del fetched["nonfinite"]
        refuse_nonfinite(step, fetched)
        display.advance(step, float(fetched["loss"][0] / fetched["loss"][1]))
        return dataclasses.replace(progress, sums=add_sums(progress.sums, fetched))

    try:
        step = progress.step
        while not progress.finished:
            batch = devices.spread(task.train_batch(config.seed, step), mesh)
            state, sums = train_step(state, batch)
            progress = collect(progress)
            step, pending = step + 1, (step + 1, sums)
            last = step == settings.steps
            logs, evaluates, saves = (
                last or step % every == 0
                for every in (settings.log_every, settings.eval_every, settings.checkpoint_every)
            )
            if not (logs or evaluates or saves):
                continue
            progress, pending = dataclasses.replace(collect(progress), step=step), None
            if logs:
                means = {
                    name: progress.sums[name][0] / progress.sums[name][1] for name in ("grad_norm", "learning_rate")
                }
                row = task.metrics(progress.sums) | means
                metrics_file.write(step, "train", row)
                display.row(step, "train", row)
                progress = dataclasses.replace(progress, sums={})
            if evaluates:
                row = evaluator(state.params, "validation")
                metrics_file.write(step, "validation", row)
                display.row(step, "validation", row)
                progress = judged(progress, row[task.metric], task, settings.patience)
                if progress.best_step == step:
                    best = copy(state.params)
            if saves or progress.finished or last:
                progress = dataclasses.replace(
                    progress, finished=progress.finished or last, seconds=time.monotonic() - started
                )
                metrics_file.flush()
                checkpoints.save({"state": state, "best": best}, progress)
    finally:
        metrics_file.close()
    return Run(run.graph, state, best, progress)


@jax.jit
def copy(tree: Any) -> Any:
    """Copies arrays, so that they outlive a step that consumes the originals."""
    return jax.tree.map(jnp.copy, tree)


def judged(progress: Progress, value: float, task: Task, patience: int) -> Progress:
    """Returns the progress after an evaluation that gave `value`: a new best, or one more without."""
    best = progress.best_value
    better = best is None or not task.selects or (value < best if task.mode == "min" else value > best)
    if better and math.isfinite(value):
        return dataclasses.replace(progress, best_value=value, best_step=progress.step, stale=0)
    stale = progress.stale + 1
    return dataclasses.replace(progress, stale=stale, finished=0 < patience <= stale)


def refuse_nonfinite(step: int, sums: Any) -> None:
    """Raises where the loss or the gradient's norm of a step is not finite."""
    for name in ("loss", "grad_norm"):
        value = float(sums[name][0] / sums[name][1])
        if not math.isfinite(value):
            raise NonFiniteError(f"step {step}: {name} is {value}; training stopped, the last checkpoint is unharmed")
