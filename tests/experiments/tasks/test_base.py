"""The task interface, padded batches and means of sums."""

import numpy as np
import pytest

from experiments.tasks.base import Task, mean, padded_batches
from experiments.tasks.synthetic.adding import Adding, AddingConfig


@pytest.mark.parametrize("name", sorted(Task.__abstractmethods__))
def test_task_that_lacks_a_method_cannot_be_made(name):
    complete = {each: getattr(Adding, each) for each in Task.__abstractmethods__}
    assert type("Complete", (Task,), complete)(AddingConfig(), None)
    del complete[name]
    with pytest.raises(TypeError, match=name):
        type("Incomplete", (Task,), complete)(AddingConfig(), None)


def test_padding_has_weight_zero():
    first, second = padded_batches({"xs": np.arange(5), "labels": np.arange(5) * 10}, 3)
    np.testing.assert_array_equal(first["xs"], [0, 1, 2])
    np.testing.assert_array_equal(second["weights"], [1, 1, 0])
    np.testing.assert_array_equal(second["labels"][:2], [30, 40])


def test_mean_of_weight_zero_is_nan():
    assert mean({"loss": (6.0, 4.0)}, "loss") == 1.5
    assert np.isnan(mean({"loss": (0.0, 0.0)}, "loss"))
