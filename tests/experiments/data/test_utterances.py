"""Files of labelled sequences are read strictly."""

import numpy as np
import pytest

from experiments.data import utterances
from experiments.data.fetch import DataError

HEAD = "#Paper: any\n@problemName x\n@data\n"


def written(tmp_path, lines):
    path = tmp_path / "x_TRAIN.ts"
    path.write_text(HEAD + lines)
    return path


def test_by_hand(tmp_path):
    sequences, labels = utterances.read(written(tmp_path, "1,2,3:4,5,6:a\n7.5:-8:b\n"))
    np.testing.assert_array_equal(sequences[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(sequences[1], [[7.5, -8]])
    assert labels == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,2:3:a\n", "x_TRAIN.ts:4: expected channels of as many numbers each"),
        ("1,x:3,4:a\n", "x_TRAIN.ts:4: expected channels of as many numbers each"),
        ("1:2:a\n\n1:2:3:a\n", "x_TRAIN.ts:6: expected as many channels as in the first line of data"),
        ("1,nan:3,4:a\n", "x_TRAIN.ts:4: expected finite numbers"),
        ("", "x_TRAIN.ts: expected sequences after a line @data, got none"),
    ],
)
def test_what_is_no_sequence_is_named(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        utterances.read(written(tmp_path, lines))
