"""Plots of the results: all tasks on one scale, and forecast errors over the horizon."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.figures import svg
from experiments.reporting import tables
from experiments.reporting.published import Figure, Row
from experiments.reporting.records import Group

COLORS = {"gru": "#0072B2", "lstm": "#E69F00", "elman": "#009E73", "published": "#000000", "other": "#CC79A7"}
"""From the palette of Okabe and Ito, which color-blind readers can distinguish; the markers differ too."""
CELL_STYLES: dict[str, dict[str, Any]] = {
    "gru": {"marker": "o", "color": COLORS["gru"], "markersize": 8},
    "lstm": {"marker": "s", "color": COLORS["lstm"], "markersize": 7.5},
    "elman": {"marker": "^", "color": COLORS["elman"], "markersize": 6},
}
BEST_RECURRENT: dict[str, Any] = {"marker": "D", "color": "black", "markerfacecolor": "white", "markersize": 6.5}
BEST_OTHER: dict[str, Any] = {"marker": "*", "color": COLORS["other"], "markersize": 11}
PUBLISHED: dict[str, Any] = {"marker": "x", "color": "#999999", "markersize": 4}
TRIVIAL: dict[str, Any] = {"marker": "|", "color": "#555555", "markersize": 12, "markeredgewidth": 1.6}
LEFT, RIGHT = -0.12, 1.3
"""The range of the scale of `overview`; marks outside of it are drawn at the edge, next to an arrow."""


class Shown(NamedTuple):
    """A line of `overview`: a row, our groups, and the scores of its trivial baselines, the simplest first."""

    row: Row
    ours: list[Group]
    trivial: list[float]


def position(row: Row, value: float, trivial: float) -> float:
    """Returns the position of a value on the common scale: 0 is the trivial baseline, 1 the best published figure.

    The scale is log(e_trivial / e) / log(e_trivial / e_best), where e is the error. Dividing the error by two is a step
    of the same length everywhere, so that an accuracy of 99 % is clearly apart from 98 %.

    Args:
      row: has the best published figure.
      value: in the units of the row.
      trivial: the score of the simplest baseline.
    """
    best = row.best_of_any_kind
    assert best is not None
    start = row.error(trivial)
    if row.error(value) <= 0:
        return math.inf
    return math.log(start / row.error(value)) / math.log(start / row.error(best.value))


def overview_rows(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> list[Shown]:
    """Returns the lines of `overview`.

    They are the headline rows with finished runs whose best published figure beats the simplest baseline, since the
    scale needs both ends. Forecasts are shown at their longest horizon.
    """
    longest: dict[str, int] = {}
    for row in rows:
        if row.horizon is not None:
            longest[row.series] = max(row.horizon, longest.get(row.series, 0))
    shown = []
    for row in rows:
        mine = tables.groups_of(row, groups)
        trivial = [value for _, value in tables.baselines(row, mine, scores)]
        best = row.best_of_any_kind
        ours = [group for cell in tables.CELLS if (group := tables.representative(row, mine, cell)) is not None]
        far = row.horizon is None or row.horizon == longest[row.series]
        if row.headline and far and ours and trivial and best and row.beats(best.value, trivial[0]):
            shown.append(Shown(row, ours, trivial))
    return shown


def overview_content(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> Any:
    """Returns everything that `overview` shows."""
    return [
        (row, [(group.cell, group.values) for group in ours], trivial)
        for row, ours, trivial in overview_rows(rows, groups, scores)
    ]


def digest(content: Any) -> str:
    """Returns a hash of the content of a plot. It is stored in the file, so that a stale plot is detected."""
    return hashlib.sha256(repr(content).encode()).hexdigest()


def overview(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> bytes:
    """Plots a line per task with our results, published figures and trivial baselines on the scale of `position`."""
    shown = overview_rows(rows, groups, scores)

    def paint(panels: Any) -> None:
        axes = panels[0, 0]
        axes.figure.get_layout_engine().set(rect=(0.03, 0, 0.97, 1))  # a viewer's font may be wider than this one
        axes.axvline(0, color="#999999", linewidth=0.8)
        axes.axvline(1, color="black", linewidth=0.8)
        for place, line in enumerate(shown):
            _draw_line(axes, -place, line)
        axes.set_yticks(
            [-place for place in range(len(shown))], [f"{row.title} {tables.ARROWS[row.better]}" for row, *_ in shown]
        )
        axes.set_ylim(-len(shown) + 0.4, 0.9)
        axes.set_xlim(LEFT - 0.09, RIGHT + 0.5)
        for x, heading in ((RIGHT + 0.18, "GRU\n(ours)"), (RIGHT + 0.4, "best\npublished")):
            axes.text(x, 0.5, heading, ha="center", va="bottom", fontsize=8, fontweight="bold")
        axes.set_xticks([0, 0.5, 1], ["trivial baseline", "← larger error     smaller error →", "best published"])
        axes.hlines(axes.get_yticks(), LEFT, RIGHT, color="#dddddd", linewidth=0.6, zorder=0)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(left=False)
        _draw_legend(axes)

    return svg(1, 1, (9, 0.9 + 0.33 * max(3, len(shown))), paint, digest(overview_content(rows, groups, scores)))


def _draw_line(axes: Any, y: float, line: Shown) -> None:
    """Draws our results slightly above a task's line, and published figures slightly below it."""
    row, ours, trivial = line

    def mark(value: float, offset: float, style: Mapping[str, Any], zorder: int = 3) -> None:
        x = position(row, value, trivial[0])
        axes.plot(min(max(x, LEFT), RIGHT), y + offset, linestyle="", clip_on=False, zorder=zorder, **style)
        for beyond, edge, arrow in ((x > RIGHT, RIGHT + 0.035, "›"), (x < LEFT, LEFT - 0.035, "‹")):
            if beyond:
                axes.text(edge, y + offset, arrow, ha="center", va="center")

    for value in trivial:
        mark(value, 0, TRIVIAL)
    for figure in row.figures:
        if figure.like_for_like:
            style = _published_style(row, figure)
            mark(figure.value, -0.17, style, 3 if style is PUBLISHED else 4)
    for group in reversed(ours):
        mark(group.mean, 0.17, CELL_STYLES[group.cell], 5)
    found = row.best_of_any_kind
    assert found is not None
    gru = next((group for group in ours if group.cell == "gru"), ours[0])
    axes.text(RIGHT + 0.18, y, f"{gru.mean:{row.digits}}", ha="center", va="center", fontsize=8)
    axes.text(RIGHT + 0.4, y, f"{found.value:g}", ha="center", va="center", fontsize=8)


