"""Event files for TensorBoard, out of the rows of metrics.jsonl."""

import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import extras

FLUSH_SECS = 1
"""TensorBoard shows a run as it goes. With 0 the writer's thread would never sleep."""


class EventFiles:
    """Writes every row as scalars, one TensorBoard run for each split: train/loss and validation/loss in one chart."""

    def __init__(self, folder: pathlib.Path, rows: Sequence[Mapping[str, Any]]):
        """Begins anew with the rows that there are, so that nothing is missing or doubled after a resumption."""
        extras.require("tensorboard")
        if folder.exists():
            shutil.rmtree(folder)
        self.folder = folder
        self._writers: dict[str, Any] = {}
        for row in rows:
            self.write(row["step"], row["split"], {k: v for k, v in row.items() if k not in ("step", "split")})

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Appends one row. It is in the file about a second later."""
        from tensorboardX import SummaryWriter

        if split not in self._writers:
            self._writers[split] = SummaryWriter(str(self.folder / split), flush_secs=FLUSH_SECS)
        for name, value in metrics.items():
            self._writers[split].add_scalar(name, value, step)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
