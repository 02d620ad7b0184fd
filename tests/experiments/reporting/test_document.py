"""What RESULTS.md says follows from the records and the goals."""

import dataclasses
import pathlib
import shutil

import pytest

from experiments import report
from experiments.reporting import document, goals, plot, records, tables
from experiments.reporting.goals import Figure, Goal
from experiments.schema import ConfigError

ROOT = pathlib.Path(__file__).parents[3]
GOAL = Goal(
    "jsb",
    "nll",
    "Chorales",
    "nats",
    ".2f",
    "less",
    target=8.43,
    at_most=1000,
    figures=(Figure("GRU", 8.43, "A 2018"), Figure("LSTM", 8.45, "A 2018"), Figure("GRU", 8.54, "B", reported=True)),
)


def group(cell="gru", values=(8.3, 8.5), overrides=(), task="jsb", metric="nll", parameters=1000, setting="jsb"):
    shared = {"parameters": parameters, "minutes": 2.0, "machine": "two cores", "commit": "0123456789-dirty"}
    shared["overrides"] = [*overrides]
    runs = tuple(shared | {"seed": seed, "value": value} for seed, value in enumerate(values))
    return records.Group(task, metric, cell, f"configs/music.py:{setting}", overrides, runs)


def test_results_md_is_what_the_records_say():
    report.check(ROOT)


def test_a_stale_document_or_picture_is_refused(tmp_path):
    picture = tmp_path / document.PICTURE
    picture.parent.mkdir(parents=True)
    for name in ("digits.jsonl", "jsb.jsonl", "studies/gradient_flow.json"):
        copy = picture.parent / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / copy.relative_to(tmp_path), copy)
    readme = pathlib.Path(shutil.copy(ROOT / "README.md", tmp_path))
    with pytest.raises(ConfigError, match=r"RESULTS.md is not what the records say, from line 1 on"):
        report.check(tmp_path)
    results = report.write(tmp_path)[0]
    report.check(tmp_path)
    line = results.read_text().splitlines().index("## Overview") + 1
    results.write_text(results.read_text().replace("## Overview", "## overview"))
    with pytest.raises(ConfigError, match=rf"from line {line} on"):
        report.check(tmp_path)
    report.write(tmp_path)
    line = readme.read_text().splitlines().index(document.MARKS[0].strip()) + 5
    readme.write_text(readme.read_text().replace("| Digits, 64", "| digits, 64"))
    with pytest.raises(ConfigError, match=rf"README.md is not what the records say, from line {line} on"):
        report.check(tmp_path)
    report.write(tmp_path)
    picture.write_text("<svg/>")
    with pytest.raises(ConfigError, match=r"results.svg is not what the records say"):
        report.check(tmp_path)


def test_every_configuration_and_task_that_is_named_exists():
    for record in records.read(ROOT / "experiments" / "results"):
        assert (ROOT / record["config"].split(":")[0]).is_file(), record["config"]
    tasks = [(goal.task, goal.metric) for goal in goals.GOALS]
    assert len(set(tasks)) == len(tasks)


def test_the_overview_by_hand(tmp_path):
    text = document.text([group(), group("elman", (9.0,))], tmp_path, goals=[GOAL])
    row = "| Chorales | nats | 8.40 ± 0.14 | not yet run | 9.00 | 8.43 | ≤ 8.43 | yes |"
    assert row in text.splitlines()
    assert "Published: GRU 8.43, LSTM 8.45 (A 2018); GRU 8.54 (B, as reported elsewhere)." in text
    assert (
        "| GRU | 1,000 | 8.40 ± 0.14 | 0, 1 | yes | 2.0 | two cores | 0123456-dirty | `configs/music.py:jsb` |" in text
    )
    assert "Not yet run" not in text


def test_the_table_of_the_readme_by_hand():
    goals = [GOAL, dataclasses.replace(GOAL, metric="bits", headline=False), dataclasses.replace(GOAL, task="other")]
    groups = [group(), group(metric="bits"), group("elman", (9.0,)), group("lstm", task="other")]
    before = "# title\n\n{}what there was{}\nmore".format(*document.MARKS)
    made = document.readme(before, groups, goals)
    assert made == f"# title\n\n{document.MARKS[0]}{tables.headlines(goals, groups)}{document.MARKS[1]}\nmore"
    assert tables.headlines(goals, groups).splitlines()[2:] == [
        "| Chorales | nats | 8.40 ± 0.14 |  | 9.00 | GRU 8.43 | `--config=configs/music.py:jsb` |"
    ]
    for broken in ("# title", before.replace(document.MARKS[1], ""), before + before):
        with pytest.raises(ConfigError, match=r"README.md: expected one <!-- results"):
            document.readme(broken, groups, goals)


def test_a_goal_without_records_is_said_to_be_waiting(tmp_path):
    assert "Not yet run: Chorales." in document.text([], tmp_path, goals=[GOAL])


def test_a_record_without_a_goal_is_not_left_out(tmp_path):
    text = document.text([group(task="new", metric="score")], tmp_path, goals=[GOAL])
    assert "| new | test score | 8.4 ± 0.14 |" in text


def test_the_overview_shows_the_default_configuration_whatever_its_score():
    worse, better = group(values=(9.0,)), group(values=(1.0,), overrides=("model.dropout=0.1",))
    assert tables.default(GOAL, [worse, better], "gru") is worse
    assert tables.default(GOAL, [better], "gru") is better
    assert tables.default(GOAL, [better], "lstm") is None


def test_a_goal_is_answered_by_its_own_setting():
    goal = dataclasses.replace(GOAL, setting="jsb")
    own, lstm, other = group(), group("lstm", setting="jsb-lstm"), group(values=(1.0,), setting="transposed")
    for groups in ([own, lstm, other], [other, lstm, own]):
        assert tables.default(goal, groups, "gru") is own
        assert tables.default(goal, groups, "lstm") is lstm
    assert tables.default(goal, [other], "gru") is None
    assert tables.default(GOAL, [own, other], "gru") is other
    assert "`configs/music.py:transposed`" in tables.details("jsb", [goal], [own, other])


@pytest.mark.parametrize(
    ("better", "strict", "value", "parameters", "met"),
    [
        ("less", False, 8.43, 1000, True),
        ("less", True, 8.43, 1000, False),
        ("less", False, 8.44, 1000, False),
        ("more", False, 8.44, 1000, True),
        ("more", True, 8.42, 1000, False),
        ("less", False, 8.0, 1001, False),
    ],
)
def test_a_target_is_met(better, strict, value, parameters, met):
    goal = Goal("t", "m", "T", "M", ".2f", better, target=8.43, strict=strict, at_most=1000)
    assert goal.met(value, parameters) is met


def test_the_picture_is_the_same_every_time_and_knows_its_numbers():
    pairs = plot.drawn([GOAL], [group(), group("lstm")])
    first = plot.draw(pairs)
    assert first == plot.draw(pairs)
    assert plot.digest(pairs).encode() in first
    other = plot.drawn([GOAL], [group(values=(8.3, 8.6)), group("lstm")])
    assert plot.digest(other) != plot.digest(pairs)
    assert all(name in first for name in (b"Chorales", b"GRU", b"LSTM", b"nats"))
