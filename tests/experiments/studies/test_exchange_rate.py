"""The wrong rate is found and corrected, and the explained share has its known values."""

import numpy as np
import pytest

from experiments.studies.exchange_rate import CHINA, explained, largest_spike, without_spike
from experiments.tasks.forecasting.task import CURRENCIES, correlation


def test_spike_is_found_beside_a_larger_jump_that_stays():
    values = np.full(50, 2.0)
    values[30:] = 4.0  # a jump differs from one neighbor only
    values[12] = 2.6
    assert largest_spike(values) == 12


def test_explained_share_is_0_for_the_last_value_1_for_the_truth_and_negative_for_worse():
    rng = np.random.default_rng(0)
    last, targets = rng.normal(size=(2, 40, 3))
    assert explained(last, targets, last) == 0.0
    assert explained(targets, targets, last) == 1.0
    assert explained((last + targets) / 2, targets, last) == pytest.approx(0.75)
    assert explained(2 * last - targets, targets, last) == pytest.approx(-3.0)


def test_average_correlates_better_than_the_last_value_only_with_the_wrong_rate():
    walks = 1.0 + 1e-4 * np.cumsum(np.random.default_rng(1).normal(size=(2000, len(CURRENCIES))), axis=0)
    wrong = walks.copy()
    wrong[900, CHINA] *= 1.5
    row = largest_spike(wrong[:, CHINA])
    corrected = without_spike(wrong, row)
    np.testing.assert_allclose(corrected, walks, atol=1e-3)
    np.testing.assert_array_equal(np.delete(corrected, CHINA, axis=1), np.delete(walks, CHINA, axis=1))

    def advantage(values):
        last, average = values[1:-3], (values[1:-3] + values[:-4]) / 2
        return correlation(average, values[4:]) - correlation(last, values[4:])

    assert advantage(wrong) > 0 > advantage(corrected)
