"""What a run reports: metrics.jsonl, the display in the terminal, the closing table, records and TensorBoard events.

After a resumption, metrics.jsonl has exactly the rows of an uninterrupted run. Rows therefore hold no times or speeds.
"""

import json
import math
import os
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from experiments import extras, files
from experiments.runner import environment
from experiments.schema import UserError


class MetricsFile:
    """Appends rows of metrics. Each row is in the file when `write` returns."""

    def __init__(self, path: pathlib.Path, step: int):
        """Opens the file to continue after `step`: later rows and an incomplete one are removed."""
        kept = [row for row in read_rows(path) if row["step"] <= step]
        files.write_bytes(path, b"".join(_line(row) for row in kept))
        self.path = path
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Appends one row: {"step": ..., "split": ..., <metrics>}.

        Raises:
          OSError: the row cannot be written; the earlier rows are unchanged.
        """
        line = _line({"step": step, "split": split, **metrics})
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:  # an almost full disk writes a part of it without an error
                line = line[self._file.write(line) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def flush(self) -> None:
        """Syncs the rows to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file, without a last line that a crash left incomplete.

    Raises:
      UserError: another line is not a row.
    """
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise UserError(f"{path}:{number}: expected a row of metrics in JSON, got {line[:60]!r}") from error
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()


class Display:
    """Shows loss, speed and remaining time during training: a progress bar in a terminal, else plain lines."""

    def __init__(self, steps: int, done: int = 0, stream: TextIO | None = None):
        """Starts at step `done` of `steps`."""
        self.steps, self.done = steps, done
        self.stream = stream or sys.stdout
        self.first: tuple[int, float] | None = None
        self.bar = None
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            form = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}  {rate_fmt}  {remaining} left{postfix}"
            self.bar = tqdm(
                total=steps,
                initial=done,
                file=self.stream,
                bar_format=form,
                unit=" steps",
                dynamic_ncols=True,
                leave=False,
            )

    def advance(self, step: int, loss: float) -> None:
        """Updates the progress bar after `step`."""
        if self.first is None:  # the clock starts after the first step, which includes compilation
            self.first = step, time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update(step - self.done)
        self.done = step

    def row(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Prints one row of metrics in columns."""
        hidden = {"grad_norm", "learning_rate"}
        if list(metrics.values()).count(metrics.get("loss", math.nan)) > 1:
            hidden.add("loss")
        shown = [f"{name} {_short(value)}" for name, value in metrics.items() if name not in hidden]
        place = f"{step:>{len(str(self.steps))}}/{self.steps}"
        parts = [place, f"{split:<10}", *(f"{part:<22}" for part in shown)]
        if split == "train" and self.bar is None:
            parts.append(self._speed(step))
        if split != "train" or self.bar is None:
            self.line("  ".join(parts).rstrip())

    def _speed(self, step: int) -> str:
        """Returns steps per second and remaining time, or nothing before the second step."""
        if self.first is None or step == self.first[0]:
            return ""
        rate = (step - self.first[0]) / max(time.monotonic() - self.first[1], 1e-9)
        return f"{rate:.1f} steps/s  {clock((self.steps - step) / rate)} left"

    def line(self, text: str) -> None:
        """Prints a line, above the bar if there is one."""
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """Formats a duration as 0:07, 12:34 or 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.2e}"


RESULTS = pathlib.Path(__file__).resolve().parents[1] / "results"


def table(rows: Sequence[tuple[str, str]], title: str) -> str:
    """Formats names and values in two columns below a title."""
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join([title, *lines])


def closing_table(summary: Mapping[str, Any], folder: pathlib.Path, selects: bool, command: str = "") -> str:
    """Returns the table that `train` prints last. `selects` and `command` come from the task."""
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
    if command:
        rows.append(("next", command_line(command, folder)))
    return table(rows, f"{summary['task']}: finished")


def command_line(command: str, folder: pathlib.Path | str) -> str:
    """Returns how to run a command, such as "evaluate --split=test", on a run folder or an exported model."""
    program, *arguments = command.split()
    return " ".join((f"python -m experiments.{program} --workdir={shlex.quote(str(folder))}", *arguments))


def record(summary: Mapping[str, Any], metrics: Sequence[str], results: pathlib.Path = RESULTS) -> pathlib.Path:
    """Adds a finished run to the results, one line per metric. Existing lines are not repeated.

    Args:
      summary: the contents of summary.json.
      metrics: the test metrics to record.
      results: the folder with a file per task.

    Returns:
      The file of the task.

    Raises:
      UserError: the run was trained with uncommitted changes.
    """
    environment.require_clean_commit("--record", summary["commit"])
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
    files.write_bytes(path, "".join(line + "\n" for line in lines).encode())
    return path


FLUSH_SECS = 1
"""Seconds until TensorBoard shows a row. With 0 the writer's thread never sleeps."""


class EventFiles:
    """Writes rows as TensorBoard scalars, with one TensorBoard run per split, so that both are in one chart."""

    def __init__(self, folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]):
        """Rewrites the given rows, so that no row is missing or repeated after a resumption."""
        extras.require("tensorboard")
        if folder.exists():
            shutil.rmtree(folder)
        self.folder = folder
        self._writers: dict[str, Any] = {}
        for row in rows:
            self.write(row["step"], row["split"], {k: v for k, v in row.items() if k not in ("step", "split")})

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Writes one row. It is in the file about a second later."""
        from tensorboardX import SummaryWriter

        if split not in self._writers:
            self._writers[split] = SummaryWriter(str(self.folder / split), flush_secs=FLUSH_SECS)
        for name, value in metrics.items():
            self._writers[split].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
