"""IDX files, made by hand."""

import gzip

import numpy as np
import pytest

from experiments.data import idx
from experiments.data.fetch import DataError


def written(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_by_hand(tmp_path):
    path = written(tmp_path, [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    np.testing.assert_array_equal(idx.read(path), [[1, 2, 3], [4, 5, 255]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([0, 0, 13, 1, 0, 0, 0, 1, 5], "expected an IDX file of unsigned bytes, got one that begins with 00000d01"),
        ([0, 0, 8, 1, 0, 0, 0, 3, 5], r"expected 3 numbers of shape \(3,\), got 1"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        idx.read(written(tmp_path, content))
