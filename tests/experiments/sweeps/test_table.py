"""The table of a sweep: statistics by hand, and a choice that the test split has no part in."""

import math

import pytest

from experiments.sweeps import table
from experiments.sweeps.table import Row
from experiments.tasks.adding import Adding, AddingConfig
from experiments.tasks.char_lm import CharLM, CharLMConfig

ADDING = Adding.scoring(AddingConfig())
GOOD = Row("good", 3, (1.0, 2.0, 3.0), {"mse": (9.0, 9.0, 9.0)})
BAD = Row("bad", 3, (2.0, 3.0, 4.0), {"mse": (0.0, 0.0, 0.0)})
CUT_SHORT = Row("cut short", 3, (0.0, 0.0), {"mse": (0.0, 0.0)})


def test_mean_and_sample_standard_deviation():
    assert table.spread((1.0, 2.0, 6.0)) == pytest.approx((3.0, math.sqrt(7.0)))
    assert table.spread((2.0,))[0] == 2.0
    assert math.isnan(table.spread((2.0,))[1])
    assert (table.shown(()), table.shown((2.0,)), table.shown((1.0, 3.0))) == ("–", "2", "2 ± 1.4")


def test_the_best_is_so_on_validation_and_has_all_its_seeds():
    assert table.best([BAD, GOOD, CUT_SHORT], "min") is GOOD
    assert table.best([BAD, GOOD, CUT_SHORT], "max") is BAD
    assert table.best([CUT_SHORT], "min") is None


def test_the_table_marks_it():
    lines = table.text([BAD, GOOD, CUT_SHORT], ADDING).splitlines()
    assert lines[0].split() == ["configuration", "seeds", "validation", "mse", "test", "mse"]
    assert lines[1].split() == ["bad", "3/3", "3", "±", "1", "0", "±", "0"]
    assert lines[2].split() == ["*", "good", "3/3", "2", "±", "1", "9", "±", "0"]
    assert lines[3].split()[:3] == ["cut", "short", "2/3"]
    assert lines[4].startswith("* the best by validation mse")
    assert table.plain([BAD, GOOD], ADDING)["best"] == "good"


def test_none_is_chosen_by_what_was_trained_on():
    scoring = CharLM.scoring(CharLMConfig(train_on_validation=True))
    rows = [Row("one", 1, (1.0,), {metric: (2.0,) for metric in scoring.reported})]
    lines = table.text(rows, scoring).splitlines()
    assert not any(line.startswith("*") for line in lines)
    assert lines[-1].startswith("none is chosen, for the validation split was trained on")
    assert table.plain(rows, scoring)["best"] is None
