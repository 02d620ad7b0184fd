"""Evaluates the best parameters of a run, or an exported model, on a split.

python -m experiments.evaluate --workdir=runs/digits --split=validation
python -m experiments.evaluate --workdir=pretrained/digits --split=test
"""

import pathlib
from collections.abc import Sequence
from typing import cast

from absl import flags

from experiments.runner import cli, devices, logging, run
from experiments.runner.evaluation import Evaluator
from experiments.runner.run_folder import RunFolder
from experiments.tasks.base import SPLITS, Split

WORKDIR = cli.define_workdir("The run folder, or an exported model.")
SPLIT = flags.DEFINE_enum("split", "validation", SPLITS, "The split to evaluate on.")
PARAMETERS = flags.DEFINE_enum("parameters", "best", ["best", "latest"], "Parameters: best on validation, or latest.")
DATA_DIR = cli.define_data_dir()
DATA_FILE = cli.define_data_file()


def main(arguments: Sequence[str]) -> None:
    """Loads the run and prints its metrics."""
    del arguments
    folder = RunFolder(pathlib.Path(WORKDIR.value))
    config, task = run.load_task(folder, DATA_DIR.value, DATA_FILE.value)
    devices.request_cpu_devices(task.batch_size, None)
    mesh = devices.make_mesh(task.batch_size)
    trained = run.load_parameters(config, task, folder, mesh, PARAMETERS.value == "latest")
    split = cast(Split, SPLIT.value)
    metrics = Evaluator(task, trained.graphdef, mesh)(trained.params, split)
    trained_on = split == "train" or (split == "validation" and not task.scoring.selects)
    known = f", {'which was trained on' if task.training_data else 'generated as in training'}" if trained_on else ""
    title = f"{task.result_name}, {split} split{known}, parameters of step {trained.step}"
    print(logging.table([(name, f"{value:.6g}") for name, value in metrics.items()], title))


if __name__ == "__main__":
    cli.run(main)
