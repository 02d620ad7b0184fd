"""Pictures of the results: every task on one scale, and the errors of forecasts over the horizon."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figures import svg
from experiments.reporting import tables
from experiments.reporting.published import Row
from experiments.reporting.records import Group

COLOURS = {"gru": "#0072B2", "lstm": "#E69F00", "elman": "#009E73", "published": "#000000", "other": "#CC79A7"}
"""Of Okabe and Ito's palette, which color-blind readers can tell apart; markers differ too."""
MARKERS = {"gru": "o", "lstm": "s", "elman": "^"}
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "recurrent": ("D", {"color": COLOURS["published"], "markerfacecolor": "white", "markersize": 6}),
    "other": ("*", {"color": COLOURS["other"], "markersize": 9}),
}
TRIVIAL: dict[str, Any] = {"color": "#777777", "markersize": 12, "markeredgewidth": 1.6}
LEFT, RIGHT = -0.12, 1.5
"""What the scale of `overview` shows; beyond, a mark stands at the edge with its place beside it."""


def position(row: Row, value: float, trivial: float) -> float:
    """Returns a value's place on the common scale: 0 is the trivial baseline, 1 the best published figure.

    The scale is the logarithm of the error, log(e_trivial / e) / log(e_trivial / e_best): to halve the error takes a
    model equally far wherever it stands, so that 98 % do not look like 99 %.

    Args:
      row: whose best published figure is meant.
      value: in the row's units.
      trivial: the score of its simplest baseline.
    """
    best = row.best_of_any_kind
    assert best is not None
    start = row.error(trivial)
    if row.error(value) <= 0:
        return math.inf
    return math.log(start / row.error(value)) / math.log(start / row.error(best.value))


def overview_rows(
    rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]
) -> list[tuple[Row, list[Group], list[float]]]:
    """Returns the rows that the picture shows, with their groups and the scores of their trivial baselines.

    These are the headline rows, of forecasts those at the longest horizon, that have been run, have a published
    figure that is like for like, and whose best one beats the simplest baseline; the scale needs both of its ends.
    """
    last: dict[str, int] = {}
    for row in rows:
        if row.horizon is not None:
            last[row.series] = max(row.horizon, last.get(row.series, 0))
    shown = []
    for row in rows:
        mine = tables.of(row, groups)
        trivial = [value for _, value in tables.baselines(row, mine, scores)]
        best = row.best_of_any_kind
        ours = [group for cell in tables.CELLS if (group := tables.default(row, mine, cell)) is not None]
        far = row.horizon is None or row.horizon == last[row.series]
        if row.headline and far and ours and trivial and best and row.beats(best.value, trivial[0]):
            shown.append((row, ours, trivial))
    return shown


def curves(
    rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]
) -> dict[str, dict[str, dict[int, float]]]:
    """Returns the errors of forecasts, at horizons that were run: {series: {line: {horizon: error}}}."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row.horizon is None:
            continue
        mine = tables.of(row, groups)
        gru = tables.default(row, mine, "gru")
        known = tables.baselines(row, mine, scores)
        if gru is None or not known or known[0][0] is not row.trivial[0]:
            continue
        recurrent, best = row.best_comparable, row.best_of_any_kind
        values = {
            "GRU (ours)": gru.mean,
            **{trivial.name: value for trivial, value in known},
            "best published recurrent": None if recurrent is None else recurrent.value,
            "best published of any kind": None if best is None else best.value,
        }
        for line, value in values.items():
            if value is not None:
                found.setdefault(row.series, {}).setdefault(line, {})[row.horizon] = value
    return found


def digest(content: Any) -> str:
    """Returns a fingerprint of what is drawn; a picture carries it, so that a stale one is found."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def content(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> Any:
    """Returns everything that `overview` draws."""
    return [
        (row, [(group.cell, group.values) for group in ours], trivial)
        for row, ours, trivial in overview_rows(rows, groups, scores)
    ]


