"""The last value is repeated, and the linear map learns a linear law from the training split only."""

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


def test_last_value_is_repeated(task):
    xs = task.windows(task.origins["test"][:3])["xs"]
    quantiles = last_value(task)(xs)
    assert quantiles.shape == (3, 6, 1, 3)
    np.testing.assert_array_equal(quantiles[..., 1], np.repeat(xs[:, -1:], 6, axis=1))


def test_linear_map_continues_season_and_trend_with_correct_intervals(task):
    fitted, penalty = linear(task)
    scores, naive = score(task, fitted, "test"), score(task, last_value(task), "test")
    noise_alone = 0.01**2 / task.scaling.scale[0] ** 2
    assert scores["mse"] < 3 * noise_alone
    assert scores["mse"] < naive["mse"] / 100
    assert scores["coverage"] == pytest.approx(80, abs=15)
    assert penalty < 100


def test_test_split_is_not_used_for_fitting_nor_validation_for_intervals(task):
    (before, penalty), naive = linear(task), last_value(task)
    train, validation, _ = task.ends
    noise = 10 * np.random.default_rng(1).normal(size=task.values.shape)
    task.values[validation:] = np.cumsum(noise[validation:], axis=0)  # the last value is their best forecast
    after, same = linear(task)
    assert same == penalty
    np.testing.assert_array_equal(after.weights, before.weights)
    np.testing.assert_array_equal(after.errors, before.errors)
    task.values[train:] = noise[train:]
    np.testing.assert_array_equal(last_value(task).errors, naive.errors)
