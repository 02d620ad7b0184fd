"""A whole run: `prepare` checks that it fits the devices, `run` trains, tests and writes its files.

`load_task`, `load_parameters` and `load_trained` load a trained model for the commands that use it.
"""

import contextlib
import dataclasses
import math
import os
import pathlib
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from experiments import figures, files, tasks
from experiments.runner import devices, environment, loop, processes, weights
from experiments.runner.config import ExperimentConfig
from experiments.runner.evaluation import Evaluator
from experiments.runner.interruption import Interruption
from experiments.runner.logging import Display, EventFiles, read_rows
from experiments.runner.optimizer import eval_params
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import abstract_model, parameter_count
from experiments.schema import UserError, require
from experiments.tasks.base import Task

COPIES = 4
"""Arrays per parameter in training: the parameter, its gradient and the optimizer's two moments."""


def prepare(config: ExperimentConfig, task: Task, device_count: int | None, model_parallel: int = 1) -> Mesh:
    """Returns the device mesh of a run, after checking that the model fits into its memory.

    Args:
      config: the whole configuration.
      task: the task of `config`.
      device_count: number of devices. If None, the largest number that divides the batch.
      model_parallel: number of devices over which wide matrices are sharded.

    Raises:
      UserError: there are fewer devices, or the model cannot be built or does not fit into their memory.
    """
    mesh = devices.make_mesh(task.batch_size, device_count, model_parallel, config.train.accumulate)
    require_memory(task, config.model, mesh)
    return mesh


def require_memory(task: Task, model_config: Any, mesh: Mesh) -> None:
    """Checks that parameters, gradient and optimizer state fit into the memory of all devices, by their shapes.

    Raises:
      UserError: they do not.
    """
    model = nnx.eval_shape(lambda: task.model(model_config, nnx.Rngs(0)))
    count, memory = parameter_count(nnx.state(model)), memory_of(mesh)
    expected = f"parameters that fit into {memory / 2**30:.1f} GiB with gradient and optimizer"
    require("model", 4 * COPIES * count <= memory, expected, f"{count:,} parameters")


def memory_of(mesh: Mesh) -> int:
    """Returns the memory of a mesh's devices in bytes. CPU devices share the memory of the machine."""
    devices = mesh.devices.flat
    if devices[0].platform != "cpu" and devices[0].memory_stats():
        return sum(device.memory_stats()["bytes_limit"] for device in devices)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def run(
    config: ExperimentConfig,
    task: Task,
    folder: RunFolder,
    mesh: Mesh,
    origin: dict[str, Any],
    tensorboard: bool = False,
) -> dict[str, Any]:
    """Trains to the end, scores the test split and writes the files of the run folder.

    Args:
      config: the whole configuration.
      task: the task of `config`.
      folder: the run folder, claimed for `config`.
      mesh: from `prepare`.
      origin: "config" and "overrides" of the command line.
      tensorboard: whether to write event files.

    Returns:
      The contents of summary.json.

    Raises:
      Interrupted: a signal stopped training, after a checkpoint.
    """
    folder.save_artifacts(task)
    start = loop.load_run(config, task, folder, mesh)
    step = start.progress.step
    environment.append(folder, step, environment.describe(mesh.size))
    display = Display(config.train.steps, step)
    began = f"resumed at step {step}" if step else "a fresh run"
    display.line(f"{describe(config, task, start, mesh)}, in {folder.path}, {began}")
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
    return finish(config, task, folder, end, mesh, origin)


def finish(
    config: ExperimentConfig, task: Task, folder: RunFolder, end: loop.Run, mesh: Mesh, origin: dict[str, Any]
) -> dict[str, Any]:
    """Scores the test split once, draws the learning curve, and writes and returns summary.json.

    Raises:
      NonFiniteError: no evaluation was finite, so there are no best parameters, or a test score is not.
    """
    if end.progress.best_value is None:
        raise loop.NonFiniteError(f"no evaluation gave a finite {task.scoring.metric}, so there is nothing to test")
    scores = Evaluator(task, end.graphdef, mesh)(end.best, "test")
    for name, value in scores.items():
        if not math.isfinite(value):
            raise loop.NonFiniteError(f"expected finite scores on the test split, got {name} {value}; see its data")
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
        "commit": environment.trained_commit(folder),
    }
    files.write_json(folder.summary, result)
    return result


