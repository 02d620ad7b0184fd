"""Trains one experiment, or resumes it.

  python -m experiments.train --list
  python -m experiments.train --config=configs/digits.py --workdir=runs/digits
  python -m experiments.train --config=configs/digits.py --workdir=runs/wide --config.model.hidden_size=256

Any key of the configuration can be set by --config.<key>=<value>. Rerun the command to resume a run from its last
checkpoint. Exit status: 0 finished; 1 an error, printed in one line; 2 an invalid flag; 143 or 130 stopped by SIGTERM
or SIGINT, after a checkpoint.
"""

import contextlib
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments import tasks
from experiments.runner import cli, devices, environment, logging, processes
from experiments.runner.config import ExperimentConfig, catalogue
from experiments.runner.run import prepare, run
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder. If it holds this run, the run is resumed.")
DATA_DIR = cli.define_data_dir()
DEVICES = flags.DEFINE_integer(
    "devices", None, "Number of devices per process. Default: all; on a CPU one per core.", lower_bound=1
)
MODEL_PARALLEL = flags.DEFINE_integer(
    "model_parallel",
    1,
    "Number of devices over which wide matrices are sharded; rows are sharded over the rest.",
    lower_bound=1,
)
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "Whether this is one of several processes, given by SLURM, Open MPI, Kubernetes or flags."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "With --multihost: host:port of the first process.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "With --multihost: number of processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "With --multihost: index of this process, from 0.")
RECORD = flags.DEFINE_bool("record", False, "Whether to add the finished run to experiments/results/<task>.jsonl.")
TENSORBOARD = flags.DEFINE_bool("tensorboard", False, "Whether to write event files to <workdir>/tensorboard.")
LIST = flags.DEFINE_bool("list", False, "Whether to list the config files and exit.")


def main(arguments: Sequence[str]) -> None:
    """Reads the flags, trains, scores the test split once, prints the closing table."""
    del arguments
    if LIST.value:
        print(catalogue())
        return
    config, config_file, overrides = cli.config_of(CONFIG)
    if not WORKDIR.value:
        raise UserError("--workdir: expected a run folder, such as runs/digits, got nothing")
    if RECORD.value:
        environment.require_clean_commit("--record", environment.commit())
    place = COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value
    if any(value is not None for value in place) and not MULTIHOST.value:
        raise UserError("--coordinator, --num_processes, --process_id: expected --multihost beside them")
    cluster = processes.Cluster(*place)
    with processes.joined(cluster) if MULTIHOST.value else contextlib.nullcontext():
        train(config, RunFolder(pathlib.Path(WORKDIR.value)), {"config": config_file, "overrides": overrides})


def train(config: ExperimentConfig, folder: RunFolder, origin: dict[str, Any]) -> None:
    """Trains the run in a folder unless it is finished, and prints the closing table."""
    folder.check_config(config)
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value, folder.path)
    task.check_data(folder.path, f"--config.task.{task.user_file}")
    devices.request_cpu_devices(task.batch_size // config.train.accumulate, DEVICES.value, MODEL_PARALLEL.value)
    finished = folder.read_summary()
    if not processes.broadcast_from_first(finished is not None):
        mesh = prepare(config, task, DEVICES.value, MODEL_PARALLEL.value)
        with processes.own_folder(folder, config) as own:
            finished = run(config, task, own, mesh, origin, TENSORBOARD.value)
    elif TENSORBOARD.value and processes.is_first():
        logging.EventFiles(folder.tensorboard, logging.read_rows(folder.metrics)).close()
    if finished is None or not processes.is_first():
        return
    print(logging.closing_table(finished, folder.path, task.scoring.selects, task.command))
    if RECORD.value:
        print(f"recorded in {logging.record(finished, task.scoring.reported)}")


if __name__ == "__main__":
    cli.run(main)