def overview(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> bytes:
    """Draws a line a task: ours, the published figures and the trivial baselines on the scale of `position`."""
    shown = overview_rows(rows, groups, scores)

    def paint(panels: Any) -> None:
        axes = panels[0, 0]
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.axvline(1, color="black", linewidth=0.8)
        for place, (row, ours, trivial) in enumerate(shown):
            _line(axes, -place, row, ours, trivial)
        labels = [f"{row.title} {'↓' if row.better == 'less' else '↑'}" for row, *_ in shown]
        axes.set_yticks([-place for place in range(len(shown))], labels)
        axes.set_ylim(-len(shown) + 0.4, 0.6)
        axes.set_xlim(LEFT - 0.03, RIGHT + 0.22)
        axes.set_xlabel("← larger error        smaller error →")
        axes.set_xticks([0, 0.5, 1], ["trivial\nbaseline", "half of the way,\nlog error", "best\npublished"])
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(left=False)
        _legend(axes)

    return svg(1, 1, (9, 0.8 + 0.33 * max(3, len(shown))), paint, digest(content(rows, groups, scores)))


def _line(axes: Any, y: float, row: Row, ours: Sequence[Group], trivial: Sequence[float]) -> None:
    """Draws ours a little above the line of a task, and published figures a little below it."""
    beyond = []

    def mark(value: float, marker: str, offset: float = 0.0, **style: Any) -> None:
        x = position(row, value, trivial[0])
        axes.plot(min(max(x, LEFT), RIGHT), y + offset, marker, clip_on=False, **style)
        if x > RIGHT:
            beyond.append(x)

    for value in trivial:
        mark(value, "|", **TRIVIAL)
    for figure in row.figures:
        if figure.like_for_like:
            marker, style = PUBLISHED[figure.kind]
            mark(figure.value, marker, -0.16, zorder=3, **style)
    for group in reversed(ours):
        mark(group.mean, MARKERS[group.cell], 0.16, color=COLOURS[group.cell], markersize=7, alpha=0.9, zorder=4)
    if beyond:
        text = " to ".join(f"{x:.1f}" for x in sorted({min(beyond), max(beyond)}))
        axes.annotate(f"{text} ›", (RIGHT, y), xytext=(9, 0), textcoords="offset points", va="center", fontsize=8)


def _legend(axes: Any) -> None:
    entries: list[tuple[str, str, dict[str, Any]]] = [
        (f"{tables.NAMES[cell]}, ours", MARKERS[cell], {"color": COLOURS[cell]}) for cell in tables.CELLS
    ]
    entries += [(f"published, {kind}", *PUBLISHED[kind]) for kind in PUBLISHED]
    entries.append(("trivial baselines", "|", TRIVIAL))
    handles = [axes.plot([], [], marker, label=label, **style)[0] for label, marker, style in entries]
    axes.figure.legend(
        handles=handles, loc="outside upper center", ncols=6, frameon=False, fontsize=8.5, columnspacing=1.2
    )


STYLES: dict[str, dict[str, Any]] = {
    "GRU (ours)": {"color": COLOURS["gru"], "marker": "o", "linewidth": 2, "zorder": 4},
    "linear map": {"color": COLOURS["elman"], "marker": "+", "linestyle": "--", "markersize": 8},
    "last value": {"color": "#777777", "marker": "|", "linestyle": ":", "markersize": 9},
    "best published recurrent": {"color": "black", "marker": "D", "linewidth": 1, "markerfacecolor": "white"},
    "best published of any kind": {"color": COLOURS["other"], "marker": "*", "linewidth": 1, "markersize": 9},
}


def forecasts(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> bytes:
    """Draws a panel a series: errors over the horizon, of ours, the baselines and the best published figures.

    They are divided by that of the last value, since otherwise all lines of the exchange rates are one.
    """
    found = curves(rows, groups, scores)
    measures = {row.series: row.measure for row in rows if row.horizon is not None}

    def paint(panels: Any) -> None:
        for axes, (series, lines) in zip(panels[0], found.items(), strict=False):
            horizons = sorted({horizon for line in lines.values() for horizon in line})
            for name, style in STYLES.items():
                line = lines.get(name, {})
                ratios = [value / lines["last value"][horizon] for horizon, value in line.items()]
                axes.plot([horizons.index(horizon) for horizon in line], ratios, label=name, **style)
            axes.set_title(series, fontsize=10)
            axes.set_xticks(range(len(horizons)), [str(horizon) for horizon in horizons])
            axes.set(
                xlabel="days ahead" if series == "Exchange rates" else "hours ahead",
                ylabel=f"{measures[series]}, last value = 1",
            )
            low, high = axes.get_ylim()
            if high > 1.5 * low:
                axes.set_yscale("log")
                ticks = [tick for tick in (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5) if low <= tick <= high]
                axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            axes.grid(color="#e5e5e5", linewidth=0.6)
        handles, labels = panels[0, 0].get_legend_handles_labels()
        panels[0, 0].figure.legend(handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=8.5)

    return svg(1, max(1, len(found)), (3, 3.1), paint, digest(found))
