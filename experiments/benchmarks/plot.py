"""A suite's results as a picture."""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import atomic
from experiments.benchmarks.measurement import Measurement
from experiments.benchmarks.ours import OURS
from experiments.benchmarks.results import Results, groups
from experiments.pictures import png


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws a suite's results into a PNG file: lines along T or H where that varies, else bars."""
    paint = {"long": _lines_over_time, "step": _lines_over_width}.get(results.suite, _bars)
    atomic.write_bytes(path, png(None, lambda figure: paint(figure, results.measurements), dpi=110))


def _bars(figure: Any, measurements: Sequence[Measurement]) -> None:
    """One panel a group, milliseconds, ours in colour."""
    found = groups(measurements)
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    most = max(len(group) for group in found)
    figure.set_size_inches(6 * columns, rows * (0.8 + 0.22 * most))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, group in zip(panels, found, strict=False):
        ordered = sorted(group, key=lambda row: -row.median_ms)
        colours = ["tab:orange" if row.library == OURS else "tab:gray" for row in ordered]
        bars = axes.barh([row.name for row in ordered], [row.median_ms for row in ordered], color=colours)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.margins(x=0.12)
        axes.set_title(f"{group[0].sizes}, {group[0].work}, reset={group[0].reset}: ms", fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in panels:
        axes.set_axis_off()


def _lines_over_time(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Time and memory a step over the number of steps, a line for each way of keeping memory."""
    losses = sorted({row.loss for row in measurements}, reverse=True)
    figure.set_size_inches(10, 3.6 * len(losses))
    panels = figure.subplots(len(losses), 2, squeeze=False)
    for (left, right), loss in zip(panels, losses, strict=True):
        for memory in dict.fromkeys(row.memory for row in measurements):
            rows = sorted((row for row in measurements if (row.loss, row.memory) == (loss, memory)), key=lambda r: r.T)
            left.plot([r.T for r in rows], [1e3 * r.median_ms / r.T for r in rows], marker=".", label=memory)
            known = [(r.T, r.temp_bytes / r.T) for r in rows if r.temp_bytes is not None]
            right.plot(*zip(*known, strict=True), marker=".", label=memory)
        left.set(xscale="log", xlabel="T", ylabel="microseconds a step", title=f"gradient of {loss}", ylim=(0, None))
        right.set(xscale="log", yscale="log", xlabel="T", ylabel="temporary bytes a step")
        left.legend()


def _lines_over_width(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Latency of a step over the hidden size, a line for each library."""
    figure.set_size_inches(6, 3.6)
    axes = figure.subplots()
    for name in dict.fromkeys(row.name for row in measurements):
        rows = sorted((row for row in measurements if row.name == name), key=lambda row: row.H)
        axes.plot([row.H for row in rows], [1e3 * row.median_ms for row in rows], marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="H", ylabel="microseconds a step", title="one streaming step, B=1")
    axes.legend()
