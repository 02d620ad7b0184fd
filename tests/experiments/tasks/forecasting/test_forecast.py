"""Forecasts of user series: reading, scaling, output, errors."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.forecasting.forecast import (
    choose_series,
    describe,
    differences,
    draw,
    make_forecast,
    title,
    write_csv,
)
from experiments.tasks.forecasting.series import Scaling, read_csv
from experiments.tasks.forecasting.task import Forecasting, ForecastingConfig

ROOT = pathlib.Path(__file__).parents[4]
ROWS, WINDOW, HORIZON = 60, 6, 4


def write(path, values, columns=("OT",)):
    lines = [",".join(("date", *columns))]
    for row, numbers in enumerate(values):
        lines.append(
            f"2024-02-{1 + row // 24:02} {row % 24:02}:00:00," + ",".join(f"{number:.9g}" for number in numbers)
        )
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def make(path, **options):
    config = ForecastingConfig(
        dataset="csv", csv_file=path, window=WINDOW, horizon=HORIZON, batch_size=4, quantiles=(0.1, 0.3, 0.5, 0.7, 0.9)
    )
    task = Forecasting(config, None)
    return task, task.model(task.ModelConfig(hidden_size=4, segment=2, **options), nnx.Rngs(0))


@pytest.fixture
def values():
    return 20.0 + np.random.default_rng(0).normal(size=(ROWS, 1)).cumsum(axis=0)


@pytest.fixture
def run(tmp_path, values):
    return make(write(tmp_path / "own.csv", values))


def test_other_series_are_scaled_by_their_own_rows(tmp_path, run, values):
    task, model = run
    series, column = choose_series(task, write(tmp_path / "other.csv", 7 * values, ("load",)), "load", "date")
    made = make_forecast(task, model, series, column, backtest=False)
    mean, deviation = series.values.mean(), series.values.std()
    expected = model(np.float32((series.values[-WINDOW:] - mean) / deviation)[None])[0, :, 0] * deviation + mean
    np.testing.assert_allclose(made.quantiles, expected, rtol=1e-5)
    assert (column, made.origin, len(made.truth)) == ("load", ROWS, 0)


@pytest.mark.parametrize("named", [True, False])
def test_newer_rows_keep_the_scaling_and_are_reported(tmp_path, values, named):
    path = write(tmp_path / "own.csv", values)
    task, model = make(path, normalization="none")
    task.save_artifacts(tmp_path)
    write(tmp_path / "own.csv", np.concatenate([values, 500.0 + values[:8]]))
    later = Forecasting(task.config, None, tmp_path)
    series, column = choose_series(later, path if named else None, None, None)
    made = make_forecast(later, model, series, column, backtest=False, training_file=not named)
    mean, deviation = values[:36].mean(), values[:36].std()  # the training rows: 60 % of the original rows
    expected = model(np.float32((series.values[-WINDOW:] - mean) / deviation)[None])[0, :, 0] * deviation + mean
    np.testing.assert_allclose(made.quantiles, expected, rtol=1e-5)
    assert differences(later, series, training_file=not named) == [
        "8 rows are newer than the training data; the training scaling is kept"
    ]
    assert differences(task, task.series, training_file=True) == []


def test_changed_series_is_reported_and_keeps_the_scaling(tmp_path, values):
    path = write(tmp_path / "own.csv", values)
    task, model = make(path, normalization="none")
    task.save_artifacts(tmp_path)
    write(tmp_path / "own.csv", 3 * values)
    later = Forecasting(task.config, None, tmp_path)
    np.testing.assert_array_equal(later.scaling.shift, task.scaling.shift)
    for training_file, what in ((True, "the training scaling is kept"), (False, "scaled by its own rows")):
        expected = f"not the series that the run was trained on (own.csv, 60 rows of OT); {what}"
        assert differences(later, later.series, training_file) == [expected]
        scaling = task.scaling if training_file else Scaling.standard(later.series.values)
        made = make_forecast(later, model, later.series, "OT", backtest=False, training_file=training_file)
        window = np.float32(scaling.forward(later.series.values[None, -WINDOW:]))
        np.testing.assert_allclose(made.middle, scaling.inverse(np.asarray(model(window))[0, :, 0, 2]), rtol=1e-5)


def test_forecast_needs_only_the_series(tmp_path, values):
    task, model = make(write(tmp_path / "own.csv", values))
    task.save_artifacts(tmp_path)
    (tmp_path / "own.csv").unlink()
    later = Forecasting(task.config, None, tmp_path)
    made = make_forecast(later, model, *choose_series(later, write(tmp_path / "o.csv", values), None, "date"), False)
    expected = task.scaling.inverse(np.asarray(model(task.values[None, -WINDOW:]))[0, :, 0, 2])
    np.testing.assert_allclose(made.middle, expected, rtol=1e-5)
    with pytest.raises(UserError, match=r"^--csv: expected a series, since the training file .*own.csv does not exist"):
        choose_series(later, None, None, None)


def test_training_series_keeps_its_scaling(run):
    task, model = run
    series, column = choose_series(task, None, None, None)
    made = make_forecast(task, model, series, column, backtest=False)
    expected = task.scaling.inverse(np.asarray(model(task.values[None, -WINDOW:]))[0, :, 0, 2])
    np.testing.assert_allclose(made.middle, expected, rtol=1e-5)


def test_backtests_do_not_use_held_out_rows(tmp_path, values):
    task, model = make(write(tmp_path / "own.csv", values + 1), normalization="none")
    changed = values.copy()
    changed[-HORIZON:] += 100.0
    made = []
    for name, array in (("one", values), ("two", changed)):
        series, column = choose_series(task, write(tmp_path / f"{name}.csv", array), "OT", "date")
        made.append(make_forecast(task, model, series, column, backtest=True))
    np.testing.assert_array_equal(made[0].quantiles, made[1].quantiles)
    np.testing.assert_allclose(made[1].truth, changed[-HORIZON:, 0], rtol=1e-6)
    error = np.abs(made[1].middle - made[1].truth).mean()
    naive = np.abs(changed[-HORIZON - 1, 0] - made[1].truth).mean()
    described = dict(describe(made[1]))
    assert described["mean absolute error"] == f"{error:.6g}"
    assert described["of the last value"] == f"{naive:.6g}"
    assert described["inside the 80 %"] == "0.0 %"


def test_csv_has_dates_and_all_quantiles(tmp_path, run):
    task, model = run
    made = make_forecast(task, model, *choose_series(task, None, None, None), backtest=False)
    write_csv(made, tmp_path / "forecast.csv")
    again = read_csv(tmp_path / "forecast.csv")
    assert again.columns == ("q0.1", "q0.3", "q0.5", "q0.7", "q0.9")
    assert again.label(0) == "2024-02-03 12:00:00"
    np.testing.assert_array_equal(again.values, made.quantiles)
    draw(made, 30, tmp_path / "forecast.png")
    assert (tmp_path / "forecast.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    write_csv(dataclasses.replace(made, point="mean"), tmp_path / "mean.csv")
    assert read_csv(tmp_path / "mean.csv").columns == ("q0.1", "q0.3", "mean", "q0.7", "q0.9")
    assert "OT of own.csv, 4 rows after 2024-02-03 11:00:00: " in title(made, "own.csv")


def test_runs_of_several_variables_need_all_columns(tmp_path, values):
    path = write(tmp_path / "two.csv", np.concatenate([values, values**2], axis=1), ("a", "b"))
    task, model = make(path)
    series, column = choose_series(task, path, "b", "date")
    made = make_forecast(task, model, series, column, backtest=False)
    # The values are squares of about 20: the forecast has the units of the shown variable.
    assert 100 < made.middle.mean() < 2000
    with pytest.raises(UserError, match=r"--column: expected one of a, b, got 'c'"):
        choose_series(task, path, "c", "date")
    with pytest.raises(UserError, match=r"^--csv: .*one.csv:1: expected a column 'b' in the header, got date, a"):
        choose_series(task, write(tmp_path / "one.csv", values, ("a",)), "a", "date")


def test_date_column_is_by_default_that_of_the_run(tmp_path, values):
    path = tmp_path / "years.csv"
    path.write_text("year,OT\n" + "".join(f"{1900 + row},{value!r}\n" for row, (value,) in enumerate(values.tolist())))
    task = Forecasting(
        ForecastingConfig(dataset="csv", csv_file=str(path), date_column="year", window=6, horizon=4, batch_size=4),
        None,
    )
    assert choose_series(task, str(path), None, None)[0].label(ROWS) == str(1900 + ROWS)
    assert choose_series(task, str(path), None, "")[0].label(ROWS) == str(ROWS)
    with pytest.raises(
        UserError, match=r"^--date_column: .*years.csv:1: expected a date column 'date' in the header, "
    ):
        choose_series(task, str(path), None, "date")
    with pytest.raises(UserError, match=r"^--date_column: expected --csv beside it, got 'date' alone$"):
        choose_series(task, None, None, "date")


@pytest.mark.parametrize("level", [1e9 + 10, 1e-9, -1e9, 1e12, 1e100])
def test_numbers_of_any_size_are_written_exactly(tmp_path, run, values, level):
    task, model = run
    scale = 1.0 if 1 < abs(level) < 1e100 else abs(level)
    own = level + scale * (values - values.mean())
    path = tmp_path / "large.csv"
    path.write_text("row,load\n" + "".join(f"{row},{value!r}\n" for row, value in enumerate(own[:, 0].tolist())))
    series, column = choose_series(task, str(path), "load", "")
    np.testing.assert_array_equal(series.values, own)
    made = make_forecast(task, model, series, column, backtest=False)
    mean, deviation = own.mean(), own.std() if scale == 1 else scale * (own / scale).std()
    expected = model(np.float32((own[-WINDOW:] - mean) / deviation)[None])[0, :, 0]
    np.testing.assert_allclose((made.quantiles - mean) / deviation, expected, rtol=1e-4, atol=1e-5)
    write_csv(made, tmp_path / "forecast.csv")
    lines = (tmp_path / "forecast.csv").read_text().splitlines()[1:]
    assert [[float(cell) for cell in line.split(",")[1:]] for line in lines] == made.quantiles.tolist()
    assert title(made, "large.csv") == f"load of large.csv, 4 rows after 59: {own[-1, 0].item()!r}"
    spread = np.ptp(made.quantiles, axis=1)
    medians = [float(numbers.split()[0]) for _, numbers in describe(made)]
    assert (np.abs(medians - made.middle) <= 1e-5 * spread).all()


NAMES = [
    "cost $ and $ more",
    "a^2 $x_1$",
    r"\frac{1}{2} $\alpha$",
    "$",
    "50 % of $10_000$",
    "_private_",
    "two\nlines $",
]


@pytest.mark.parametrize("name", NAMES)
def test_column_names_can_be_any_text(tmp_path, run, values, name):
    task, model = run
    path = tmp_path / "named.csv"
    quoted = '"' + name.replace('"', '""') + '"'
    path.write_text(f"date,{quoted}\n" + "".join(f"{2000 + row},{value}\n" for row, value in enumerate(values[:, 0])))
    series, column = choose_series(task, str(path), name, "date")
    made = make_forecast(task, model, series, column, backtest=True)
    draw(made, 30, tmp_path / "forecast.png")
    assert (tmp_path / "forecast.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert title(made, "named.csv").startswith(f"{name} of named.csv, 4 rows after 2055: ")
    assert describe(made)[0][0] == "2056"


@pytest.mark.parametrize("unit", ["Y", "h"])
def test_dates_after_the_last_year_raise(tmp_path, run, values, unit):
    task, model = run
    dates = np.datetime64("9999-12-31T23") - np.arange(ROWS)[::-1] * np.timedelta64(1, "h")
    cells = [str(9940 + row) if unit == "Y" else str(date).replace("T", " ") + ":00" for row, date in enumerate(dates)]
    path = tmp_path / "late.csv"
    path.write_text("date,OT\n" + "".join(f"{c},{v}\n" for c, v in zip(cells, values[:, 0], strict=True)))
    for backtest in (False, True):
        series, column = choose_series(task, str(path), None, "date")
        with pytest.raises(UserError, match=r"^--csv: expected a forecast before 9999; --date_column= num"):
            make_forecast(task, model, series, column, backtest)


def test_values_off_the_training_scale_raise(tmp_path, values):
    path = write(tmp_path / "own.csv", values)
    task, model = make(path)
    newer = write(tmp_path / "newer.csv", [*values, [9.97e36], *values[:2]])
    series, column = choose_series(task, newer, None, "date")
    with pytest.raises(UserError, match=r"^--csv: expected values on the scale of the series, got [0-9.]+e\+3[0-9] "):
        make_forecast(task, model, series, column, backtest=False)


def test_series_shorter_than_the_window_raises(tmp_path, run, values):
    task, model = run
    series, column = choose_series(task, write(tmp_path / "short.csv", values[:8]), None, "date")
    make_forecast(task, model, series, column, backtest=False)
    with pytest.raises(UserError, match=r"--csv: expected at least 6 rows, the run's window, before the 4 .* got 4"):
        make_forecast(task, model, series, column, backtest=True)
    series, column = choose_series(task, write(tmp_path / "shorter.csv", values[:5]), None, "date")
    with pytest.raises(UserError, match=r"^--csv: expected at least 6 rows, the run's window, got 5$"):
        make_forecast(task, model, series, column, backtest=False)


def start(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"experiments.{module}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_training_and_forecasting_a_csv_from_the_command_line(tmp_path):
    rows = np.arange(400)
    values = 20 + 5 * np.sin(2 * np.pi * rows / 24)[:, None]
    path, runs = write(tmp_path / "mine.csv", values), str(tmp_path / "run")
    trained = start(
        "train", "--config=configs/forecasting.py:smoke", f"--workdir={runs}", "--devices=1",
        "--config.task.dataset=csv", f"--config.task.csv_file={path}", "--config.task.column=OT",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert "csv_mine_uni_6: finished" in trained.stdout
    swept = start(
        "sweep", "--config=configs/forecasting.py:smoke", f"--workdir={tmp_path}/sweep", "--grid=model.cell=gru,lstm",
        "--config.task.dataset=csv", f"--config.task.csv_file={path}", "--config.task.column=OT",
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.splitlines()[-4].split()[-6:] == ["test", "mse", "test", "mae", "test", "coverage"]
    done = start("forecast", f"--workdir={runs}", f"--csv={path}", "--column=OT", "--backtest")
    assert done.returncode == 0, done.stderr
    assert "OT of" in done.stdout
    assert (tmp_path / "run" / "forecast.png").exists()
    refused = start("forecast", f"--workdir={runs}", f"--csv={path}", "--column=TO")
    assert refused.returncode == 1
    assert refused.stderr == f"error: --column: {path}:1: expected a column 'TO' in the header, got date, OT\n"
    alone = start("forecast", f"--workdir={runs}", "--date_column=")
    assert (alone.returncode, alone.stderr) == (1, "error: --date_column: expected --csv beside it, got '' alone\n")
