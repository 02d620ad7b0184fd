"""Figures as the bytes of PNG and SVG files, drawn without a display.

An SVG file depends only on its content and the version of matplotlib.
"""

import io
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments import files


def png(size: tuple[float, float] | None, draw: Callable[[Any], None], dpi: int = 120) -> bytes:
    """Returns a figure as the bytes of a PNG file.

    Args:
      size: width and height in inches. If None, `draw` sets the size.
      draw: draws on a matplotlib figure.
      dpi: dots per inch.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"text.usetex": False}):
        figure, file = Figure(figsize=size, layout="constrained"), io.BytesIO()
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def verbatim(name: str) -> str:
    """Escapes a name so that matplotlib draws it literally, and not as mathematics between two dollar signs.

    A name that starts with an underscore appears in a legend too. Unprintable characters are escaped.
    """
    shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)
    hidden = "\u200b" if shown.startswith("_") else ""
    return hidden + shown.replace("$", r"\$")


def heat_map(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> bytes:
    """Draws weights (T, S) as a PNG: with the source along x and the translation along y."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(weights, cmap="gray", vmin=0, vmax=1)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(source)), list(map(verbatim, source)), rotation=90)
        axes.set_yticks(range(len(target)), list(map(verbatim, target)))

    return png((1.5 + 0.32 * len(source), 1.5 + 0.32 * len(target)), draw)


def learning_curve(rows: Sequence[dict[str, Any]], metric: str, best_step: int | None, path: pathlib.Path) -> None:
    """Draws the loss of both splits and the validation metric over the steps, and marks the best step.

    Args:
      rows: rows of metrics.jsonl.
      metric: the metric that selects checkpoints.
      best_step: the selected step, or None.
      path: the PNG file to write.
    """
    names = ["loss"] if metric in ("loss", "mse", "nats_per_char") else ["loss", metric]

    def draw(figure: Any) -> None:
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
            curve(axes, name)

    def curve(axes: Any, name: str) -> None:
        for split, style in (("train", {"alpha": 0.7}), ("validation", {"marker": ".", "markersize": 4})):
            points = [(row["step"], row[name]) for row in rows if row["split"] == split and name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        if best_step is not None:
            axes.axvline(best_step, color="gray", linewidth=0.8, linestyle="--", label=f"best: step {best_step}")
        logarithmic = name == "loss" and all(row[name] > 0 for row in rows if name in row)
        axes.set(xlabel="step", ylabel=name, yscale="log" if logarithmic else "linear")
        axes.legend()

    files.write_bytes(path, png((5 * len(names), 3.5), draw))


def svg(rows: int, columns: int, panel: tuple[float, float], paint: Callable[[Any], None], about: str = "") -> bytes:
    """Returns a figure of `rows` x `columns` panels as the bytes of an SVG file.

    Args:
      rows, columns: number of panels.
      panel: width and height of a panel in inches.
      paint: draws on matplotlib's axes, an array (rows, columns).
      about: description in the file's metadata.
    """
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = {"svg.hashsalt": "results", "svg.fonttype": "none", "font.size": 8, "text.usetex": False}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(panel[0] * columns, panel[1] * rows), layout="constrained")
        paint(figure.subplots(rows, columns, squeeze=False))
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Description": about})
    return file.getvalue()
