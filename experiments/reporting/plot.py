"""The picture of all results: every task's scores beside the published figures and the target."""

import hashlib
from collections.abc import Sequence
from typing import Any

from experiments.reporting import tables
from experiments.reporting.goals import Goal
from experiments.reporting.records import Group
from experiments.reporting.svg import svg

COLUMNS = 4
COLOURS = {"gru": "#1f77b4", "lstm": "#ff7f0e", "elman": "#2ca02c"}


def drawn(goals: Sequence[Goal], groups: Sequence[Group]) -> list[tuple[Goal, list[Group]]]:
    """Returns what there is to draw: goals that have been run, and the default group of each cell."""
    pairs = []
    for goal in goals:
        found = [tables.default(goal, groups, cell) for cell in tables.CELLS]
        found = [group for group in found if group is not None]
        if found:
            pairs.append((goal, found))
    return pairs


def digest(pairs: Sequence[tuple[Goal, list[Group]]]) -> str:
    """Returns a fingerprint of what is drawn, which the picture carries, so that a stale one can be told."""
    content = repr([(goal, [(group.cell, group.values) for group in groups]) for goal, groups in pairs])
    return hashlib.sha256(content.encode()).hexdigest()


def draw(pairs: Sequence[tuple[Goal, list[Group]]]) -> bytes:
    """Draws the picture: the same bytes for the same results and version of matplotlib."""

    def paint(panels: Any) -> None:
        for axes in panels.flatten():
            axes.set_axis_off()
        for axes, (goal, groups) in zip(panels.flatten(), pairs, strict=False):
            _panel(axes, goal, groups)

    return svg(max(1, -(-len(pairs) // COLUMNS)), COLUMNS, (3.2, 2.0), paint, digest(pairs))


def _panel(axes: Any, goal: Goal, groups: Sequence[Group]) -> None:
    """One line a model: filled marks are ours, one a seed; hollow ones are published; the dashed line is the target."""
    axes.set_axis_on()
    published: dict[str, list[float]] = {}
    for figure in goal.figures:
        published.setdefault(figure.model, []).append(figure.value)
    names = dict.fromkeys([*(tables.NAMES[group.cell] for group in groups), *published])
    place = {name: -row for row, name in enumerate(names)}
    for group in groups:
        name = tables.NAMES[group.cell]
        axes.plot(group.values, [place[name]] * len(group.values), "o", color=COLOURS[group.cell], alpha=0.8)
    for name, values in published.items():
        axes.plot(values, [place[name]] * len(values), "D", markerfacecolor="none", color="black", markersize=5)
    shown = [value for group in groups for value in group.values] + [f.value for f in goal.figures]
    if goal.target is not None:
        axes.axvline(goal.target, color="gray", linestyle="--", linewidth=0.8)
        shown.append(goal.target)
    if min(shown) > 0 and max(shown) > 30 * min(shown):
        axes.set_xscale("log")
    axes.set(title=goal.title, xlabel=goal.measure, yticks=list(place.values()), yticklabels=list(place))
    axes.margins(0.1, 0.3)
