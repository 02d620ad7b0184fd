"""metrics.jsonl holds each row once, after any interruption."""

import json

import pytest

from experiments.runner.logging import MetricsFile, read_rows
from experiments.schema import UserError


def write(path, after, steps):
    file = MetricsFile(path, after)
    for step in steps:
        file.write(step, "train", {"loss": step / 7})
    file.flush()
    file.close()


def test_resumption_leaves_the_rows_of_an_uninterrupted_run(tmp_path):
    write(tmp_path / "whole", 0, [10, 20, 30, 40])
    write(tmp_path / "broken", 0, [10, 20, 30])
    with (tmp_path / "broken").open("ab") as file:
        file.write(b'{"step": 40, "spl')
    write(tmp_path / "broken", 20, [30, 40])
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "whole").read_bytes()


def test_incomplete_last_line_is_ignored(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, 0, [10])
    path.write_bytes(path.read_bytes() + b'{"step": 20}')
    assert read_rows(path) == [{"step": 10, "split": "train", "loss": 10 / 7}]


@pytest.mark.parametrize("line", ["{oops", '{"step": Infinity}', "[]", "3"])
def test_damaged_line_raises_with_its_number(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + f"\n{line}\n" + json.dumps({"step": 2}) + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2: expected a row of metrics in JSON"):
        read_rows(path)


def test_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "none") == []
