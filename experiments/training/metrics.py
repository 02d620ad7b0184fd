"""metrics.jsonl: one row a line, and after a resumption exactly the rows of a run that was never stopped.

Rows hold nothing that differs between two runs of one configuration: no times, no speeds.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import atomic


class MetricsError(ValueError):
    """A metrics file holds what is no row; the message is one line that says where."""


class MetricsFile:
    """Appends rows; each is in the file, whole, when `write` returns."""

    def __init__(self, path: pathlib.Path, step: int):
        """Opens the file to go on after `step`: rows of later steps, and a torn one, are cut off."""
        kept = [row for row in read_rows(path) if row["step"] <= step]
        atomic.write_bytes(path, b"".join(_line(row) for row in kept))
        self.path = path
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Appends one row: {"step": ..., "split": ..., <metrics>}.

        Raises:
          OSError: that names the file, which has its earlier rows and no part of this one.
        """
        line = _line({"step": step, "split": split, **metrics})
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:  # a disk that is almost full takes a part of it and does not complain
                line = line[self._file.write(line) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), before)
            raise OSError(error.errno, error.strerror, str(self.path)) from None

    def flush(self) -> None:
        """Makes sure that the rows are on the disk, not only in the system's memory."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a last line that was torn by a crash is left out.

    Raises:
      MetricsError: another line is no row.
    """
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError, TypeError) as error:
            raise MetricsError(f"{path}:{number}: expected a row of metrics in JSON, got {line[:60]!r}") from error
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()
