"""Pictures as the bytes of a PNG file, drawn without a screen."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def png(size: tuple[float, float] | None, draw: Callable[[Any], None], dpi: int = 120) -> bytes:
    """Returns a picture.

    Args:
      size: width and height in inches; None where `draw` sets it.
      draw: draws on a matplotlib figure.
      dpi: dots an inch.
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
    """Returns what matplotlib draws as the name itself, which it would read for mathematics between two $.

    A name that begins with an underscore stays in a legend; what does not print, such as a line end, is an escape.
    """
    shown = "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)
    hidden = "\u200b" if shown.startswith("_") else ""
    return hidden + shown.replace("$", r"\$")


def heat_map(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> bytes:
    """Draws weights (T, S) as a PNG: the source from left to right, the translation from top to bottom."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(weights, cmap="gray", vmin=0, vmax=1)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(source)), list(map(verbatim, source)), rotation=90)
        axes.set_yticks(range(len(target)), list(map(verbatim, target)))

    return png((1.5 + 0.32 * len(source), 1.5 + 0.32 * len(target)), draw)
