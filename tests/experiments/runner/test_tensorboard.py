"""Event files hold each row of metrics.jsonl once, also after a resumption."""

import struct
import time

import pytest

from experiments.runner.logging import EventFiles

tensorboardX = pytest.importorskip("tensorboardX")


def scalars(folder):
    """Reads (tag, step, value) from all event files of a folder, as TensorBoard does: length, CRC, event, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            content = content[12 + length + 4 :]
    return found


def scalars_soon(folder, count):
    """Reads scalars once `count` exist, or all existing ones after 30 seconds."""
    deadline = time.monotonic() + 30
    while len(found := scalars(folder)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def test_rows_are_written_during_training_and_not_repeated_on_resumption(tmp_path):
    events = EventFiles(tmp_path / "tensorboard", [])
    events.write(10, "train", {"loss": 0.5, "learning_rate": 0.25})
    events.write(10, "validation", {"loss": 0.75})
    expected = [("loss", 10, 0.5), ("learning_rate", 10, 0.25)]
    assert scalars_soon(tmp_path / "tensorboard" / "train", 2) == expected
    events.write(20, "train", {"loss": 99.0})
    events.close()
    row = {"step": 10, "split": "train", "loss": 0.5, "learning_rate": 0.25}
    again = EventFiles(tmp_path / "tensorboard", [row, {"step": 10, "split": "validation", "loss": 0.75}])
    again.write(20, "train", {"loss": 0.125})
    again.close()
    assert scalars(tmp_path / "tensorboard" / "train") == [*expected, ("loss", 20, 0.125)]
    assert scalars(tmp_path / "tensorboard" / "validation") == [("loss", 10, 0.75)]
