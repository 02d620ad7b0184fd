"""What a person sees of a run: a progress bar on a terminal, plain lines in a pipe or a log."""

import math
import os
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class Display:
    """Shows loss, speed and time left while a run goes on. No colours, and no control characters outside a terminal."""

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
        """Notes that `step` is done, with its loss."""
        if self.first is None:  # the clock starts after the first step, which is compiled on the way
            self.first = step, time.monotonic()
        if self.bar is not None:
            self.bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self.bar.update(step - self.done)
        self.done = step

    def row(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Shows one row of metrics, in columns."""
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
        """Steps a second and time left; nothing while there is nothing to tell it by."""
        if self.first is None or step == self.first[0]:
            return ""
        rate = (step - self.first[0]) / max(time.monotonic() - self.first[1], 1e-9)
        return f"{rate:.1f} steps/s  {clock((self.steps - step) / rate)} left"

    def line(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if self.bar is not None:
            self.bar.write(text, file=self.stream)
        else:
            print(text, file=self.stream, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """Writes a duration as 0:07, 12:34 or 1:02:03."""
    minutes, second = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _short(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}" if abs(value) >= 0.01 else f"{value:.2e}"
