"""learning_curve.png, from the rows of metrics.jsonl."""

import pathlib
from collections.abc import Sequence
from typing import Any

from experiments import atomic, pictures


def learning_curve(rows: Sequence[dict[str, Any]], metric: str, best_step: int | None, path: pathlib.Path) -> None:
    """Draws the loss of both splits and the validation metric over the steps, the best step marked.

    Args:
      rows: of metrics.jsonl.
      metric: the one that selects checkpoints.
      best_step: the step it selected; None where it selects none.
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
        axes.set(xlabel="step", ylabel=name, yscale="log" if name == "loss" else "linear")
        axes.legend()

    atomic.write_bytes(path, pictures.png((5 * len(names), 3.5), draw))
