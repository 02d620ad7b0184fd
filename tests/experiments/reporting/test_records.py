"""Records are checked when they are read, and grouped if they differ only in the seed."""

import json
import pathlib

import pytest

from experiments.reporting import records
from experiments.schema import UserError

RECORD = {
    "task": "jsb",
    "config": "configs/music.py:jsb",
    "overrides": [],
    "cell": "gru",
    "parameters": 1000,
    "seed": 0,
    "split": "test",
    "metric": "nll",
    "value": 8.4,
    "steps": 10,
    "minutes": 2.0,
    "machine": "two cores",
    "versions": {},
    "commit": "0123456789",
}


def written(folder: pathlib.Path, *lines: dict | str) -> pathlib.Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(RECORD | line) for line in lines)
    (folder / "jsb.jsonl").write_text(text + "\n")
    return folder


def test_runs_that_differ_only_in_the_seed_are_one_group(tmp_path):
    folder = written(
        tmp_path,
        {"seed": 2, "value": 8.0, "overrides": ["seed=2"], "minutes": 4.0},
        {"seed": 0, "value": 99.0},
        {"cell": "lstm", "seed": 0},
        {"seed": 1, "value": 9.0, "overrides": ["seed=1"]},
        {"seed": 0, "value": 7.0},
    )
    lstm, gru = records.grouped(records.read(folder))
    assert (lstm.cell, lstm.deviation) == ("lstm", None)
    assert gru.values == [7.0, 9.0, 8.0]
    assert gru.mean == 8.0
    assert gru.deviation == 1.0
    assert gru.minutes == pytest.approx(8 / 3)
    assert gru.command == (
        "python -m experiments.train --config=configs/music.py:jsb --config.seed=0 --workdir=runs/music_jsb_0"
    )


def test_runs_that_leave_out_different_speakers_are_one_group(tmp_path):
    folder = written(
        tmp_path,
        {"overrides": ["task.speaker=theo", "model.cell=gru"], "value": 9.0},
        {"overrides": ["model.cell=gru", "seed=3", "task.speaker=lucas"], "seed": 3, "value": 8.0},
        {"overrides": ["model.cell=gru", "task.speaker=lucas"], "value": 7.0},
        {"overrides": ["model.cell=gru", "task.speaker="], "value": 1.0},
    )
    group, other = records.grouped(records.read(folder))
    assert (group.overrides, group.runs) == (("model.cell=gru",), ["lucas 0", "lucas 3", "theo 0"])
    assert group.values == [7.0, 8.0, 9.0]
    assert group.command == (
        "python -m experiments.train --config=configs/music.py:jsb --config.model.cell=gru --config.task.speaker=lucas "
        "--config.seed=0 --workdir=runs/music_jsb_cell-gru_speaker-lucas_0"
    )
    assert other.values == [1.0]


def test_runs_of_a_seed_are_averaged_if_all_seeds_left_out_the_same_speakers(tmp_path):
    values = {(0, "lucas"): 1.0, (0, "theo"): 3.0, (1, "lucas"): 4.0, (1, "theo"): 8.0}
    lines = [{"overrides": [f"task.speaker={s}"], "seed": n, "value": v} for (n, s), v in values.items()]
    (group,) = records.grouped(records.read(written(tmp_path, *lines)))
    assert (group.runs, group.values, group.mean) == (["0 (2)", "1 (2)"], [2.0, 6.0], 4.0)
    assert group.deviation == pytest.approx(8**0.5)
    assert group.command.endswith(
        "--config.task.speaker=lucas --config.seed=0 --workdir=runs/music_jsb_speaker-lucas_0"
    )
    (group,) = records.grouped(records.read(written(tmp_path, *lines[:2])))
    assert (group.runs, group.values, group.deviation) == (["0 (2)"], [2.0], None)
    lines[3]["overrides"] = ["task.speaker=george"]
    (group,) = records.grouped(records.read(written(tmp_path, *lines)))
    assert group.values == [8.0, 1.0, 4.0, 3.0]


def test_runs_of_different_groups_have_different_folders(tmp_path):
    folder = written(
        tmp_path,
        {},
        {"overrides": ["model.chord=independent"]},
        {"overrides": ["model.cell=lstm"], "cell": "lstm"},
        {"config": "configs/music.py:jsb-lstm", "cell": "lstm"},
        {"config": "configs/music.py"},
    )
    commands = [group.command for group in records.grouped(records.read(folder))]
    assert len({command.partition("--workdir=")[2] for command in commands}) == 5


def test_other_overrides_or_another_config_make_another_group(tmp_path):
    folder = written(tmp_path, {}, {"overrides": ["model.hidden_size=3"]}, {"config": "configs/other.py"})
    groups = records.grouped(records.read(folder))
    assert len(groups) == 3
    assert "--config.model.hidden_size=3 --workdir" in groups[1].command


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{torn", r"jsb.jsonl:2: expected a record with cell, .*, got \{torn"),
        ("5", r"jsb.jsonl:2: expected a record with cell, .*, got 5"),
        ("true", r"jsb.jsonl:2: expected a record with cell, .*, got true"),
        ('{"task": "jsb"}', r"jsb.jsonl:2: expected a record with cell, commit, .*versions, got"),
        ({"split": "validation"}, r"jsb.jsonl:2: split: expected 'test', got 'validation'"),
        ({"commit": "0123-dirty"}, r"jsb.jsonl:2: commit: expected a clean one, got '0123-dirty'"),
    ],
)
def test_invalid_records_raise(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        records.read(written(tmp_path, {}, line))