def describe(config: ExperimentConfig, task: Task, start: loop.Run, mesh: Mesh) -> str:
    """Returns the first line of a run: task, cell, size, steps, devices."""
    several = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return (
        f"{task.result_name}: {config.model.cell}, {parameter_count(start.best):,} parameters, {config.train.steps} "
        f"steps on {mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}{several}"
    )


def load_task(folder: RunFolder, data_dir: str | None, data_file: str = "") -> tuple[ExperimentConfig, Task]:
    """Loads the configuration and the task of a run or of an exported model, and checks the data.

    Args:
      folder: the folder.
      data_dir: the folder of the data sets.
      data_file: the new path of the user's own file, if it was moved.

    Raises:
      UserError: there is no run, or the data differ from those that it was trained on.
    """
    config = folder.load_config()
    kind = tasks.find(config.task.name)
    if data_file:
        if not kind.user_path(config.task):
            raise UserError(f"--data_file: expected a run on a file of your own, got one of {config.task.name!r}")
        config = dataclasses.replace(config, task=kind.with_user_path(config.task, data_file))
    task = kind(config.task, data_dir, folder.path)
    task.check_data(folder.path, "--data_file")
    return config, task


class Trained(NamedTuple):
    """Trained parameters.

    Attributes:
      graphdef: the model's, which `nnx.merge` combines with parameters.
      params: the parameters, nested dicts of arrays.
      step: the training step that they are from.
    """

    graphdef: Any
    params: Any
    step: int


def load_parameters(
    config: ExperimentConfig, task: Task, folder: RunFolder, mesh: Mesh, latest: bool = False
) -> Trained:
    """Loads the parameters of a run or of an exported model. Nothing is written to an exported model.

    Args:
      config: the folder's configuration.
      task: its task, made with the folder.
      folder: the folder.
      mesh: from `devices.make_mesh`.
      latest: whether to load the latest parameters instead of the best ones.

    Raises:
      UserError: there are no such parameters, or they are damaged.
    """
    if folder.is_exported:
        if latest:
            raise UserError(
                f"--parameters: expected best, the only ones of the exported model {folder.path}, got latest"
            )
        graphdef, shapes = abstract_model(task, config)
        params, origin = weights.read(folder.weights, shapes)
        return Trained(graphdef, devices.shard_params(params, mesh), origin.step)
    with contextlib.suppress(OSError):  # a run of an earlier version in a read-only folder
        folder.save_artifacts(task)
    run = loop.load_run(config, task, folder, mesh)
    if run.progress.step == 0:
        raise UserError(f"{folder.path} holds no checkpoint yet")
    if latest:
        return Trained(run.graphdef, eval_params(run.state), run.progress.step)
    if run.progress.best_value is None:
        raise UserError(
            f"{folder.path} holds no evaluated parameters yet; evaluate --parameters=latest scores the last ones"
        )
    return Trained(run.graphdef, run.best, run.progress.best_step)


def load_trained(workdir: str, data_dir: str | None, kinds: tuple[type[Task], ...]) -> tuple[Any, Any]:
    """Loads the task of a run, and its model with the parameters that are best on validation, on one device.

    The task's artifacts are read from the folder, so the data sets are not needed.

    Args:
      workdir: the run folder, or an exported model.
      data_dir: the folder of the data sets.
      kinds: the tasks that the command supports.

    Returns:
      (task, model).

    Raises:
      UserError: there is no run, it is of another task, or it has no evaluated parameters yet.
    """
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.load_config()
    kind = tasks.find(config.task.name)
    if not issubclass(kind, kinds):
        wanted = " or ".join(repr(known.Config.name) for known in kinds)
        raise UserError(f"--workdir: expected a run of task {wanted}, got one of {config.task.name!r} in {workdir}")
    task = kind(config.task, data_dir, folder.path)
    trained = load_parameters(config, task, folder, devices.make_mesh(1))
    return task, nnx.merge(trained.graphdef, trained.params)
