"""SIGTERM and SIGINT stop training at the end of a step, after a checkpoint."""

import signal
import types
from collections.abc import Callable
from typing import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """A signal stopped training.

    Attributes:
      status: the exit status, as a shell reports the signal: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.status = 128 + number


class Interruption:
    """Called, returns whether a signal has arrived.

    A signal is recorded from the first call until the context is left; a second one ends the process. Before the first
    call, when no step is finished, and after the context, when everything is saved, a signal ends the process at once.

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
        """Returns the error to raise after a signal stopped training at `step`."""
        assert self.number is not None
        name = signal.Signals(self.number).name
        message = f"stopped by {name} at step {step}, with a checkpoint; rerun the command to resume"
        return Interrupted(message, self.number)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        self.number = number
        die_of_signals()


def die_of_signals() -> None:
    """Makes both signals end the process at once, without a traceback."""
    _handle(signal.SIG_DFL)


def _handle(handler: Callable[[int, types.FrameType | None], None] | signal.Handlers) -> None:
    """Sets the handler of both signals. A signal that the process was started to ignore stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
