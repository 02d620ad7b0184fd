"""Every step but the first of a piece is predicted once, and padding changes nothing."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.models.polyphony import PolyphonyConfig
from experiments.tasks.music import Music, MusicConfig


@pytest.fixture(scope="module")
def task(data_dir):
    return Music(MusicConfig(collection="jsb", batch_size=6, num_buckets=2, longest=50), str(data_dir))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_an_evaluation_predicts_every_step_but_the_first_of_every_piece(task, split):
    counted, notes = 0, 0
    for batch in task.eval_batches(split):
        for roll, length, weight in zip(batch["rolls"], batch["lengths"], batch["weights"], strict=True):
            counted += int(weight) * length
            notes += int(weight) * roll[1 : length + 1].sum()
            assert not roll[length + 1 :].any()
    assert counted == sum(len(piece) - 1 for piece in task.pieces[split])
    assert notes == sum(piece[1:].sum() for piece in task.pieces[split])


def test_a_batch_holds_the_pieces_that_its_indices_name(task):
    batch, rows = task.train_batch(0, 5), task.batch_indices(0, 5)
    for roll, length, row in zip(batch["rolls"], batch["lengths"], rows, strict=True):
        np.testing.assert_array_equal(roll[: length + 1], task.train_pieces[row])


def test_transposition_moves_whole_pieces(data_dir):
    task = Music(MusicConfig(collection="jsb", batch_size=32, transpose=3), str(data_dir))
    shifts = set()
    batch, rows = task.train_batch(0, 0), task.batch_indices(0, 0)
    for roll, length, row in zip(batch["rolls"], batch["lengths"], rows, strict=True):
        found = [s for s in range(-3, 4) if (np.roll(task.train_pieces[row], s, 1) == roll[: length + 1]).all()]
        assert len(found) == 1
        shifts |= set(found)
    assert len(shifts) > 3


@pytest.mark.parametrize("chord", ["independent", "ordered"])
def test_the_loss_is_the_cross_entropy_of_the_keys_and_ignores_the_padding(task, chord):
    model = task.model(PolyphonyConfig(hidden_size=5, chord=chord), nnx.Rngs(0))
    batch = task.train_batch(0, 0)
    batch["weights"][2] = 0
    loss = jax.jit(jax.value_and_grad(lambda m, b: task.loss(m, b, (), None)[0]["loss"][0]))
    steps = task.loss(model, batch, (), None)[0]["loss"][1]
    value, gradient = loss(model, batch)
    rolls = batch["rolls"].astype(np.float32)
    logits = np.asarray(model(rolls[:, :-1], rolls[:, 1:])[0], np.float64)
    expected, count = 0.0, 0
    for b, length in enumerate(batch["lengths"]):
        if b != 2:
            y, x = batch["rolls"][b, 1 : length + 1], logits[b, :length]
            expected += (np.logaddexp(0, x) - x * y).sum()
            count += length
    assert steps == count
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    rubbish = dict(batch, rolls=batch["rolls"].copy())
    for b, length in enumerate(batch["lengths"]):
        rubbish["rolls"][b, length + 1 :] = 255
    again, same = loss(model, rubbish)
    assert (rubbish["rolls"] != batch["rolls"]).any()
    assert again == value
    jax.tree.map(np.testing.assert_array_equal, gradient, same)
