"""Expands the grid of a sweep into runs, and summarizes the finished ones.

`expand_grid` combines the values of all keys; each combination, a `Point`, has a `Trial` for each seed. `summarize`
reads the scores of a point's finished trials, and `format_table` shows mean and standard deviation over seeds, with the
best point by validation marked.
"""

import dataclasses
import itertools
import json
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from experiments.runner.cli import with_overrides
from experiments.runner.config import ExperimentConfig, resolve
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks.base import Scoring


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      config: the whole configuration, seed included.
      folder: a run folder as `train` makes it.
      overrides: "key=value" for each key that the command line, the grid or the seed sets in the config file.
    """

    config: ExperimentConfig
    folder: RunFolder
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.path.parent.name}, seed {self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of the grid's values: a name such as "model.cell=gru,train.steps=100", and a trial per seed."""

    name: str
    trials: tuple[Trial, ...]


def expand_grid(
    values: Mapping[str, Any], grid: Sequence[str], seeds: int, workdir: pathlib.Path, overrides: Sequence[str] = ()
) -> list[Point]:
    """Returns all combinations of the grid's values; the last key varies fastest.

    Args:
      values: the configuration as nested dicts; its seed is the first seed.
      grid: "key=value,value" for each key.
      seeds: number of trials for each combination.
      workdir: the sweep's folder; the run folder of a trial is <workdir>/<combination>/seed_<seed>.
      overrides: overrides of the command line, recorded with the grid's.

    Raises:
      UserError: an invalid key or value.
    """
    axes = [parse_axis(entry) for entry in grid]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1 or key == "seed":
            reason = "once" if keys.count(key) > 1 else "--seeds in its place"
            raise UserError(f"--grid: expected {key} {reason}, got {' '.join(grid)}")
    points: list[Point] = []
    for combination in itertools.product(*(texts for _, texts in axes)):
        settings = dict(zip(keys, combination, strict=True))
        told = [f"{key}={text}" for key, text in settings.items()]
        name = ",".join(told).replace("/", "_") or "base"
        if any(name == point.name for point in points):
            raise UserError(f"--grid: expected values that differ in more than / and _, got {name!r} twice")
        config = resolve(with_overrides(values, settings))
        trials = []
        for seed in range(config.seed, config.seed + seeds):
            seeded = resolve(config.to_dict() | {"seed": seed})
            of_seed = [f"seed={seed}"] if seed != config.seed else []
            trials.append(Trial(seeded, RunFolder(workdir / name / f"seed_{seed}"), (*overrides, *told, *of_seed)))
        points.append(Point(name, tuple(trials)))
    return points


def parse_axis(entry: str) -> tuple[str, list[str]]:
    """Splits "key=value,value" into the key and its values. Commas in brackets do not separate values."""
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


def check_grid(table: pathlib.Path, names: Sequence[str]) -> None:
    """Checks that a grid has all points of an earlier table, which is replaced.

    Args:
      table: sweep.json; it need not exist.
      names: the names of the grid's points.

    Raises:
      UserError: the table has other points, or is damaged.
    """
    try:
        earlier = [row["name"] for row in json.loads(table.read_text(encoding="utf-8"))["configurations"]]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{table} is damaged: {error}") from None
    others = [name for name in earlier if name not in names]
    if others:
        raise UserError(
            f"--grid: expected all points of {table}, which is replaced, got none for {others[0]!r}; choose another "
            "folder"
        )


@dataclasses.dataclass(frozen=True)
class Row:
    """The scores of one point.

    Attributes:
      name: the point's name.
      seeds: number of trials.
      validation: the best validation metric of each finished trial.
      test: the test scores of the finished trials, by reported metric.
    """

    name: str
    seeds: int
    validation: tuple[float, ...]
    test: Mapping[str, tuple[float, ...]]


def summarize(point: Point, scoring: Scoring) -> Row:
    """Reads the scores of a point's finished trials."""
    summaries = [summary for trial in point.trials if (summary := trial.folder.read_summary()) is not None]
    return Row(
        point.name,
        len(point.trials),
        tuple(summary["validation"]["value"] for summary in summaries),
        {metric: tuple(summary["test"][metric] for summary in summaries) for metric in scoring.reported},
    )


def best_row(rows: Sequence[Row], scoring: Scoring) -> Row | None:
    """Returns the row with the best mean on validation, among the rows with all trials finished.

    None if there is no such row, or if the validation split was trained on and cannot be used for selection.
    """
    complete = [row for row in rows if len(row.validation) == row.seeds]
    if not scoring.selects or not complete:
        return None
    choose = min if scoring.mode == "min" else max
    return choose(complete, key=lambda row: statistics.fmean(row.validation))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean and the sample standard deviation; NaN if there are too few values."""
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def format_scores(values: Sequence[float]) -> str:
    """Formats scores as mean ± standard deviation."""
    if not values:
        return "–"
    mean, deviation = mean_and_deviation(values)
    return f"{mean:.5g}" if math.isnan(deviation) else f"{mean:.5g} ± {deviation:.2g}"


def format_table(rows: Sequence[Row], scoring: Scoring) -> str:
    """Formats rows as a text table; an asterisk marks the best row by validation."""
    best = best_row(rows, scoring)
    headers = ["", "configuration", "seeds", f"validation {scoring.metric}"]
    lines = [
        [
            "*" if row is best else "",
            row.name,
            f"{len(row.validation)}/{row.seeds}",
            format_scores(row.validation),
            *(format_scores(row.test[metric]) for metric in scoring.reported),
        ]
        for row in rows
    ]
    headers += [f"test {metric}" for metric in scoring.reported]
    if not scoring.selects:
        note = "no best configuration, since the validation split was trained on"
    else:
        note = f"* best by validation {scoring.metric}" if best else "no configuration has all its seeds finished"
    table = tabulate(lines, headers, tablefmt="plain", disable_numparse=True)
    return f"{table}\n{note}; mean ± standard deviation over seeds; the test split selected nothing"


def to_json(rows: Sequence[Row], scoring: Scoring) -> dict[str, Any]:
    """Returns the table as plain data, for sweep.json."""
    best = best_row(rows, scoring)
    return {
        "metric": scoring.metric,
        "best": None if best is None else best.name,
        "configurations": [dataclasses.asdict(row) for row in rows],
    }
