"""Trains a grid of configurations with several seeds each, and says which is best on validation.

  python -m experiments.sweep --config=configs/digits.py:rows --workdir=runs/cells --grid=model.cell=gru,lstm --seeds=3
  python -m experiments.sweep ... --grid=model.cell=gru,lstm --grid=optimizer.learning_rate=1e-3,3e-3 --seeds=3

Every run has a folder of its own, <workdir>/<settings>/seed_<n>, as `train` makes it. Seeds of one configuration are
trained side by side by one program, where the task's batches can be stacked; `minutes` are then those of all of them
together. A run that fails is reported, and the rest go on. The same command goes on where it was stopped: finished runs
are read, failed ones tried again. In a job array, each job trains one configuration with --index, and the same command
without it makes the table. Exit status as of `train`; 1 also where a run failed.
"""

import collections
import contextlib
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from experiments import files, tasks
from experiments.runner import cli, devices, environment, logging, loop, run, sweep
from experiments.runner.interruption import Interrupted, Interruption
from experiments.runner.memory import refuse_too_large
from experiments.runner.sweep import Member, Point
from experiments.schema import UserError
from experiments.tasks.base import Task

CONFIG = cli.define_config()
WORKDIR = flags.DEFINE_string("workdir", None, "The sweep's folder; it is made, or the sweep in it goes on.")
GRID = flags.DEFINE_multi_string("grid", [], "A key and its values: model.cell=gru,lstm. May be given several times.")
SEEDS = flags.DEFINE_integer("seeds", 1, "How many seeds for each configuration, from the config's on.", lower_bound=1)
INDEX = flags.DEFINE_integer("index", None, "Train this configuration of the grid alone, from 0; for job arrays.")
TOGETHER = flags.DEFINE_bool("together", True, "Whether to train the seeds of one configuration side by side.")
DATA_DIR = cli.define_data_dir()
DEVICES = flags.DEFINE_integer(
    "devices", None, "How many devices to use; else all, on a CPU one a core.", lower_bound=1
)
RECORD = flags.DEFINE_bool("record", False, "Whether to add finished runs to experiments/results/<task>.jsonl.")

Failures = dict[str, str]
"""For each run that failed, why, in one line."""


def main(arguments: Sequence[str]) -> int:
    """Reads the flags, trains what is not finished, prints the table."""
    del arguments
    config, config_file, overrides = cli.config_of(CONFIG)
    if not WORKDIR.value:
        raise UserError("--workdir: expected the sweep's folder, such as runs/cells, got nothing")
    workdir = pathlib.Path(WORKDIR.value)
    points = sweep.points(config.to_dict(), GRID.value, SEEDS.value, workdir, overrides)
    chosen = points
    if INDEX.value is not None:
        if not 0 <= INDEX.value < len(points):
            raise UserError(f"--index: expected from 0 to {len(points) - 1}, got {INDEX.value}")
        chosen = [points[INDEX.value]]
    jax.config.update("jax_num_cpu_devices", DEVICES.value or devices.available_cores())
    failures: Failures = {}
    for point in chosen:
        failures |= train_point(point, config_file)
    first = points[0].members[0].config
    scoring = tasks.find(first.task.name).scoring_for(first.task)
    rows = [sweep.row(point, scoring) for point in points]
    files.write_json(workdir / "sweep.json", sweep.plain(rows, scoring))
    print(sweep.text(rows, scoring))
    for name, line in failures.items():
        print(f"failed: {name}: {line}")
    if RECORD.value:
        for member in (member for point in chosen for member in point.members):
            finished = member.folder.read_summary()
            if finished is not None:
                logging.record(finished, scoring.reported)
    return 1 if failures else 0


def train_point(point: Point, config_file: str) -> Failures:
    """Finishes the runs of one configuration; returns those that failed."""
    failures: Failures = {}
    members = [member for member in point.members if member.folder.read_summary() is None]
    if not members:
        return failures
    with reported(failures, members):
        task = tasks.find(members[0].config.task.name)(members[0].config.task, DATA_DIR.value)
        members = [member for member in members if has_the_same_data(member, task, failures)]
        if not members:
            return failures
        any(task.load_artifacts(member.folder.path) for member in members)
        if TOGETHER.value and len(members) > 1:
            try:
                return failures | train_together(members, task, config_file)
            except sweep.ShapesDifferError as error:
                print(f"{point.name}: one seed after the other, for {error}")
        mesh = run.prepare(members[0].config, task, DEVICES.value)
        for member in members:
            with reported(failures, [member]), member.folder.claimed(member.config):
                print(f"{member.name}:")
                run.run(member.config, task, member.folder, mesh, origin(member, config_file))
    return failures


def has_the_same_data(member: Member, task: Task, failures: Failures) -> bool:
    """Returns whether a run began with the data that there are now, if it began; else it has failed."""
    with reported(failures, [member]):
        task.check_data(member.folder.path, f"--config.task.{task.user_file}")
    return member.name not in failures


def train_together(members: Sequence[Member], task: Task, config_file: str) -> Failures:
    """Trains runs that differ in the seed alone, those that stand at the same step side by side."""
    failures: Failures = {}
    one = sweep.make_mesh(1, task.batch_size, 1)
    refuse_too_large(task, members[0].config.model, one)
    standing: dict[int, list[tuple[Member, loop.Run]]] = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        for member in members:
            with reported(failures, [member]):
                stack.enter_context(member.folder.claimed(member.config))
                member.folder.record(task)
                start = loop.load(member.config, task, member.folder, one)
                standing[start.progress.step].append((member, start))
        for _, same in sorted(standing.items()):
            with reported(failures, [member for member, _ in same]):
                failures |= train_same([member for member, _ in same], task, [start for _, start in same], config_file)
    return failures


def train_same(members: Sequence[Member], task: Task, starts: Sequence[loop.Run], config_file: str) -> Failures:
    """Trains runs that stand at one step, side by side, and scores each on the test split once."""
    failures: Failures = {}
    mesh = sweep.make_mesh(len(members), task.batch_size, DEVICES.value)
    starts = [loop.moved(start, mesh) for start in starts]
    step = starts[0].progress.step
    seeds = ", ".join(str(member.config.seed) for member in members)
    first = members[0]
    print(
        f"{run.opening(first.config, task, starts[0], mesh)}, in {first.folder.path.parent}, {run.begun(step)}, ",
        end="",
    )
    print(f"seeds {seeds} side by side", flush=True)
    for member in members:
        environment.append(member.folder, step, environment.describe(mesh.size))
    with Interruption() as stop:
        ends = sweep.train(members, task, starts, mesh, stop)
    for member, end in zip(members, ends, strict=True):
        with reported(failures, [member]):
            if isinstance(end, Exception):
                raise end
            if end.progress.finished:
                run.conclude(member.config, task, member.folder, end, mesh, origin(member, config_file))
    if stop.number is not None:
        raise stop.interrupted(max(end.progress.step for end in ends if isinstance(end, loop.Run)))
    return failures


def origin(member: Member, config_file: str) -> dict[str, Any]:
    """Returns what a run's summary says of the command that it repeats."""
    return {"config": config_file, "overrides": list(member.overrides)}


@contextlib.contextmanager
def reported(failures: Failures, members: Sequence[Member]):
    """Has runs fail without the sweep: why goes into `failures`, and for an error of the program the traceback too."""
    try:
        yield
    except (Interrupted, sweep.ShapesDifferError, BrokenPipeError):
        raise
    except Exception as error:
        if not isinstance(error, UserError):
            traceback.print_exception(error, file=sys.stderr)
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        for member in members:
            failures[member.name] = line
            print(f"failed: {member.name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
