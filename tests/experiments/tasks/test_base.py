"""Padding and means."""

import numpy as np

from experiments.tasks.base import mean, padded_batches


def test_padding_has_no_weight():
    first, second = padded_batches({"xs": np.arange(5), "labels": np.arange(5) * 10}, 3)
    np.testing.assert_array_equal(first["xs"], [0, 1, 2])
    np.testing.assert_array_equal(second["weights"], [1, 1, 0])
    np.testing.assert_array_equal(second["labels"][:2], [30, 40])


def test_mean_of_nothing_is_no_number():
    assert mean({"loss": (6.0, 4.0)}, "loss") == 1.5
    assert np.isnan(mean({"loss": (0.0, 0.0)}, "loss"))
