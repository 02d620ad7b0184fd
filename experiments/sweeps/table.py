"""What came of a sweep: means and standard deviations over seeds, and the best by validation."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.sweeps.grid import Point
from experiments.tasks.base import Scoring


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
