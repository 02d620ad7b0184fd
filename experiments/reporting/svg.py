"""Vector pictures that are the same bytes for the same content and version of matplotlib."""

import io
from collections.abc import Callable
from typing import Any


def svg(rows: int, columns: int, panel: tuple[float, float], paint: Callable[[Any], None], about: str = "") -> bytes:
    """Returns a picture of `rows` x `columns` panels.

    Args:
      rows, columns: how many panels there are.
      panel: width and height of each in inches.
      paint: gets matplotlib's axes, an array (rows, columns), and draws on them.
      about: a description that the file carries.
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
