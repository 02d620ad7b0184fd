"""A file has its old or its new content at any moment."""

import errno
import json
import os

import pytest

from experiments import files


def test_file_is_written_and_overwritten(tmp_path):
    path = tmp_path / "summary.json"
    files.write_json(path, {"loss": 0.5})
    files.write_json(path, {"loss": 0.25})
    assert path.read_text() == '{\n  "loss": 0.25\n}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_keeps_the_old_content(step, tmp_path, monkeypatch):
    path, seen = tmp_path / "summary.json", []
    path.write_bytes(b"old")

    def fail(*_):
        seen.append(path.read_bytes())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=r"No space left on device: '.*summary\.json'$"):
        files.write_bytes(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_in_json_raises(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "summary.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_non_utf8_path_survives_json(tmp_path):
    value = {"text_file": "texts/no\udcffutf8.txt", "é": "日本"}
    files.write_json(tmp_path / "config.json", value)
    assert json.loads((tmp_path / "config.json").read_bytes().decode()) == value


def test_folder_is_written_and_replaced(tmp_path):
    path = tmp_path / "models" / "jsb"
    for name in ("first", "second"):
        with files.new_folder(path) as temporary:
            (temporary / name).write_text(name)
            assert (path / "first").exists() == (name == "second")
        assert [entry.name for entry in path.iterdir()] == [name]
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["inside", "rename"])
def test_failed_folder_keeps_the_old_one(fault, tmp_path, monkeypatch):
    path, replace = tmp_path / "jsb", os.replace
    path.mkdir()
    (path / "old").write_text("old")

    def fail(source, target):
        if ".new." in str(source):
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        replace(source, target)

    def write():
        with files.new_folder(path) as temporary:
            (temporary / "new").write_text("new")
            if fault == "inside":
                raise OSError(errno.ENOSPC, "No space left on device")

    if fault == "rename":
        monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left on device"):
        write()
    assert [entry.name for entry in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_folder_behind_a_link_is_replaced(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with files.new_folder(tmp_path / "link") as temporary:
        (temporary / "new").write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").read_text() == "new"
