"""The grid: every combination of the values given for some keys, each with every seed.

What came of a sweep: means and standard deviations over seeds, and the best by validation.

The seeds of one configuration, trained side by side by one program.

Seeds are spread over the devices, which then need not wait for each other as they do over one run's rows. Where a
device has more than one, an accelerator, which a small network leaves mostly idle, works on all at once (`vmap`). On a
CPU they take their turns within the program: products of many small matrices cost it more than they save. What a run
writes is what it writes alone.
"""

import copy
import dataclasses
import itertools
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.runner import devices
from experiments.runner.config import ExperimentConfig, resolve
from experiments.runner.logging import Display
from experiments.runner.loop import NonFiniteError, Run, Training
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import TrainState, make_group_step, place, stream
from experiments.schema import UserError
from experiments.tasks.base import Batch, Scoring, Task


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
      config: the whole experiment's.
      folder: the run's own, such as `train` makes; `evaluate` and `sample` take it too.
      overrides: what the sweep sets in the config file, as `train` would be told it.
    """

    config: ExperimentConfig
    folder: RunFolder
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.path.parent.name}, seed {self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of the grid's values: its name, such as "model.cell=gru,seed", and a member for each seed."""

    name: str
    members: tuple[Member, ...]


def points(
    values: Mapping[str, Any], grid: Sequence[str], seeds: int, workdir: pathlib.Path, overrides: Sequence[str] = ()
) -> list[Point]:
    """Lays the grid out, the last key changing fastest.

    Args:
      values: the experiment's, as plain nested dicts; `seed` is the first of the seeds.
      grid: "key=value,value" for each key.
      seeds: how many of them for each combination.
      workdir: the sweep's folder; runs have theirs in there.
      overrides: those of the command line, to be recorded beside the grid's.

    Raises:
      UserError: a key or a value that cannot be, before anything is run; one line.
    """
    axes = [parsed(entry) for entry in grid]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1 or key == "seed":
            reason = "once" if keys.count(key) > 1 else "--seeds in its place"
            raise UserError(f"--grid: expected {key} {reason}, got {' '.join(grid)}")
    found = []
    for combination in itertools.product(*(texts for _, texts in axes)):
        settings = [f"{key}={text}" for key, text in zip(keys, combination, strict=True)]
        name = ",".join(settings).replace("/", "_") or "base"
        if any(name == point.name for point in found):
            raise UserError(f"--grid: expected values that differ in more than / and _, got {name!r} twice")
        base = copy.deepcopy(dict(values))
        for key, text in zip(keys, combination, strict=True):
            put(base, key, value_of(text))
        first = resolve(base).seed
        members = []
        for seed in range(first, first + seeds):
            folder = RunFolder(workdir / name / f"seed_{seed}")
            told = (*overrides, *settings, *([f"seed={seed}"] if seed != first else []))
            members.append(Member(resolve(base | {"seed": seed}), folder, told))
        found.append(Point(name, tuple(members)))
    return found


def parsed(entry: str) -> tuple[str, list[str]]:
    """Reads "key=value,value"; commas within brackets belong to a value."""
    key, equals, rest = entry.partition("=")
    texts, depth = [""], 0
    for character in rest:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            texts.append("")
        else:
            texts[-1] += character
    if not equals or not key or "" in texts or len(set(texts)) < len(texts):
        raise UserError(f"--grid: expected key=value,value with values that differ, got {entry!r}")
    return key, texts


def value_of(text: str) -> Any:
    """Reads a value: a number, true, false, a list as JSON has them, else the text itself."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of nested dicts; `resolve` says later whether there is such a key."""
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"--grid: expected a key of the configuration, got {key!r}")
    values[last] = value


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of the grid.

    Attributes:
      name: the combination's.
      seeds: how many runs it has.
      validation: the best validation metric of each finished run.
      test: for each metric that is reported, the test scores of the same runs.
    """

    name: str
    seeds: int
    validation: tuple[float, ...]
    test: Mapping[str, tuple[float, ...]]


def row(point: Point, scoring: Scoring) -> Row:
    """Reads the finished runs of a combination."""
    summaries = [s for member in point.members if (s := member.folder.read_summary()) is not None]
    return Row(
        point.name,
        len(point.members),
        tuple(summary["validation"]["value"] for summary in summaries),
        {metric: tuple(summary["test"][metric] for summary in summaries) for metric in scoring.reported},
    )


def best(rows: Sequence[Row], mode: str) -> Row | None:
    """Returns the combination with the best mean on validation, among those with every seed finished."""
    whole = [row for row in rows if len(row.validation) == row.seeds]
    choose = min if mode == "min" else max
    return choose(whole, key=lambda row: statistics.fmean(row.validation)) if whole else None


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and sample standard deviation; not a number where there are too few values for it."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def shown(values: Sequence[float]) -> str:
    """Writes mean ± standard deviation."""
    if not values:
        return "–"
    mean, deviation = spread(values)
    return f"{mean:.5g}" if math.isnan(deviation) else f"{mean:.5g} ± {deviation:.2g}"


def chosen_of(rows: Sequence[Row], scoring: Scoring) -> Row | None:
    """Returns the best by validation; None where the validation split was trained on, and can choose nothing."""
    return best(rows, scoring.mode) if scoring.selects else None


def text(rows: Sequence[Row], scoring: Scoring) -> str:
    """Lays the rows out in columns; the best by validation is marked."""
    metrics = scoring.reported
    head = ["", "configuration", "seeds", f"validation {scoring.metric}", *(f"test {metric}" for metric in metrics)]
    chosen = chosen_of(rows, scoring)
    lines = [head]
    for row in rows:
        finished = f"{len(row.validation)}/{row.seeds}"
        scores = [shown(row.test[metric]) for metric in metrics]
        lines.append(["*" if row is chosen else "", row.name, finished, shown(row.validation), *scores])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    table = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if not scoring.selects:
        foot = "none is chosen, for the validation split was trained on"
    else:
        foot = f"* the best by validation {scoring.metric}" if chosen else "no configuration has all its seeds finished"
    return "\n".join([*table, f"{foot}; mean ± standard deviation over seeds; the test split chose nothing"])


def plain(rows: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    """Returns the table as plain data."""
    chosen = chosen_of(rows, scoring)
    return {
        "metric": scoring.metric,
        "best": None if chosen is None else chosen.name,
        "configurations": [dataclasses.asdict(row) for row in rows],
    }


class ShapesDifferError(ValueError):
    """The batches of one step have other shapes for other seeds; the message is one line."""


class Plain:
    """Standard output as a pipe would take it: no progress bars, of which there would be one for each seed."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

    def isatty(self) -> bool:
        return False


