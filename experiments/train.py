"""Trains one experiment; run again, it goes on.

python -m experiments.train --config=configs/digits.py --workdir=runs/digits --config.model.hidden_size=128
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import atomic, command_line, tasks
from experiments.config import ExperimentConfig
from experiments.run_folder import RunFolder
from experiments.tasks.base import Task
from experiments.training import devices, environment, loop, plots, summary
from experiments.training.display import Display
from experiments.training.evaluation import Evaluator
from experiments.training.metrics import read_rows
from experiments.training.state import parameter_count

CONFIG = command_line.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; it is made, or the run in it goes on.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets are looked for; else $GRU_JAX_DATA, else a cache.")
DEVICES = flags.DEFINE_integer(
    "devices", None, "How many devices to spread a batch over; else all, on a CPU one a core.", lower_bound=1
)
RECORD = flags.DEFINE_bool("record", False, "Whether to add the finished run to experiments/results/<task>.jsonl.")


def main(arguments: Sequence[str]) -> None:
    """Reads the flags, trains, scores the test split once, prints the closing table."""
    del arguments
    config, config_file, overrides = command_line.config_of(CONFIG)
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
    devices.request_cpu_devices(task.batch_size, DEVICES.value)
    folder = RunFolder(pathlib.Path(WORKDIR.value))
    folder.claim(config)
    finished = folder.read_summary()
    if finished is None:
        finished = run(config, task, folder, DEVICES.value, {"config": config_file, "overrides": overrides})
    print(summary.closing_table(finished, folder.path))
    if RECORD.value:
        print(f"recorded in {summary.record(finished, task.result_metrics)}")


def run(
    config: ExperimentConfig, task: Task, folder: RunFolder, device_count: int | None, origin: dict[str, Any]
) -> dict[str, Any]:
    """Trains to the end and writes the folder's files.

    Args:
      config: the whole experiment's.
      task: made from it.
      folder: claimed for it.
      device_count: how many devices to use; None for as many as divide the batch.
      origin: "config" and "overrides", as the command line named them.

    Returns:
      the contents of summary.json.
    """
    mesh = devices.make_mesh(task.batch_size, device_count)
    start = loop.load(config, task, folder, mesh)
    step, count = start.progress.step, parameter_count(start.best)
    environment.append(folder.environment, step, environment.describe(mesh.size))
    display = Display(config.train.steps, step)
    display.line(
        f"{task.result_name}: {config.model.cell}, {count:,} parameters, {config.train.steps} steps on "
        f"{mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}, in {folder.path}, "
        + (f"resumed at step {step}" if step else "a fresh run")
    )
    try:
        end = loop.train(config, task, folder, start, mesh, display)
    finally:
        display.close()
    if end.progress.best_value is None:
        raise loop.NonFiniteError(f"no evaluation gave a finite {task.metric}, so there is nothing to test")
    scores = Evaluator(task, end.graph, mesh)(end.best, "test")
    plots.learning_curve(read_rows(folder.metrics), task.metric, end.progress.best_step, folder.learning_curve)
    result = {
        "task": task.result_name,
        **origin,
        "cell": config.model.cell,
        "parameters": count,
        "seed": config.seed,
        "test": scores,
        "validation": {"metric": task.metric, "value": end.progress.best_value, "step": end.progress.best_step},
        "steps": end.progress.step,
        "minutes": round(end.progress.seconds / 60, 3),
        "machine": environment.machine(),
        "versions": environment.versions(),
        "commit": environment.commit(),
    }
    atomic.write_json(folder.summary, result)
    return result


if __name__ == "__main__":
    command_line.run(main)
