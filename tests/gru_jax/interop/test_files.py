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


def test_errors_and_long_names_are_those_of_the_file(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "a.onnx", tmp_path / "folder"):
        with pytest.raises(OSError, match="directory") as raised, write_atomically(path) as temporary:
            temporary.write_bytes(b"new")
        assert raised.value.filename == str(path)
    longest = tmp_path / ("a" * 255)
    with write_atomically(longest) as temporary:
        temporary.write_bytes(b"new")
    assert longest.read_bytes() == b"new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a" * 255, "folder"]
