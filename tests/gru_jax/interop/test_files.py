"""Files are written atomically: after an error the old file is unchanged."""

import pytest

from gru_jax.interop._arrays import write_atomically


def test_file_is_replaced_when_the_new_one_is_complete(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with write_atomically(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_concurrent_writers_use_different_temporary_files(tmp_path):
    path = tmp_path / "model.onnx"
    with write_atomically(path) as one:
        with write_atomically(path) as other:
            one.write_bytes(b"one")
            other.write_bytes(b"other")
        assert path.read_bytes() == b"other"
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_leaves_the_old_file_and_no_temporary_file(tmp_path):
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
