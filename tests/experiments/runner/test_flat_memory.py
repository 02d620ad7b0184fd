"""Memory use does not grow during training."""

import json
import pathlib

import pytest

from tests.experiments.programs import programs

STEPS = 10_000
OPTIONS = {
    "task.length": 2,
    "task.batch_size": 2,
    "task.eval_count": 10,
    "model.hidden_size": 2,
    "train.steps": STEPS,
    "train.log_every": 100,
    "train.eval_every": 1000,
    "train.checkpoint_every": 1000,
}
ALLOWED = 4 << 20
"""Bytes of growth over 8,000 steps: half a kilobyte a step, less than one row of metrics or one forgotten array."""


def resident(process):
    """Returns the resident memory of a process in bytes."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise AssertionError("it is gone")


@pytest.mark.faults
@pytest.mark.skipif(not pathlib.Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_flat_over_ten_thousand_steps(tmp_path):
    sizes = {}
    overrides = [f"--config.{key}={value}" for key, value in OPTIONS.items()]
    with programs() as run:
        command = "train", "--config=configs/adding.py:smoke", "--devices=1", f"--workdir={tmp_path}/run", *overrides
        process = run.start(*command)
        for line in process.stdout:
            place, split, *_ = [*line.split(), ""]
            if split == "train" and place.endswith(f"/{STEPS}"):
                sizes[int(place.partition("/")[0])] = resident(process)
        run.finish(process)
    assert len(sizes) == STEPS // 100
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == STEPS
    print({step: size >> 10 for step, size in sizes.items() if step % 1000 == 0})
    early, late = (
        min(size for step, size in sizes.items() if low < step <= high) for low, high in ((1900, 2900), (9000, STEPS))
    )
    assert late - early < ALLOWED, sizes
