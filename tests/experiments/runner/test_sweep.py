"""Sweeps: expansion of the grid, statistics over seeds, selection of the best by validation."""

import math
import pathlib

import pytest

from experiments.runner import sweep
from experiments.runner.config import resolve
from experiments.runner.sweep import Row, expand_grid, parse_axis
from experiments.schema import UserError
from experiments.tasks.synthetic.adding import Adding, AddingConfig
from experiments.tasks.text.char_lm import CharLM, CharLMConfig

VALUES = {"task": {"name": "adding", "length": 10}, "model": {"hidden_size": 8}, "seed": 5}
FOLDER = pathlib.Path("runs/x")


def test_each_combination_has_all_seeds_and_one_folder_per_run():
    grid = ["model.cell=gru,lstm", "optimizer.learning_rate=1e-3,1"]
    found = expand_grid(VALUES, grid, 2, FOLDER, ("task.length=10",))
    assert [point.name for point in found] == [
        "model.cell=gru,optimizer.learning_rate=1e-3",
        "model.cell=gru,optimizer.learning_rate=1",
        "model.cell=lstm,optimizer.learning_rate=1e-3",
        "model.cell=lstm,optimizer.learning_rate=1",
    ]
    trials = [trial for point in found for trial in point.trials]
    assert len({trial.folder.path for trial in trials}) == 8
    last = trials[-1]
    assert (last.config.model.cell, last.config.optimizer.learning_rate, last.config.seed) == ("lstm", 1.0, 6)
    assert last.config.model.hidden_size == 8
    assert last.overrides == ("task.length=10", "model.cell=lstm", "optimizer.learning_rate=1", "seed=6")
    assert last.folder.path == FOLDER / "model.cell=lstm,optimizer.learning_rate=1" / "seed_6"
    assert trials[0].overrides[-1] == "optimizer.learning_rate=1e-3"  # the config's own seed is not an override


def test_without_grid_one_configuration_has_all_seeds():
    (point,) = expand_grid(VALUES, [], 3, FOLDER)
    assert point.name == "base"
    assert [trial.config.seed for trial in point.trials] == [5, 6, 7]


def test_another_grid_does_not_replace_a_table(tmp_path):
    table = tmp_path / "sweep.json"
    sweep.check_grid(table, ["a=1"])
    table.write_text('{"configurations": [{"name": "a=1"}, {"name": "a=2"}]}')
    sweep.check_grid(table, ["a=1", "a=2", "a=3"])
    with pytest.raises(UserError, match=rf"^--grid: expected all points of {table}, .*, got none for 'a=2'; choose an"):
        sweep.check_grid(table, ["a=1", "a=3"])
    table.write_text("[]")
    with pytest.raises(UserError, match=rf"^{table} is damaged: "):
        sweep.check_grid(table, ["a=1"])


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model.hidden_size", "3", 3),
        ("optimizer.learning_rate", "1", 1.0),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("model.cell", "lstm", "lstm"),
        ("train.goal", "0.5", 0.5),
        ("train.goal", "None", None),
    ],
)
def test_grid_values_are_parsed_as_overrides(key, text, value):
    (point,) = expand_grid(resolve(VALUES).to_dict(), [f"{key}={text}"], 1, FOLDER)
    section, name = key.split(".")
    found = getattr(getattr(point.trials[0].config, section), name)
    assert found == value
    assert type(found) is type(value)


def test_commas_in_brackets_do_not_separate_values():
    assert parse_axis("a.b=[1,2],[3]") == ("a.b", ["[1,2]", "[3]"])


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
        (["seed.x=1"], "seed.x: expected a key of the configuration, got 'seed.x'"),
    ],
)
def test_invalid_grid_raises_one_line(grid, message):
    values = {"task": {"name": "char_lm"}} if "text_file" in grid[0] else VALUES
    with pytest.raises(UserError) as error:
        expand_grid(values, grid, 1, FOLDER)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


ADDING = Adding.scoring_for(AddingConfig())
GOOD = Row("good", 3, (1.0, 2.0, 3.0), {"mse": (9.0, 9.0, 9.0)})
BAD = Row("bad", 3, (2.0, 3.0, 4.0), {"mse": (0.0, 0.0, 0.0)})
CUT_SHORT = Row("cut short", 3, (0.0, 0.0), {"mse": (0.0, 0.0)})


def test_mean_and_sample_standard_deviation():
    assert sweep.mean_and_deviation((1.0, 2.0, 6.0)) == pytest.approx((3.0, math.sqrt(7.0)))
    assert sweep.mean_and_deviation((2.0,))[0] == 2.0
    assert math.isnan(sweep.mean_and_deviation((2.0,))[1])
    assert (sweep.format_scores(()), sweep.format_scores((2.0,)), sweep.format_scores((1.0, 3.0))) == (
        "–",
        "2",
        "2 ± 1.4",
    )


def test_best_row_has_best_validation_and_all_seeds():
    assert sweep.best_row([BAD, GOOD, CUT_SHORT], ADDING) is GOOD
    assert sweep.best_row([BAD, GOOD, CUT_SHORT], ADDING._replace(mode="max")) is BAD
    assert sweep.best_row([CUT_SHORT], ADDING) is None


def test_table_marks_the_best_row():
    lines = sweep.format_table([BAD, GOOD, CUT_SHORT], ADDING).splitlines()
    assert lines[0].split() == ["configuration", "seeds", "validation", "mse", "test", "mse"]
    assert lines[1].split() == ["bad", "3/3", "3", "±", "1", "0", "±", "0"]
    assert lines[2].split() == ["*", "good", "3/3", "2", "±", "1", "9", "±", "0"]
    assert lines[3].split()[:3] == ["cut", "short", "2/3"]
    assert lines[4].startswith("* best by validation mse")
    assert sweep.to_json([BAD, GOOD], ADDING)["best"] == "good"


def test_no_row_is_best_if_validation_was_trained_on():
    scoring = CharLM.scoring_for(CharLMConfig(train_on_validation=True))
    rows = [Row("one", 1, (1.0,), {metric: (2.0,) for metric in scoring.reported})]
    lines = sweep.format_table(rows, scoring).splitlines()
    assert not any(line.startswith("*") for line in lines)
    assert lines[-1].startswith("no best configuration, since the validation split was trained on")
    assert sweep.to_json(rows, scoring)["best"] is None
