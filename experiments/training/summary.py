"""The end of a run: summary.json, the closing table, and the line that a results table quotes."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import atomic

RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"


def table(rows: Sequence[tuple[str, str]], title: str) -> str:
    """Lays names and values out in two columns under a title."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([title, *lines])


def closing_table(summary: Mapping[str, Any], folder: pathlib.Path, selects: bool) -> str:
    """Returns what `train` prints last; `selects` as the task says."""
    validation = summary["validation"]
    chosen = f"best at step {validation['step']}" if selects else "trained on too, so the last step counts"
    rows = [
        ("model", f"{summary['cell']}, {summary['parameters']:,} parameters"),
        ("trained", f"{summary['steps']} steps in {summary['minutes']:.1f} minutes on {summary['machine']}"),
        ("validation", f"{validation['metric']} {validation['value']:.5g}, {chosen}"),
        *((f"test {name}", f"{value:.5g}") for name, value in summary["test"].items() if name != "loss"),
        *(
            (name, str(folder / name))
            for name in ("metrics.jsonl", "learning_curve.png", "summary.json", "checkpoints")
        ),
    ]
    return table(rows, f"{summary['task']}: finished")


def record(summary: Mapping[str, Any], metrics: Sequence[str], results: pathlib.Path = RESULTS) -> pathlib.Path:
    """Appends a finished run to the results, a line for each metric; a line that is there already is not repeated.

    Args:
      summary: the run's.
      metrics: those of its test metrics that results report.
      results: the folder with a file for each task.

    Returns:
      the file appended to.
    """
    path = results / f"{summary['task']}.jsonl"
    results.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = ("task", "config", "overrides", "cell", "parameters", "seed")
    last = ("steps", "minutes", "machine", "versions", "commit")
    for metric in metrics:
        score = {"split": "test", "metric": metric, "value": summary["test"][metric]}
        line = json.dumps({k: summary[k] for k in kept} | score | {k: summary[k] for k in last})
        if line not in lines:
            lines.append(line)
    atomic.write_bytes(path, "".join(line + "\n" for line in lines).encode())
    return path
