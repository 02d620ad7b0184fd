"""Which evaluation counts as the best."""

import dataclasses
import math
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.training.checkpoints import Progress
from experiments.training.loop import judged


def judge(values, mode="min", selects=True, patience=0):
    task: Any = SimpleNamespace(mode=mode, selects=selects)
    progress = Progress()
    for step, value in enumerate(values, 1):
        progress = judged(dataclasses.replace(progress, step=step), value, task, patience)
    return progress


@pytest.mark.parametrize(
    ("values", "mode", "selects", "best_step"),
    [
        ([3.0, 1.0, 2.0], "min", True, 2),
        ([3.0, 1.0, 2.0], "max", True, 1),
        ([3.0, 1.0, 2.0], "min", False, 3),
        ([3.0, math.nan, 2.0], "min", True, 3),
        ([1.0, 1.0], "min", True, 1),
    ],
)
def test_the_best_is_the_first_best_or_the_last_where_nothing_is_held_out(values, mode, selects, best_step):
    progress = judge(values, mode, selects)
    assert progress.best_step == best_step
    assert progress.best_value == values[best_step - 1]


def test_patience_counts_evaluations_without_a_new_best():
    assert not judge([1.0, 2.0], patience=2).finished
    assert judge([1.0, 2.0, 2.0], patience=2).finished
    assert not judge([1.0, 2.0, 0.5, 2.0], patience=2).finished
    assert not judge([1.0, 2.0, 2.0], patience=2, selects=False).finished