class SeedDisplay(Display):
    """Shows the rows of one of several runs, with its seed."""

    def __init__(self, steps: int, done: int, seed: int):
        """See `Display`."""
        super().__init__(steps, done, Plain())  # type: ignore[arg-type]
        self.seed = seed

    def line(self, text: str) -> None:
        super().line(f"seed {self.seed}  {text}")


def make_mesh(runs: int, batch_size: int, most: int | None) -> Mesh:
    """Lays out the devices for so many runs: their number divides that of the runs."""
    shared = math.gcd(runs, batch_size)
    return devices.make_mesh(shared, devices.largest_divisor(shared, most or len(jax.devices())))


def mapped_here() -> bool:
    """Whether the runs of one device share its products: on accelerators, not on a CPU."""
    return jax.default_backend() != "cpu"


def train(
    members: Sequence[Member],
    task: Task,
    starts: Sequence[Run],
    mesh: Mesh,
    stop: Callable[[], bool],
    mapped: bool | None = None,
) -> list[Run | NonFiniteError]:
    """Trains runs that stand at the same step from there to the end, or until asked to stop.

    Args:
      members: they differ in the seed alone.
      task: made from their common configuration.
      starts: from `loop.load`, one for each member; their states' arrays are consumed.
      mesh: from `make_mesh`.
      stop: asked after every step.
      mapped: whether the runs of one device share its products; None for `mapped_here`.

    Returns:
      for each member the run as it ended, `progress.finished` false where it was stopped, or why it failed.

    Raises:
      ShapesDifferError: the task's batches cannot be stacked; the last checkpoints are unharmed.
    """
    config = members[0].config
    stopping = False
    trainings = [
        Training(
            member.config,
            task,
            member.folder,
            start,
            mesh,
            SeedDisplay(config.train.steps, start.progress.step, member.config.seed),
            (),
            lambda: stopping,
        )
        for member, start in zip(members, starts, strict=True)
    ]
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    schedule = learning_rate(config.optimizer, config.train.steps)
    mapped = mapped_here() if mapped is None else mapped
    step_all = make_group_step(task, starts[0].graph, optimizer, schedule, mesh, config.train.accumulate, mapped)
    keys = devices.spread(jnp.stack([stream(member.config.seed, "dropout") for member in members]), mesh)
    failures: dict[int, NonFiniteError] = {}
    try:
        for training in trainings:
            training.evaluator = trainings[0].evaluator  # compiled once for all
            if training.progress.due:
                training.mark(logs=False, evaluates=True, saves=True)
        states = devices.spread(stacked([training.state for training in trainings]), mesh)
        active = {number: training for number, training in enumerate(trainings) if not training.progress.finished}
        step = starts[0].progress.step
        while active and not stopping:
            batches = [task.train_batch(member.config.seed, step) for member in members]
            states, sums = step_all(states, devices.spread(side_by_side(batches), mesh), keys)
            of_each, step, stopping = parted(sums, len(members)), step + 1, stop()
            for number, training in list(active.items()):
                if stopping or any(training.due(step)):
                    training.state = place(picked(states, number), mesh)
                try:
                    training.took(of_each[number])
                except NonFiniteError as error:
                    failures[number] = error
                if number in failures or training.progress.finished:
                    del active[number]
    finally:
        for training in trainings:
            training.metrics_file.close()
    return [
        failures.get(number) or Run(starts[number].graph, training.state, training.best, training.progress)
        for number, training in enumerate(trainings)
    ]


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Stacks batches, the first axis for the runs."""
    for name in batches[0]:
        shapes = {batch[name].shape for batch in batches}
        if len(shapes) > 1:
            raise ShapesDifferError(f"batches of one step differ in the shape of {name!r}: {sorted(shapes)}")
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


@jax.jit
def stacked(states: Sequence[TrainState]) -> TrainState:
    """Stacks states, the first axis for the runs."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)


@jax.jit
def picked(tree: Any, number: int) -> Any:
    """Returns what belongs to one run."""
    return jax.tree.map(lambda array: array[number], tree)


@partial(jax.jit, static_argnums=1)
def parted(sums: Any, count: int) -> list[Any]:
    """Returns the sums of each run."""
    return [picked(sums, number) for number in range(count)]
