"""A trained run, as the commands that use its model load it."""

import contextlib
import pathlib
from typing import Any

from flax import nnx

from experiments import tasks
from experiments.run_folder import RunFolder, RunFolderError
from experiments.schema import ConfigError
from experiments.tasks.base import Task
from experiments.training import devices, loop


def load(workdir: str, data_dir: str | None, kinds: tuple[type[Task], ...]) -> tuple[Any, Any]:
    """Returns the task of a run and its model with the parameters best on validation, on one device.

    What the task has learned from its data comes from the run's folder: the data themselves need not be there.

    Args:
      workdir: the run's folder.
      data_dir: where data sets are looked for.
      kinds: the tasks whose runs the command takes.

    Raises:
      ConfigError: the run is of another task.
      RunFolderError: there is no run, or it has no evaluated parameters yet.
    """
    folder = RunFolder(pathlib.Path(workdir))
    config = folder.load_config()
    kind = tasks.find(config.task.name)
    if kind not in kinds:
        wanted = " or ".join(repr(name) for name, known in tasks.TASKS.items() if known in kinds)
        raise ConfigError(f"--workdir: expected a run of task {wanted}, got one of {config.task.name!r} in {workdir}")
    task = kind(config.task, data_dir, folder.path)
    with contextlib.suppress(OSError):  # an earlier version's run, in a folder that cannot be written
        folder.record(task)
    run = loop.load(config, task, folder, devices.make_mesh(1))
    if run.progress.best_value is None:
        raise RunFolderError(f"{folder.path} holds no evaluated parameters yet")
    return task, nnx.merge(run.graph, run.best)