def _published_style(row: Row, figure: Figure) -> Mapping[str, Any]:
    if figure is row.best_comparable:
        return BEST_RECURRENT
    return BEST_OTHER if figure is row.best_of_any_kind else PUBLISHED


def _draw_legend(axes: Any) -> None:
    entries = [(f"{tables.NAMES[cell]} (ours)", CELL_STYLES[cell]) for cell in tables.CELLS]
    entries += [
        ("best published recurrent,\ncomparable budget", BEST_RECURRENT),
        ("best published\nof any kind", BEST_OTHER),
        ("other\npublished", PUBLISHED),
        ("trivial\nbaselines", TRIVIAL),
    ]
    handles = [axes.plot([], [], linestyle="", label=label, **style)[0] for label, style in entries]
    axes.figure.legend(
        handles=handles, loc="outside upper center", ncols=7, frameon=False, fontsize=8, columnspacing=1.2
    )


LINE_STYLES: dict[str, dict[str, Any]] = {
    "GRU (ours)": {"color": COLORS["gru"], "marker": "o", "linewidth": 2, "zorder": 4},
    "linear map": {"color": COLORS["elman"], "marker": "+", "linestyle": "--", "markersize": 8},
    "last value": {"color": "#777777", "marker": "|", "linestyle": ":", "markersize": 9},
    "best published recurrent": {**BEST_RECURRENT, "linestyle": ""},
    "best published of any kind": {**BEST_OTHER, "linestyle": ""},
}
"""Published figures are not connected, since figures of neighboring horizons may come from different papers."""


def curves(
    rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]
) -> dict[str, dict[str, dict[int, float]]]:
    """Returns the forecast errors at all horizons with finished runs, as {series: {line: {horizon: error}}}."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row.horizon is None:
            continue
        mine = tables.groups_of(row, groups)
        gru = tables.representative(row, mine, "gru")
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


def forecasts(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> bytes:
    """Plots a panel per series with the errors of ours, the baselines and the best published figures over the horizon.

    Errors are divided by the error of the last value; otherwise all lines of the exchange rates would coincide.
    """
    found = curves(rows, groups, scores)
    measures = {row.series: row.measure for row in rows if row.horizon is not None}

    def paint(panels: Any) -> None:
        for axes, (series, lines) in zip(panels[0], found.items(), strict=False):
            horizons = sorted({horizon for line in lines.values() for horizon in line})
            for name, style in LINE_STYLES.items():
                line = lines.get(name, {})
                ratios = [value / lines["last value"][horizon] for horizon, value in line.items()]
                axes.plot([horizons.index(horizon) for horizon in line], ratios, label=name, **style)
            axes.set_title(series, fontsize=10)
            axes.set_xticks(range(len(horizons)), [str(horizon) for horizon in horizons])
            axes.set(
                xlabel="days ahead" if series == "Exchange rates" else "hours ahead",
                ylabel=f"{measures[series]} / last value's",
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
