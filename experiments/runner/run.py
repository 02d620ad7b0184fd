"""A whole run: its first line, its training, its test score, and the files that it leaves.

A trained run, as the commands that use its model load it.
"""

import contextlib
import pathlib
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from experiments import figures, files, tasks
from experiments.runner import devices, environment, loop, processes
from experiments.runner.config import ExperimentConfig
from experiments.runner.evaluation import Evaluator
from experiments.runner.interruption import Interruption
from experiments.runner.logging import Display, EventFiles, read_rows
from experiments.runner.memory import refuse_too_large
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import parameter_count
from experiments.schema import UserError
from experiments.tasks.base import Task


def prepare(config: ExperimentConfig, task: Task, device_count: int | None, model_parallel: int = 1) -> Mesh:
    """Lays out the devices of a run; what cannot be is refused here, before the run claims a folder.

    Args:
      config: the whole experiment's.
      task: made from it.
      device_count: how many devices to use; None for as many as divide the batch.
      model_parallel: over how many devices wide matrices are cut.

    Raises:
      UserError: there are no such devices; the task has no such model, or it is more than their memory.
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
        raise loop.NonFiniteError(f"no evaluation gave a finite {task.scoring.metric}, so there is nothing to test")
    scores = Evaluator(task, end.graph, mesh)(end.best, "test")
    chosen = end.progress.best_step if task.scoring.selects else None
    figures.learning_curve(read_rows(folder.metrics), task.scoring.metric, chosen, folder.learning_curve)
    result = {
        "task": task.result_name,
        **origin,
        "cell": config.model.cell,
        "parameters": parameter_count(end.best),
        "seed": config.seed,
        "test": scores,
        "validation": {"metric": task.scoring.metric, "value": end.progress.best_value, "step": end.progress.best_step},
        "steps": end.progress.step,
        "minutes": round(end.progress.seconds / 60, 3),
        "machine": environment.machines(folder),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }
    files.write_json(folder.summary, result)
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


def load_trained(workdir: str, data_dir: str | None, kinds: tuple[type[Task], ...]) -> tuple[Any, Any]:
    """Returns the task of a run and its model with the parameters best on validation, on one device.

    What the task has learned from its data comes from the run's folder: the data themselves need not be there.

    Args:
      workdir: the run's folder.
      data_dir: where data sets are looked for.
      kinds: the tasks whose runs the command takes.

    Raises:
      UserError: the run is of another task; there is no run, or it has no evaluated parameters yet.
    """
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.load_config()
    kind = tasks.find(config.task.name)
    if not issubclass(kind, kinds):
        wanted = " or ".join(repr(known.Config.name) for known in kinds)
        raise UserError(f"--workdir: expected a run of task {wanted}, got one of {config.task.name!r} in {workdir}")
    task = kind(config.task, data_dir, folder.path)
    with contextlib.suppress(OSError):  # an earlier version's run, in a folder that cannot be written
        folder.record(task)
    run = loop.load(config, task, folder, devices.make_mesh(1))
    if run.progress.best_value is None:
        raise UserError(f"{folder.path} holds no evaluated parameters yet")
    return task, nnx.merge(run.graph, run.best)
