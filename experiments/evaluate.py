"""Evaluates a run's best parameters on a split.

python -m experiments.evaluate --workdir=runs/digits --split=validation
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import cast

from absl import flags

from experiments import tasks
from experiments.runner import cli, devices, logging, loop
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import eval_params
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks.base import SPLITS, Split

WORKDIR = cli.define_workdir("The run folder.")
SPLIT = flags.DEFINE_enum("split", "validation", SPLITS, "The split to evaluate on.")
PARAMETERS = flags.DEFINE_enum("parameters", "best", ["best", "latest"], "Parameters: best on validation, or latest.")
DATA_DIR = cli.define_data_dir()
DATA_FILE = flags.DEFINE_string("data_file", "", "The path of your own text or CSV file, if it was moved.")


def main(arguments: Sequence[str]) -> None:
    """Loads the run and prints its metrics."""
    del arguments
    folder = RunFolder(pathlib.Path(WORKDIR.value))
    config = folder.load_config()
    kind = tasks.find(config.task.name)
    if DATA_FILE.value:
        if not kind.user_path(config.task):
            raise UserError(f"--data_file: expected a run on a file of your own, got one of {config.task.name!r}")
        config = dataclasses.replace(config, task=kind.with_user_path(config.task, DATA_FILE.value))
    task = kind(config.task, DATA_DIR.value, folder.path)
    task.check_data(folder.path, "--data_file")
    with contextlib.suppress(OSError):  # a run of an earlier version in a read-only folder
        folder.save_artifacts(task)
    devices.request_cpu_devices(task.batch_size, None)
    mesh = devices.make_mesh(task.batch_size)
    run = loop.load_run(config, task, folder, mesh)
    if run.progress.step == 0:
        raise UserError(f"{folder.path} holds no checkpoint yet")
    best = PARAMETERS.value == "best"
    if best and run.progress.best_value is None:
        raise UserError(f"{folder.path} holds no evaluated parameters yet; --parameters=latest scores the last ones")
    params, step = (run.best, run.progress.best_step) if best else (eval_params(run.state), run.progress.step)
    split = cast(Split, SPLIT.value)
    metrics = Evaluator(task, run.graphdef, mesh)(params, split)
    known = (
        ", which was trained on," if split == "train" or (split == "validation" and not task.scoring.selects) else ","
    )
    title = f"{task.result_name}, {split} split{known} parameters of step {step}"
    print(logging.table([(name, f"{value:.6g}") for name, value in metrics.items()], title))


if __name__ == "__main__":
    cli.run(main)
