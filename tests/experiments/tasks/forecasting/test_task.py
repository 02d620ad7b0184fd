"""Splits, windows and scaling against known indices; metrics against independent computations."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, mean_squared_error

from experiments.schema import UserError
from experiments.tasks.forecasting import task as forecasting_task
from experiments.tasks.forecasting.task import Forecasting, ForecastingConfig, pinball


def write(tmp_path, values, name="mine.csv"):
    path = tmp_path / name
    lines = ["x,y", *(",".join(map(repr, map(float, row))) for row in values)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(100, 2)).cumsum(axis=0)


def make(path, **options):
    settings = {"window": 7, "horizon": 4, "batch_size": 5, "date_column": ""} | options
    return Forecasting(ForecastingConfig(dataset="csv", csv_file=path, **settings), None)


def make_exchange(monkeypatch, values, **options):
    """Makes a task with the exchange-rate protocol and the given values."""
    series = forecasting_task.Series(values, ("x", "y"))
    monkeypatch.setattr(forecasting_task, "load_series", lambda config, data_dir: series)
    settings = {"window": 7, "horizon": 4, "batch_size": 5} | options
    return Forecasting(ForecastingConfig(dataset="exchange_rate", **settings), None)


def test_etth1_has_the_splits_of_informer(data_file):
    data_dir = data_file("ett", "ETTh1.csv").parents[1]
    task = Forecasting(ForecastingConfig(column="OT", window=336, horizon=24), str(data_dir))
    assert task.result_name == "etth1_uni_24"
    # 12, 4 and 4 months of 30 days of 24 hours; 8640 - 336 - 24 + 1 and 2880 - 24 + 1 windows.
    assert {split: (len(o), o[0], o[-1]) for split, o in task.origins.items()} == {
        "train": (8281, 336, 8616),
        "validation": (2857, 8640, 11496),
        "test": (2857, 11520, 14376),
    }
    table = np.loadtxt(data_dir / "ett" / "ETTh1.csv", delimiter=",", skiprows=1, usecols=7)
    scaled = (table - table[:8640].mean()) / table[:8640].std()
    first = next(iter(task.eval_batches("test")))
    np.testing.assert_allclose(first["xs"][0, :, 0], scaled[11184:11520], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(first["targets"][1, :, 0], scaled[11521:11545], rtol=1e-5, atol=1e-5)
    assert sum(batch["weights"].sum() for batch in task.eval_batches("test")) == 2857
    assert str(task.series.dates(11520)) == "2017-10-24 00:00:00"


def test_exchange_rates_have_the_splits_of_lstnet(data_file):
    data_dir = data_file("exchange_rate", "exchange_rate.txt.gz").parents[1]
    task = Forecasting(ForecastingConfig(dataset="exchange_rate", window=168, horizon=24), str(data_dir))
    assert task.result_name == "exchange_rate_24"
    # LSTNet counts windows by the one row they are scored on: 191 .. 4551, 4552 .. 6069, 6070 .. 7587 of 7588.
    assert {split: (len(o), o[0] + 23, o[-1] + 23) for split, o in task.origins.items()} == {
        "train": (4361, 191, 4551),
        "validation": (1518, 4552, 6069),
        "test": (1518, 6070, 7587),
    }
    assert np.abs(task.values[:4552]).max(axis=0) == pytest.approx(np.ones(8))


def test_splits_of_a_user_series(tmp_path, values):
    task = make(write(tmp_path, values))
    assert {split: (o[0], o[-1]) for split, o in task.origins.items()} == {
        "train": (7, 56),
        "validation": (60, 76),
        "test": (80, 96),
    }
    assert task.result_name == "csv_mine_multi_4"
    assert make(write(tmp_path, values), column="y").result_name == "csv_mine_y_4"


def test_training_ignores_rows_after_its_split(tmp_path, values):
    changed = values.copy()
    changed[60:] = 1e6
    one, other = make(write(tmp_path, values)), make(write(tmp_path, changed, "other.csv"))
    for step in range(30):
        for key, array in one.train_batch(0, step).items():
            np.testing.assert_array_equal(array, other.train_batch(0, step)[key])
    np.testing.assert_allclose(one.values[:60].mean(axis=0), 0.0, atol=1e-6)
    np.testing.assert_allclose(one.values[:60].std(axis=0), 1.0, rtol=1e-6)


OFF_SCALE = "expected a value of column 'y' on the scale of the training rows, got 9.9692"


@pytest.mark.parametrize(
    ("row", "value", "message"),
    [
        (3, -1e300, "expected a number of at most"),
        (70, 9.96921e36, rf"mine.csv: .*70.*: {OFF_SCALE}"),
        (99, 9.96921e36, rf"mine.csv: .*99.*: {OFF_SCALE}"),
    ],
)
def test_fill_values_of_other_formats_raise(tmp_path, values, row, value, message):
    values[row, 1] = value
    with pytest.raises(UserError, match=message):
        make(write(tmp_path, values))


def evaluated(task, model):
    """Returns metrics of the test split, and their inputs: forecasts (N, K, V, Q), targets (N, K, V)."""
    totals, forecasts, targets = {}, [], []
    for batch in task.eval_batches("test"):
        sums, _ = task.loss(model, batch, (), None)
        for name, (total, weight) in sums.items():
            before = totals.get(name, (0.0, 0.0))
            totals[name] = (before[0] + float(total), before[1] + float(weight))
        real = batch["weights"] > 0
        forecasts.append(np.asarray(model(batch["xs"]))[real])
        targets.append(batch["targets"][real])
    return task.metrics(totals), np.concatenate(forecasts), np.concatenate(targets)


def noisy(xs, *, key=None):
    """Returns an arbitrary forecast (B, 4, 2, 3): the last values with a slope, and an interval around them."""
    last = jnp.asarray(xs)[:, -1:, :, None]
    return last * (1 + 0.1 * jnp.arange(4.0)[None, :, None, None]) + jnp.array([-0.7, 0.1, 0.5])[None, None, None]


def test_metrics_equal_scikit_learn(tmp_path, values, monkeypatch):
    monkeypatch.setattr(forecasting_task, "EVAL_BATCH_SIZE", 6)
    metrics, forecasts, targets = evaluated(make(write(tmp_path, values)), noisy)
    assert len(targets) == 17
    flat, truth = forecasts.reshape(-1, 3), targets.ravel()
    losses = [mean_pinball_loss(truth, flat[:, q], alpha=level) for q, level in enumerate((0.1, 0.5, 0.9))]
    inside = [low <= y <= high for (low, _, high), y in zip(flat, truth, strict=True)]
    expected = {
        "loss": np.mean(losses),
        "mse": mean_squared_error(truth, flat[:, 1]),
        "mae": mean_absolute_error(truth, flat[:, 1]),
        "coverage": 100 * np.mean(inside),
    }
    assert metrics == pytest.approx(expected, rel=1e-5)
    assert 0 < metrics["coverage"] < 100


def test_loss_of_a_mean_is_the_squared_error_at_the_middle_level(tmp_path, values):
    metrics, forecasts, targets = evaluated(make(write(tmp_path, values), point="mean"), noisy)
    flat, truth = forecasts.reshape(-1, 3), targets.ravel()
    outer = [mean_pinball_loss(truth, flat[:, q], alpha=level) for q, level in ((0, 0.1), (2, 0.9))]
    assert metrics["loss"] == pytest.approx((sum(outer) + mean_squared_error(truth, flat[:, 1])) / 3, rel=1e-5)


def test_rse_and_corr_are_of_the_last_step_in_original_units(values, monkeypatch):
    rates = 5.0 + np.exp(0.2 * values) * [1.0, 100.0]
    task = make_exchange(monkeypatch, rates)
    _, forecasts, _ = evaluated(task, noisy)
    largest = np.abs(rates[:60]).max(axis=0)
    truth = rates[80:]  # the rows that LSTNet scores, once each
    answers = forecasts[:, 3, :, 1] * largest
    scores = task.last_step_scores(noisy, "test")
    squared, spread = ((truth - answers) ** 2).sum(), ((truth - truth.mean()) ** 2).sum()
    assert scores["rse"] == pytest.approx(np.sqrt(squared / spread), rel=1e-5)
    expected = np.mean([np.corrcoef(truth[:, v], answers[:, v])[0, 1] for v in range(2)])
    assert scores["corr"] == pytest.approx(expected, rel=1e-5)
    assert task.scoring.reported == ("rse", "corr", "coverage")


def test_correlation_of_constant_and_perfect_forecasts():
    truth = np.random.default_rng(1).normal(size=(30, 2))
    assert forecasting_task.correlation(np.ones((30, 2)), truth) == 0.0
    assert forecasting_task.correlation(3 * truth + 1, truth) == pytest.approx(1.0)
    assert forecasting_task.root_relative_squared_error(truth, truth) == 0.0
    assert forecasting_task.root_relative_squared_error(np.full((30, 2), truth.mean()), truth) == pytest.approx(1.0)


def test_pinball_loss_is_minimal_at_the_quantile():
    targets = jnp.asarray(np.random.default_rng(2).exponential(size=2001))
    candidates = jnp.linspace(0.0, 5.0, 501)
    losses = pinball(jnp.tile(candidates[:, None, None], (1, 2001, 3)), jnp.tile(targets, (501, 1)), (0.1, 0.5, 0.9))
    best = candidates[losses.mean(axis=1).argmin(axis=0)]
    np.testing.assert_allclose(best, np.quantile(targets, (0.1, 0.5, 0.9)), atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "z"}, r"^task.column: .*mine.csv:1: expected a column 'z' in the header, got x, y"),
        (
            {"horizon": 21},
            r"task.window=7 and task.horizon=21: expected to fit into the validation split, got 100 rows",
        ),
        ({"window": 57}, r"task.window=57 and task.horizon=4: expected to fit into the train split"),
        ({"batch_size": 51}, r"task.batch_size: expected at most the 50 training windows, got 51"),
        ({"quantiles": (0.1, 0.9)}, r"quantiles: expected increasing levels around 0.5"),
        ({"quantiles": (0.1, 0.5, 0.8)}, r"quantiles: expected increasing levels around 0.5"),
    ],
)
def test_invalid_settings_raise(tmp_path, values, options, message):
    with pytest.raises(UserError, match=message):
        make(write(tmp_path, values), **options)


def test_window_that_is_not_a_multiple_of_the_segment_raises(tmp_path, values):
    task = make(write(tmp_path, values))
    with pytest.raises(UserError, match=r"model.segment: expected a divisor of task.window=7, got 2"):
        task.model(task.ModelConfig(segment=2), nnx.Rngs(0))
    with pytest.raises(UserError, match=r"csv_file: expected a file with dataset=\"csv\""):
        ForecastingConfig(csv_file="mine.csv")
