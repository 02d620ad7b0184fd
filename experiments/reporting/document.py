"""RESULTS.md, section by section, and the README's table."""

import importlib.util
import pathlib
from collections.abc import Sequence

from experiments.reporting import tables
from experiments.reporting.goals import GOALS, Goal
from experiments.reporting.records import Group
from experiments.schema import ConfigError

PICTURE = "experiments/results/results.svg"
INTRODUCTION = """\
# Results

Made by `python -m experiments.report` from the raw records in `experiments/results/`, one line a finished run; no
number in a table of tasks is written by hand. Means are over seeds, with the standard deviation of a sample; the value
of "0 (6)" is itself the mean of six runs with seed 0, one without each speaker. Models are selected on the validation
split alone; the test split is scored once, at the end of a run. A target is met by the mean of the GRU's runs.
Configurations that end in `-lstm` or `-elman` give that cell as many parameters as the GRU has. Figures marked
"reported" are quoted at second hand. A commit marked "-dirty" had changes that were not yet committed.
"""
MARKS = ("<!-- results: made by python -m experiments.report -->\n\n", "\n\n<!-- end of results -->")
"""What stands before and after the README's table."""
SECTIONS = (
    "experiments.studies.long_memory",
    "experiments.studies.gradient_flow",
    "experiments.studies.efficiency",
    "experiments.studies.source_length",
    "experiments.reporting.speed",
)
"""Modules with `section(results_folder) -> str`, a section that starts with its own heading, or nothing to say."""


def text(groups: Sequence[Group], results: pathlib.Path, goals: Sequence[Goal] = GOALS) -> str:
    """Returns the whole document.

    Args:
      groups: from `records.grouped`.
      results: the folder that holds them, for the sections that read files of their own.
      goals: what to measure against.
    """
    goals = [*goals, *_without_goal(groups, goals)]
    run = {(group.task, group.metric) for group in groups}
    begun = [goal for goal in goals if (goal.task, goal.metric) in run]
    waiting = [goal for goal in goals if (goal.task, goal.metric) not in run and goal.target is not None]
    parts = [INTRODUCTION.strip(), "## Overview", tables.overview(begun, groups)]
    if waiting:
        parts.append(f"Not yet run: {'; '.join(dict.fromkeys(goal.title for goal in waiting))}.")
    if begun:
        parts.append(f"![Filled: a run each; hollow: published; dashed: the target]({PICTURE})")
    parts += [section for name in SECTIONS if (section := _section(name, results))]
    parts.append("## Every task")
    parts += [tables.details(task, goals, groups) for task in dict.fromkeys(goal.task for goal in begun)]
    return "\n\n".join(parts) + "\n"


def readme(before: str, groups: Sequence[Group], goals: Sequence[Goal] = GOALS) -> str:
    """Returns the README with its table as the records have it.

    Args:
      before: the whole README.
      groups: from `records.grouped`.
      goals: what to measure against.

    Raises:
      ConfigError: the README has not one place for the table.
    """
    begin, end = MARKS
    if before.count(begin) != 1 or before.partition(begin)[2].count(end) != 1:
        raise ConfigError(f"README.md: expected one {begin.strip()}, and then one {end.strip()}, around its table")
    head, _, rest = before.partition(begin)
    return f"{head}{begin}{tables.headlines(goals, groups)}{end}{rest.partition(end)[2]}"


def _without_goal(groups: Sequence[Group], goals: Sequence[Goal]) -> list[Goal]:
    """Makes a bare goal for each recorded metric that has none, so that no record is left out."""
    known = {(goal.task, goal.metric) for goal in goals}
    missing = dict.fromkeys((g.task, g.metric) for g in groups if (g.task, g.metric) not in known)
    return [Goal(task, metric, task, f"test {metric}", ".4g", "less") for task, metric in missing]


def _section(module: str, results: pathlib.Path) -> str:
    if importlib.util.find_spec(module) is None:
        return ""
    return importlib.import_module(module).section(results).strip()
