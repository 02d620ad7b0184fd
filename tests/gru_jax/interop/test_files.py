"""A file that could not be written to its end is not there, and what was there still is."""

import pytest

from gru_jax.interop._arrays import write_atomically


def test_a_file_is_its_old_content_or_its_new_one(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with write_atomically(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_who_writes_at_the_same_time_writes_a_file_of_its_own(tmp_path):
    path = tmp_path / "model.onnx"
    with write_atomically(path) as one:
        with write_atomically(path) as other:
            one.write_bytes(b"one")
            other.write_bytes(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_half_way_leaves_the_old_content_and_no_other_file(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")

    def write():
        with write_atomically(path) as temporary:
            temporary.write_bytes(b"ne")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
