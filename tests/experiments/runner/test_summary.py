"""A finished run is recorded once, or not at all."""

import errno
import json
import os

import pytest

from experiments.runner.logging import record
from experiments.schema import UserError

KEYS = ("config", "overrides", "cell", "parameters", "seed", "steps", "minutes", "machine", "versions", "commit")
SUMMARY = dict.fromkeys(KEYS, 1) | {"task": "jsb", "test": {"nll": 8.5, "loss": 8.5}, "commit": "0" * 40}


def test_run_is_recorded_once_per_metric(tmp_path):
    (tmp_path / "jsb.jsonl").write_text('{"earlier": 1}\n')
    for _ in range(2):
        assert record(SUMMARY, ("nll",), tmp_path) == tmp_path / "jsb.jsonl"
    record(SUMMARY | {"seed": 2}, ("nll",), tmp_path)
    earlier, first, second = map(json.loads, (tmp_path / "jsb.jsonl").read_text().splitlines())
    assert earlier == {"earlier": 1}
    assert (first["split"], first["metric"], first["value"], first["seed"]) == ("test", "nll", 8.5, 1)
    assert second == first | {"seed": 2}


@pytest.mark.parametrize("commit", ["0" * 40 + "-dirty", "unknown"])
def test_record_requires_a_clean_commit(commit, tmp_path):
    with pytest.raises(UserError, match=f"^--record: expected a clean commit, got {commit}$"):
        record(SUMMARY | {"commit": commit}, ("nll",), tmp_path)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_earlier_records(tmp_path, monkeypatch):
    record(SUMMARY, ("nll",), tmp_path)
    before = (tmp_path / "jsb.jsonl").read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"jsb\.jsonl"):
        record(SUMMARY | {"seed": 2}, ("nll",), tmp_path)
    assert (tmp_path / "jsb.jsonl").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
