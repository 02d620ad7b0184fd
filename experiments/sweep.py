"""Trains a grid of configurations with several seeds each, and prints which one is best on validation.

  python -m experiments.sweep --config=configs/digits.py:rows --workdir=runs/cells --grid=model.cell=gru,lstm --seeds=3
  python -m experiments.sweep ... --grid=model.cell=gru,lstm --grid=optimizer.learning_rate=1e-3,3e-3 --seeds=3

A value of --grid is parsed as the value of --config.<key>=<value>. Each run has its own run folder,
<workdir>/<combination>/seed_<n>, as `train` makes it. A failed run is reported, and the others continue. Rerun the
command to resume: finished runs are read, failed ones are retried. In a job array, each job trains one combination with
--index, and the same command without --index prints the table. The exit status is the same as for `train`, and 1 if
a run failed.
"""

import contextlib
import pathlib
import sys
import traceback
from collections.abc import Iterator, Sequence

import jax
from absl import flags

from experiments import files, tasks
from experiments.runner import cli, devices, environment, logging, run, sweep
from experiments.runner.interruption import Interrupted
from experiments.runner.sweep import Point, Trial
from experiments.schema import UserError

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The sweep's folder. If it holds this sweep, the sweep is resumed.")
GRID = flags.DEFINE_multi_string("grid", [], "A key and its values: model.cell=gru,lstm. May be repeated.")
SEEDS = flags.DEFINE_integer("seeds", 1, "Number of seeds per combination, from the config's seed on.", lower_bound=1)
INDEX = flags.DEFINE_integer("index", None, "Train only this combination of the grid, from 0; for job arrays.")
DATA_DIR = cli.define_data_dir()
DEVICES = flags.DEFINE_integer(
    "devices", None, "Number of devices. Default: all; on a CPU one per core.", lower_bound=1
)
RECORD = flags.DEFINE_bool("record", False, "Whether to add finished runs to experiments/results/<task>.jsonl.")

Failures = dict[str, str]
"""The reason, in one line, for each failed run."""


def main(arguments: Sequence[str]) -> int:
    """Reads the flags, trains unfinished runs, prints the table."""
    del arguments
    config, config_file, overrides = cli.config_of(CONFIG)
    if not WORKDIR.value:
        raise UserError("--workdir: expected the sweep's folder, such as runs/cells, got nothing")
    if RECORD.value:
        environment.require_clean_commit("--record", environment.commit())
    workdir = pathlib.Path(WORKDIR.value)
    points = sweep.expand_grid(config.to_dict(), GRID.value, SEEDS.value, workdir, overrides)
    chosen = points
    if INDEX.value is not None:
        if not 0 <= INDEX.value < len(points):
            raise UserError(f"--index: expected from 0 to {len(points) - 1}, got {INDEX.value}")
        chosen = [points[INDEX.value]]
    for trial in (trial for point in points for trial in point.trials):
        if trial.folder.read_summary() is not None:
            trial.folder.check_config(trial.config)
    configs = [point.trials[0].config.task for point in points]
    scoring, *others = (tasks.find(config.name).scoring_for(config) for config in configs)
    if any(other != scoring for other in others):
        raise UserError(
            "--grid: expected points with the same metrics and selection, got several, which cannot be ranked"
        )
    sweep.check_grid(workdir / "sweep.json", [point.name for point in points])
    jax.config.update("jax_num_cpu_devices", DEVICES.value or devices.available_cores())
    failures: Failures = {}
    for point in chosen:
        failures |= train_point(point, config_file)
    rows = [sweep.summarize(point, scoring) for point in points]
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / "sweep.json", sweep.to_json(rows, scoring))
    print(sweep.format_table(rows, scoring))
    for name, line in failures.items():
        print(f"failed: {name}: {line}")
    if RECORD.value:
        for trial in (trial for point in chosen for trial in point.trials):
            summary = trial.folder.read_summary()
            if summary is not None:
                logging.record(summary, scoring.reported)
    return 1 if failures else 0


def train_point(point: Point, config_file: str) -> Failures:
    """Trains the unfinished trials of one point. Returns the failed ones."""
    failures: Failures = {}
    trials = [trial for trial in point.trials if trial.folder.read_summary() is None]
    if not trials:
        return failures
    with report_failures(failures, trials):
        config = trials[0].config
        task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
        mesh = run.prepare(config, task, DEVICES.value)
        for trial in trials:
            with report_failures(failures, [trial]):
                task.check_data(trial.folder.path, f"--config.task.{task.user_file}")
                task.load_artifacts(trial.folder.path)
                with trial.folder.claimed(trial.config):
                    print(f"{trial.name}:")
                    origin = {"config": config_file, "overrides": list(trial.overrides)}
                    run.run(trial.config, task, trial.folder, mesh, origin)
    return failures


@contextlib.contextmanager
def report_failures(failures: Failures, trials: Sequence[Trial]) -> Iterator[None]:
    """Adds an error to the failures of some trials instead of raising it. A programming error prints its traceback."""
    try:
        yield
    except (Interrupted, BrokenPipeError):
        raise
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exception(error, file=sys.stderr)
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        for trial in trials:
            failures[trial.name] = line
            print(f"failed: {trial.name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
