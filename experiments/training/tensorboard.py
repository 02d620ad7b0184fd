"""Event files for TensorBoard, out of the rows of metrics.jsonl."""

import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any

from experiments import extras


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
        """Appends one row, and has it in the file."""
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event  # type: ignore[attr-defined]  # made at import
        from tensorboardX.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        if split not in self._writers:
            (self.folder / split).mkdir(parents=True)
            self._writers[split] = EventsWriter(str(self.folder / split / "events"))
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writers[split].write_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))
        self._writers[split].flush()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
