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
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=size, layout="constrained"), io.BytesIO()
    FigureCanvasAgg(figure)
    draw(figure)
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def heat_map(weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> bytes:
    """Draws weights (T, S) as a PNG: the source from left to right, the translation from top to bottom."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(weights, cmap="gray", vmin=0, vmax=1)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(source)), source, rotation=90)
        axes.set_yticks(range(len(target)), target)

    return png((1.5 + 0.32 * len(source), 1.5 + 0.32 * len(target)), draw)
