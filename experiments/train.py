"""Trains one experiment; run again, it goes on.

  python -m experiments.train --list
  python -m experiments.train --config=configs/digits.py --workdir=runs/digits
  python -m experiments.train --config=configs/digits.py --workdir=runs/wide --config.model.hidden_size=256

Any key of the configuration is set by --config.<key>=<value>. However it was stopped, the same command goes on from the
last checkpoint. Exit status: 0 finished; 1 refused or failed, as one line says; 2 a flag that cannot be; 143 or 130
stopped by SIGTERM or SIGINT after writing a checkpoint.
"""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments import atomic, command_line, tasks
from experiments.catalogue import catalogue
from experiments.config import ExperimentConfig
from experiments.run_folder import RunFolder
from experiments.schema import ConfigError
from experiments.tasks.base import Task
from experiments.training import devices, environment, loop, plots, processes, summary
from experiments.training.display import Display
from experiments.training.evaluation import Evaluator
from experiments.training.interruption import Interruption
from experiments.training.metrics import read_rows
from experiments.training.state import parameter_count
from experiments.training.tensorboard import EventFiles

CONFIG = command_line.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; it is made, or the run in it goes on.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets are looked for; else $GRU_JAX_DATA, else a cache.")
DEVICES = flags.DEFINE_integer(
    "devices", None, "How many devices (of each process) to use; else all, on a CPU one a core.", lower_bound=1
)
MODEL_PARALLEL = flags.DEFINE_integer(
    "model_parallel", 1, "Over how many of them to cut wide matrices; over the rest, rows are spread.", lower_bound=1
)
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Whether this is one of several processes; SLURM, Open MPI or Kubernetes tell which, or flags."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "With --multihost: host:port of the first process.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --multihost: how many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --multihost: which of them this is, from 0.")
RECORD = flags.DEFINE_bool("record", False, "Whether to add the finished run to experiments/results/<task>.jsonl.")
TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Whether to write event files to <workdir>/tensorboard.")
LIST = flags.DEFINE_bool("list", False, "Whether to print the configs that there are, and do nothing else.")


def main(arguments: Sequence[str]) -> None:
    """Reads the flags, trains, scores the test split once, prints the closing table."""
    del arguments
    if LIST.value:
        print(catalogue())
        return
    config, config_file, overrides = command_line.config_of(CONFIG)
    if WORKDIR.value is None:
        raise ConfigError("--workdir: expected the run's folder, such as runs/digits, got nothing")
    cluster = processes.Cluster(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    if cluster != processes.Cluster() and not MULTIHOST.value:
        raise ConfigError("--coordinator, --num_processes, --process_id: expected --multihost beside them")
    with processes.joined(cluster, command_line.REFUSALS) if MULTIHOST.value else contextlib.nullcontext():
        train(config, RunFolder(pathlib.Path(WORKDIR.value)), {"config": config_file, "overrides": overrides})


def train(config: ExperimentConfig, folder: RunFolder, origin: dict[str, Any]) -> None:
    """Finishes the run in a folder, or finds that it is finished, and prints the closing table."""
    folder.refuse_others(config)
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
    devices.request_cpu_devices(task.batch_size // config.train.accumulate, DEVICES.value, MODEL_PARALLEL.value)
    finished = folder.read_summary()
    if not processes.of_first(finished is not None):
        with processes.own_folder(folder, config) as own:
            finished = run(config, task, own, DEVICES.value, origin, MODEL_PARALLEL.value)
    if finished is None or not processes.is_first():
        return
    print(summary.closing_table(finished, folder.path))
    if RECORD.value:
        print(f"recorded in {summary.record(finished, task.result_metrics)}")


def run(
    config: ExperimentConfig,
    task: Task,
    folder: RunFolder,
    device_count: int | None,
    origin: dict[str, Any],
    model_parallel: int = 1,
) -> dict[str, Any]:
    """Trains to the end and writes the folder's files.

    Args:
      config: the whole experiment's.
      task: made from it.
      folder: claimed for it.
      device_count: how many devices to use; None for as many as divide the batch.
      origin: "config" and "overrides", as the command line named them.
      model_parallel: over how many devices wide matrices are cut.

    Returns:
      the contents of summary.json.
    """
    mesh = devices.make_mesh(task.batch_size, device_count, model_parallel, config.train.accumulate)
    start = loop.load(config, task, folder, mesh)
    step, count = start.progress.step, parameter_count(start.best)
    environment.append(folder.environment, step, environment.describe(mesh.size))
    count_of_processes = jax.process_count()
    display = Display(config.train.steps, step)
    display.line(
        f"{task.result_name}: {config.model.cell}, {count:,} parameters, {config.train.steps} steps on "
        f"{mesh.size} {mesh.devices.flat[0].platform} device{'s' if mesh.size > 1 else ''}"
        + (f" of {count_of_processes} processes" if count_of_processes > 1 else "")
        + f", in {folder.path}, "
        + (f"resumed at step {step}" if step else "a fresh run")
    )
    rows = [row for row in read_rows(folder.metrics) if row["step"] <= step]
    events = EventFiles(folder.tensorboard, rows) if TENSORBOARD.value else None
    try:
        with processes.Preemption() if count_of_processes > 1 else Interruption() as stop:
            end = loop.train(config, task, folder, start, mesh, display, [events.write] if events else [], stop)
    finally:
        display.close()
        if events:
            events.close()
    if not end.progress.finished:
        raise stop.interrupted(end.progress.step)
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
