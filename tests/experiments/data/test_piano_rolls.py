"""Piano rolls as they were published, cut and transposed without losing a step."""

import numpy as np
import pytest

from experiments.data import piano_rolls


@pytest.mark.parametrize(
    ("name", "pieces", "steps"),
    [("jsb", (229, 76, 77), (13_807, 4_602, 4_725)), ("piano_midi", (87, 12, 25), (75_911, 8_540, 19_036))],
)
def test_the_splits_are_the_published_ones(name, pieces, steps, data_file, data_dir):
    data_file("poly_music", piano_rolls.FILES[name])
    splits = piano_rolls.load(name, data_dir)
    assert tuple(len(splits[split]) for split in ("train", "validation", "test")) == pieces
    assert tuple(sum(map(len, splits[split])) for split in ("train", "validation", "test")) == steps
    assert all(set(np.unique(piece)) <= {0, 1} and piece.shape[1] == 88 for piece in splits["validation"])


def test_the_two_forms_of_the_chorales_agree(data_file, data_dir):
    packed = np.load(data_file("poly_music", "JSB_Chorales.npz"))
    rolls = np.unpackbits(packed["test_roll_packed"], axis=1)[:, :88]
    np.testing.assert_array_equal(np.concatenate(piano_rolls.load("jsb", data_dir)["test"]), rolls)


def test_parts_predict_every_step_but_the_first_once():
    pieces = [np.arange(10)[:, None], np.arange(5)[:, None], np.arange(4)[:, None]]
    parts = [part[:, 0].tolist() for part in piano_rolls.segments(pieces, 4)]
    assert parts == [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9], [0, 1, 2, 3, 4], [0, 1, 2, 3]]


def test_transposition_by_hand():
    roll = np.zeros((1, 88), np.uint8)
    roll[0, [0, 40, 87]] = 1
    assert np.flatnonzero(piano_rolls.transposed(roll, 2)).tolist() == [2, 42]
    assert np.flatnonzero(piano_rolls.transposed(roll, -3)).tolist() == [37, 84]
    np.testing.assert_array_equal(piano_rolls.transposed(roll, 0), roll)
