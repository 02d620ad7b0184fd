"""The baselines forecast what they say, and the linear one finds a linear law."""

import numpy as np
import pytest

from experiments.studies.forecast_baselines import last_value, linear, score
from experiments.tasks.forecasting.task import Forecasting, ForecastingConfig


@pytest.fixture
def task(tmp_path):
    rows = np.arange(600)
    noise = 0.01 * np.random.default_rng(0).normal(size=600)
    values = np.sin(2 * np.pi * rows / 12) + 0.01 * rows + noise
    path = tmp_path / "season.csv"
    path.write_text("x\n" + "\n".join(map(str, values)))
    return Forecasting(
        ForecastingConfig(dataset="csv", csv_file=str(path), date_column="", window=24, horizon=6, batch_size=8), None
    )


def test_the_last_value_is_repeated(task):
    xs = task.windows(task.origins["test"][:3])["xs"]
    quantiles = last_value(task)(xs)
    assert quantiles.shape == (3, 6, 1, 3)
    np.testing.assert_array_equal(quantiles[..., 1], np.repeat(xs[:, -1:], 6, axis=1))


def test_the_linear_map_continues_season_and_trend_with_intervals_that_hold(task):
    fitted, penalty = linear(task)
    scores, naive = score(task, fitted, "test"), score(task, last_value(task), "test")
    noise_alone = 0.01**2 / task.scaling.scale[0] ** 2
    assert scores["mse"] < 3 * noise_alone
    assert scores["mse"] < naive["mse"] / 100
    assert scores["coverage"] == pytest.approx(80, abs=15)
    assert penalty < 100


def test_nothing_is_learnt_from_the_test_part_and_no_interval_from_validation(task):
    (before, penalty), naive = linear(task), last_value(task)
    train, validation, _ = task.ends
    noise = 10 * np.random.default_rng(1).normal(size=task.values.shape)
    task.values[validation:] = np.cumsum(noise[validation:], axis=0)  # of which the last value is the best forecast
    after, same = linear(task)
    assert same == penalty
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.errors, before.errors)
    task.values[train:] = noise[train:]
    np.testing.assert_array_equal(last_value(task).errors, naive.errors)
