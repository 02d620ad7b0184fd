"""Polyphonic music: batches, loss, splits, transposition."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.music.model import PolyphonyConfig
from experiments.tasks.music.task import FILES, Music, MusicConfig, load, segments, transposed


@pytest.fixture(scope="module")
def task(data_dir):
    return Music(MusicConfig(collection="jsb", batch_size=6, num_buckets=2, longest=50), str(data_dir))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_evaluation_predicts_every_step_but_the_first_of_every_piece(task, split):
    counted, notes = 0, 0
    for batch in task.eval_batches(split):
        for roll, length, weight in zip(batch["rolls"], batch["lengths"], batch["weights"], strict=True):
            counted += int(weight) * length
            notes += int(weight) * roll[1 : length + 1].sum()
            assert not roll[length + 1 :].any()
    assert counted == sum(len(piece) - 1 for piece in task.pieces[split])
    assert notes == sum(piece[1:].sum() for piece in task.pieces[split])


def test_batch_contains_the_pieces_of_its_indices(task):
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
def test_loss_is_the_cross_entropy_without_padding(task, chord):
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


@pytest.mark.parametrize("chunk", [200, 7])
def test_other_averages_equal_those_of_pieces_alone(task, chunk, monkeypatch):
    monkeypatch.setattr("experiments.tasks.music.task.CHUNK", chunk)
    model = task.model(PolyphonyConfig(hidden_size=5), nnx.Rngs(0))
    batch = task.train_batch(0, 0)
    batch["weights"][2] = 0
    found = task.metrics(jax.tree.map(float, task.loss(model, batch, (), None)[0]))
    sums, chunked, steps = [], [], []
    for b, length in enumerate(batch["lengths"]):
        if b == 2:
            continue
        roll = batch["rolls"][b, : length + 1].astype(np.float32)

        def loss(first, last, roll=roll):
            x = np.asarray(model(roll[None, first:last], roll[None, first + 1 : last + 1])[0][0], np.float64)
            return (np.logaddexp(0, x) - x * roll[first + 1 : last + 1]).sum()

        sums.append(loss(0, length))
        chunked.append(sum(loss(k, min(k + chunk, length)) for k in range(0, length, chunk)))
        steps.append(length)
    expected = {
        "nll": np.sum(sums) / np.sum(steps),
        "nll_per_piece": np.mean(np.divide(sums, steps)),
        "nll_of_piece": np.mean(sums),
        "nll_chunks": np.sum(chunked) / np.sum(steps),
    }
    assert set(found) == {"loss", *expected}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    assert (abs(found["nll_chunks"] - found["nll"]) > 1e-6) == (chunk < max(steps))


def test_training_computes_only_the_loss(task):
    model = task.model(PolyphonyConfig(hidden_size=5), nnx.Rngs(0))
    assert set(task.loss(model, task.train_batch(0, 0), (), jax.random.key(0))[0]) == {"loss"}


@pytest.mark.parametrize(
    ("name", "pieces", "steps"),
    [("jsb", (229, 76, 77), (13_807, 4_602, 4_725)), ("piano_midi", (87, 12, 25), (75_911, 8_540, 19_036))],
)
def test_splits_have_the_published_sizes(name, pieces, steps, data_file, data_dir):
    data_file("poly_music", FILES[name])
    splits = load(name, data_dir)
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == pieces
    assert tuple(sum(map(len, splits[split])) for split in ("train", "validation", "test")) == steps
    assert all(set(np.unique(piece)) <= {0, 1} and piece.shape[1] == 88 for piece in splits["validation"])


def test_both_files_of_the_chorales_agree(data_file, data_dir):
    packed = np.load(data_file("poly_music", "JSB_Chorales.npz"))
    rolls = np.unpackbits(packed["test_roll_packed"], axis=1)[:, :88]
    np.testing.assert_array_equal(np.concatenate(load("jsb", data_dir)["test"]), rolls)


def test_segments_predict_every_step_but_the_first_once():
    pieces = [np.arange(10)[:, None], np.arange(5)[:, None], np.arange(4)[:, None]]
    parts = [part[:, 0].tolist() for part in segments(pieces, 4)]
    assert parts == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9], [0, 1, 2, 3, 4], [0, 1, 2, 3]]


def test_transposition_of_single_keys():
    roll = np.zeros((1, 88), np.uint8)
    roll[0, [0, 40, 87]] = 1
    assert np.flatnonzero(transposed(roll, 2)).tolist() == [2, 42]
    assert np.flatnonzero(transposed(roll, -3)).tolist() == [37, 84]
    np.testing.assert_array_equal(transposed(roll, 0), roll)
