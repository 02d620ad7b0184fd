"""The grid of a sweep: every combination, every seed, a folder each; and what cannot be, in one line.

The table of a sweep: statistics by hand, and a choice that the test split has no part in.
"""

import math
import pathlib

import pytest

from experiments.runner import sweep
from experiments.runner.sweep import Row, parsed, points, value_of
from experiments.schema import UserError
from experiments.tasks.synthetic.adding import Adding, AddingConfig
from experiments.tasks.text.char_lm import CharLM, CharLMConfig

VALUES = {"task": {"name": "adding", "length": 10}, "model": {"hidden_size": 8}, "seed": 5}
FOLDER = pathlib.Path("runs/x")


def test_every_combination_has_every_seed_and_a_folder_of_its_own():
    grid = ["model.cell=gru,lstm", "optimizer.learning_rate=1e-3,1"]
    found = points(VALUES, grid, 2, FOLDER, ("task.length=10",))
    assert [point.name for point in found] == [
        "model.cell=gru,optimizer.learning_rate=1e-3",
        "model.cell=gru,optimizer.learning_rate=1",
        "model.cell=lstm,optimizer.learning_rate=1e-3",
        "model.cell=lstm,optimizer.learning_rate=1",
    ]
    members = [member for point in found for member in point.members]
    assert len({member.folder.path for member in members}) == 8
    last = members[-1]
    assert (last.config.model.cell, last.config.optimizer.learning_rate, last.config.seed) == ("lstm", 1.0, 6)
    assert last.config.model.hidden_size == 8
    assert last.overrides == ("task.length=10", "model.cell=lstm", "optimizer.learning_rate=1", "seed=6")
    assert last.folder.path == FOLDER / "model.cell=lstm,optimizer.learning_rate=1" / "seed_6"
    assert members[0].overrides[-1] == "optimizer.learning_rate=1e-3"  # the config's own seed is no override


def test_without_a_grid_there_is_one_configuration():
    (point,) = points(VALUES, [], 3, FOLDER)
    assert point.name == "base"
    assert [member.config.seed for member in point.members] == [5, 6, 7]


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("1e-3", 1e-3), ("true", True), ("False", False), ("gru", "gru"), ("[1, 2]", [1, 2])]
)
def test_values_are_read_as_json_else_as_text(text, value):
    assert value_of(text) == value
    assert type(value_of(text)) is type(value)


def test_commas_in_brackets_belong_to_a_value():
    assert parsed("a.b=[1,2],[3]") == ("a.b", ["[1,2]", "[3]"])


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (["model.cell"], "--grid: expected key=value,value with values that differ, got 'model.cell'"),
        (["model.cell=gru,,lstm"], "--grid: expected key=value,value"),
        (["model.cell=gru,gru"], "--grid: expected key=value,value with values that differ"),
        (["model.cell=gru", "model.cell=lstm"], "--grid: expected model.cell once"),
        (["seed=1,2"], "--grid: expected seed --seeds in its place"),
        (["model.cel=gru"], "model.cel: unknown key (did you mean 'cell'?)"),
        (["model.hidden_size=8,0"], "model.hidden_size: expected an integer at least 1, got 0"),
        (
            ["task.text_file=a/b,a_b"],
            "--grid: expected values that differ in more than / and _, got 'task.text_file=a_b'",
        ),
        (["seed.x=1"], "--grid: expected a key of the configuration, got 'seed.x'"),
    ],
)
def test_refuses_in_one_line_before_anything_is_run(grid, message):
    values = {"task": {"name": "char_lm"}} if "text_file" in grid[0] else VALUES
    with pytest.raises(UserError) as error:
        points(values, grid, 1, FOLDER)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


ADDING = Adding.scoring_for(AddingConfig())
GOOD = Row("good", 3, (1.0, 2.0, 3.0), {"mse": (9.0, 9.0, 9.0)})
BAD = Row("bad", 3, (2.0, 3.0, 4.0), {"mse": (0.0, 0.0, 0.0)})
CUT_SHORT = Row("cut short", 3, (0.0, 0.0), {"mse": (0.0, 0.0)})


def test_mean_and_sample_standard_deviation():
    assert sweep.spread((1.0, 2.0, 6.0)) == pytest.approx((3.0, math.sqrt(7.0)))
    assert sweep.spread((2.0,))[0] == 2.0
    assert math.isnan(sweep.spread((2.0,))[1])
    assert (sweep.shown(()), sweep.shown((2.0,)), sweep.shown((1.0, 3.0))) == ("–", "2", "2 ± 1.4")


def test_the_best_is_so_on_validation_and_has_all_its_seeds():
    assert sweep.best([BAD, GOOD, CUT_SHORT], "min") is GOOD
    assert sweep.best([BAD, GOOD, CUT_SHORT], "max") is BAD
    assert sweep.best([CUT_SHORT], "min") is None


def test_the_table_marks_it():
    lines = sweep.text([BAD, GOOD, CUT_SHORT], ADDING).splitlines()
    assert lines[0].split() == ["configuration", "seeds", "validation", "mse", "test", "mse"]
    assert lines[1].split() == ["bad", "3/3", "3", "±", "1", "0", "±", "0"]
    assert lines[2].split() == ["*", "good", "3/3", "2", "±", "1", "9", "±", "0"]
    assert lines[3].split()[:3] == ["cut", "short", "2/3"]
    assert lines[4].startswith("* the best by validation mse")
    assert sweep.plain([BAD, GOOD], ADDING)["best"] == "good"


def test_none_is_chosen_by_what_was_trained_on():
    scoring = CharLM.scoring_for(CharLMConfig(train_on_validation=True))
    rows = [Row("one", 1, (1.0,), {metric: (2.0,) for metric in scoring.reported})]
    lines = sweep.text(rows, scoring).splitlines()
    assert not any(line.startswith("*") for line in lines)
    assert lines[-1].startswith("none is chosen, for the validation split was trained on")
    assert sweep.plain(rows, scoring)["best"] is None
