"""SIGTERM and SIGINT: a wish to stop, granted at the end of a step."""

import signal
import types
from collections.abc import Callable
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """Training stopped because a signal asked for it; the message is one line.

    Attributes:
      status: the exit status that says so, as a shell reports that signal: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.status = 128 + number


class Interruption:
    """Asked whether to stop, says whether a signal came.

    From the first question on, and until it is left, a signal is noted; the second one ends the process. Before, when
    no step is done yet, and after, when all is saved, both signals end the process at once.

    Example:
      with Interruption() as stop:
          while not stop():
              ...
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._listening = False

    def __call__(self) -> bool:
        if not self._listening:
            self._listening = True
            _handle(self._note)
        return self.number is not None

    def __enter__(self) -> Self:
        die_of_signals()
        return self

    def __exit__(self, *exception: object) -> None:
        die_of_signals()

    def interrupted(self, step: int) -> Interrupted:
        """Returns the error that ends a program which a signal stopped at `step`."""
        assert self.number is not None
        name = signal.Signals(self.number).name
        message = f"stopped by {name} at step {step}, where a checkpoint is written; run again, it goes on"
        return Interrupted(message, self.number)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.number = number
        die_of_signals()


def die_of_signals() -> None:
    """Has both signals end the process at once, without a traceback."""
    _handle(signal.SIG_DFL)


def _handle(handler: Callable[[int, types.FrameType | None], None] | signal.Handlers) -> None:
    """Sets what the signals do; one that the process was started to ignore, as in a shell's background, stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
