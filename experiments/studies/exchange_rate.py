"""What can be learned about exchange rates: the last value, averages and a linear map, with and without a wrong rate.

python -m experiments.studies.exchange_rate

One row of the test split has a wrong rate: 0.23795 for China, between 0.16124 and 0.16120. The last value repeats the
error, and an average reduces it. CORR gives each currency the same weight, and China hardly moves: one row can decide
CORR. All forecasts are scored on the rates as published, and with this rate replaced by the mean of its neighbors.

The explained share is R² = 1 - Σ(y - ŷ)² / Σ(y - x)², where x is the last value: the share of the squared change that a
forecast predicts. It is 0 for the last value. The scores are written to runs/studies/exchange_rate.json, or with
--record to experiments/results/studies/.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments.reporting.tables import table
from experiments.runner import cli
from experiments.studies import results
from experiments.studies.forecast_baselines import linear
from experiments.tasks.base import Split
from experiments.tasks.forecasting.task import (
    CURRENCIES,
    Forecasting,
    ForecastingConfig,
    correlation,
    root_relative_squared_error,
)

flags.adopt_module_key_flags(results)
flags.declare_key_flag("record")  # also defined by forecast_baselines
DATA_DIR = cli.define_data_dir()

HORIZONS = (3, 6, 12, 24)
WINDOW = 168
DAYS = {"last value": 1, "mean of 2 days": 2, "mean of 5 days": 5}
EVALUATED: tuple[Split, ...] = ("validation", "test")
CHINA = CURRENCIES.index("China")


def main(arguments: Sequence[str]) -> None:
    """Scores all forecasts, writes exchange_rate.json and prints the scores."""
    del arguments
    found = results.measured("exchange_rate", lambda: measure(DATA_DIR.value))["scores"]
    print(table(list(found[0]), ([_text(value) for value in score.values()] for score in found)))


def measure(data_dir: str | None) -> dict[str, Any]:
    """Returns the wrong rate with its neighbors, by row, and the scores of each horizon, split and forecast."""
    found, rates = [], {}
    for horizon in HORIZONS:
        config = ForecastingConfig(dataset="exchange_rate", window=WINDOW, horizon=horizon)
        task = Forecasting(config, data_dir)
        corrected = copy.copy(task)
        values = task.series.values
        row = largest_spike(values[:, CHINA])
        rates = {str(near): float(values[near, CHINA]) for near in range(row - 1, row + 2)}
        corrected.series = dataclasses.replace(task.series, values=without_spike(values, row))
        fitted, _ = linear(task)
        found += [*scores(task, fitted.median, "as published"), *scores(corrected, fitted.median, "corrected")]
    return {"rates": rates, "scores": found}


def largest_spike(values: np.ndarray) -> int:
    """Returns the row of values (N,) that differs most, relative to them, from both of its neighbors."""
    logs = np.log(values)
    from_both = np.minimum(np.abs(logs[1:-1] - logs[:-2]), np.abs(logs[1:-1] - logs[2:]))
    return int(np.argmax(from_both)) + 1


def without_spike(values: np.ndarray, row: int) -> np.ndarray:
    """Returns values (N, V) with China's rate of a row replaced by the mean of its neighbors."""
    corrected = values.copy()
    corrected[row, CHINA] = (values[row - 1, CHINA] + values[row + 1, CHINA]) / 2
    return corrected


def scores(
    task: Forecasting, linear_map: Callable[[np.ndarray], np.ndarray], rates: str
) -> Iterator[dict[str, str | int | float]]:
    """Yields the scores of each forecast on the validation and test splits.

    Args:
      task: has the series.
      linear_map: maps windows (B, T, V) to forecasts (B, K, V).
      rates: the name of the series.
    """
    values, K = task.series.values, task.config.horizon
    for split in EVALUATED:
        origins = task.origins[split]
        last, targets = values[origins - 1], values[origins + K - 1]
        forecasts = {name: values[origins[:, None] - 1 - np.arange(days)].mean(axis=1) for name, days in DAYS.items()}
        forecasts["linear map"] = task.scaling.inverse(linear_map(task.windows(origins)["xs"])[:, -1])
        for name, forecast in forecasts.items():
            yield {
                "horizon": K,
                "split": split,
                "rates": rates,
                "forecast": name,
                "rse": root_relative_squared_error(forecast, targets),
                "corr": correlation(forecast, targets),
                "corr of China": correlation(forecast[:, [CHINA]], targets[:, [CHINA]]),
                "explained": explained(forecast, targets, last),
            }


def explained(forecasts: np.ndarray, targets: np.ndarray, last: np.ndarray) -> float:
    """Returns R² = 1 - Σ(y - ŷ)² / Σ(y - x)² of forecasts ŷ, targets y and last values x, each (N, V)."""
    return float(1 - np.square(targets - forecasts).sum() / np.square(targets - last).sum())


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    cli.run(main)
