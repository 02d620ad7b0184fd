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
