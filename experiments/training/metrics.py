"""metrics.jsonl: one row a line, and after a resumption exactly the rows of a run that was never stopped.

Rows hold nothing that differs between two runs of one configuration: no times, no speeds.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from experiments import atomic


class MetricsFile:
    """Appends rows; each is in the file, whole, when `write` returns."""

    def __init__(self, path: pathlib.Path, step: int):
        """Opens the file to go on after `step`: rows of later steps, and a torn one, are cut off."""
        kept = [row for row in read_rows(path) if row["step"] <= step]
        atomic.write_bytes(path, b"".join(_line(row) for row in kept))
        self._file = path.open("ab", buffering=0)

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Appends one row: {"step": ..., "split": ..., <metrics>}."""
        self._file.write(_line({"step": step, "split": split, **metrics}))

    def flush(self) -> None:
        """Makes sure that the rows are on the disk, not only in the system's memory."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics file; a last line that was torn by a crash is left out."""
    if not path.exists():
        return []
    *lines, _torn = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: expected a row of metrics in JSON, got {line[:60]!r}") from error
    return rows


def _line(row: Mapping[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()
