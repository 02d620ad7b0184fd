"""A whole run: its first line, its training, its test score, and the files that it leaves."""

from typing import Any

import jax
from jax.sharding import Mesh

from experiments import atomic
from experiments.config import ExperimentConfig
from experiments.run_folder import RunFolder
from experiments.tasks.base import Task
from experiments.training import devices, environment, loop, plots, processes
from experiments.training.display import Display
from experiments.training.evaluation import Evaluator
from experiments.training.interruption import Interruption
from experiments.training.memory import refuse_too_large
from experiments.training.metrics import read_rows
from experiments.training.state import parameter_count
from experiments.training.tensorboard import EventFiles


def prepare(config: ExperimentConfig, task: Task, device_count: int | None, model_parallel: int = 1) -> Mesh:
    """Lays out the devices of a run; what cannot be is refused here, before the run claims a folder.

    Args:
      config: the whole experiment's.
      task: made from it.
      device_count: how many devices to use; None for as many as divide the batch.
      model_parallel: over how many devices wide matrices are cut.

    Raises:
      DeviceError: there are no such devices.
      ConfigError: the task has no such model, or it is more than their memory.
    """
    mesh = devices.make_mesh(task.batch_size, device_count, model_parallel, config.train.accumulate)
    refuse_too_large(task, config.model, mesh)
    return mesh


def run(
    config: ExperimentConfig,
    task: Task,
    folder: RunFolder,
    mesh: Mesh,
    origin: dict[str, Any],
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Trains to the end and writes the folder's files.

    Args:
      config: the whole experiment's.
      task: made from it.
      folder: claimed for it.
      mesh: from `prepare`.
      origin: "config" and "overrides", as the command line named them.
      tensorboard: whether to write event files.

    Returns:
      the contents of summary.json.
    """
    folder.record(task)
    start = loop.load(config, task, folder, mesh)
    step = start.progress.step
    environment.append(folder, step, environment.describe(mesh.size))
    display = Display(config.train.steps, step)
    display.line(f"{opening(config, task, start, mesh)}, in {folder.path}, {begun(step)}")
    rows = [row for row in read_rows(folder.metrics) if row["step"] <= step]
    events = EventFiles(folder.tensorboard, rows) if tensorboard else None
    try:
        with processes.Preemption() if jax.process_count() > 1 else Interruption() as stop:
            end = loop.train(config, task, folder, start, mesh, display, [events.write] if events else [], stop)
    finally:
        display.close()
        if events:
            events.close()
    if not end.progress.finished:
        raise stop.interrupted(end.progress.step)
    return conclude(config, task, folder, end, mesh, origin)


def conclude(
    config: ExperimentConfig, task: Task, folder: RunFolder, end: loop.Run, mesh: Mesh, origin: dict[str, Any]
) -> dict[str, Any]:
    """Scores the test split once, draws the learning curve and writes summary.json, whose contents it returns.

    Raises:
      NonFiniteError: no evaluation gave a number, so that there are no best parameters.
    """
    if end.progress.best_value is None:
        raise loop.NonFiniteError(f"no evaluation gave a finite {task.metric}, so there is nothing to test")
    scores = Evaluator(task, end.graph, mesh)(end.best, "test")
    chosen = end.progress.best_step if task.selects else None
    plots.learning_curve(read_rows(folder.metrics), task.metric, chosen, folder.learning_curve)
    result = {
        "task": task.result_name,
        **origin,
        "cell": config.model.cell,
        "parameters": parameter_count(end.best),
        "seed": config.seed,
        "test": scores,
        "validation": {"metric": task.metric, "value": end.progress.best_value, "step": end.progress.best_step},
        "steps": end.progress.step,
        "minutes": round(end.progress.seconds / 60, 3),
        "machine": environment.machines(folder),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }
    atomic.write_json(folder.summary, result)
    return result


def opening(config: ExperimentConfig, task: Task, start: loop.Run, mesh: Mesh) -> str:
    """Returns what the first line says of a run: task, cell, size, steps, devices."""
    several = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return (
        f"{task.result_name}: {config.model.cell}, {parameter_count(start.best):,} parameters, {config.train.steps} "
        f"steps on {mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}{several}"
    )


def begun(step: int) -> str:
    return f"resumed at step {step}" if step else "a fresh run"
