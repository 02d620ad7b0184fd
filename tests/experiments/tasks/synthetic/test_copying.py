"""The copying problem as in its papers."""

import math

import numpy as np
import pytest

from experiments.tasks.synthetic.copying import Copying, CopyingConfig, draw


def test_sequence_of_length_three():
    batch = draw(np.random.default_rng(0), 200, 3)
    inputs, targets = batch["inputs"], batch["targets"]
    assert inputs.shape == targets.shape == (200, 23)
    symbols = inputs[:, :10]
    assert set(np.unique(symbols)) == set(range(1, 9))
    assert (inputs[:, 10:12] == 0).all()
    assert (inputs[:, 12:] == 9).all()
    assert (targets[:, :13] == 0).all()
    np.testing.assert_array_equal(targets[:, 13:], symbols)


@pytest.mark.parametrize(
    ("share_known", "ratio", "recalled"),
    [(0.0, 1.0, 12.5), (1.0, 0.0, 100.0), (0.5, 0.5, 56.25)],
)
def test_loss_ratio_is_relative_to_the_memoryless_model(share_known, ratio, recalled):
    # An oracle that knows the first symbols of each memory, and guesses the others uniformly.
    task = Copying(CopyingConfig(length=7, eval_count=50), None)
    known = int(10 * share_known)
    sums = {"loss": (0.0, 0.0), "recalled": (0.0, 0.0)}
    for batch in task.eval_batches("test"):
        logits = np.full((*batch["targets"].shape, 10), -1e9, np.float32)
        logits[:, :-10, 0] = 0
        logits[:, -10:, 1:9] = 0
        for step in range(17, 17 + known):
            logits[:, step] = np.where(np.arange(10) == batch["targets"][:, step, None], 0, -1e9)
        found, _ = task.loss(lambda xs, key, logits=logits: logits, batch, (), None)
        sums = {n: (sums[n][0] + float(found[n][0]), sums[n][1] + float(found[n][1])) for n in sums}
    metrics = task.metrics(sums)
    assert metrics["loss_ratio"] == pytest.approx(ratio, abs=1e-6)
    assert metrics["loss"] == pytest.approx(ratio * 10 * math.log(8) / 27, abs=1e-6)
    # Always guessing symbol 1 is right once in eight.
    assert metrics["recalled"] == pytest.approx(recalled, abs=0 if share_known == 1 else 5)


def test_splits_differ():
    task = Copying(CopyingConfig(length=5, eval_count=30), None)
    first = [next(iter(task.eval_batches(split)))["inputs"][:8] for split in ("train", "validation", "test")]
    assert not (first[0] == first[1]).all()
    assert not (first[1] == first[2]).all()
    assert task.result_name == "copying_5"
