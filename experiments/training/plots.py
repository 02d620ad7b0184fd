"""learning_curve.png, from the rows of metrics.jsonl."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any


def learning_curve(rows: Sequence[dict[str, Any]], metric: str, best_step: int, path: pathlib.Path) -> None:
    """Draws the loss of both splits and the validation metric over the steps, the best step marked.

    Args:
      rows: of metrics.jsonl.
      metric: the one that selects checkpoints.
      best_step: the step it selected.
      path: the PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = ["loss"] if metric in ("loss", "mse", "nats_per_char") else ["loss", metric]
    figure = Figure(figsize=(5 * len(names), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split, style in (("train", {"alpha": 0.7}), ("validation", {"marker": ".", "markersize": 4})):
            points = [(row["step"], row[name]) for row in rows if row["split"] == split and name in row]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        axes.axvline(best_step, color="gray", linewidth=0.8, linestyle="--", label=f"best: step {best_step}")
        axes.set(xlabel="step", ylabel=name, yscale="log" if name == "loss" else "linear")
        axes.legend()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    figure.savefig(temporary, format="png", dpi=120)
    os.replace(temporary, path)
