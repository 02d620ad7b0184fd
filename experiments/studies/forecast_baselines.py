"""Baselines of forecasting: the last value, and a linear map of the window.

python -m experiments.studies.forecast_baselines --config=configs/forecasting.py:etth1_multi_168

The linear map predicts the next K values of a variable from the T values of its window; the last value of the window is
subtracted from both (NLinear of Zeng et al. 2023). All variables share one matrix. It is fitted by ridge regression
with a penalty that is chosen on the validation split. The intervals of both are quantiles of their training errors.

Reference: Zeng et al., "Are Transformers Effective for Time Series Forecasting?", 2023.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from sklearn.linear_model import Ridge

from experiments import tasks
from experiments.runner import cli, environment, logging
from experiments.runner.evaluation import add_sums
from experiments.schema import UserError
from experiments.tasks.base import Split
from experiments.tasks.forecasting.task import Forecasting

CONFIG = cli.define_config()
DATA_DIR = cli.define_data_dir()
RECORD = flags.DEFINE_bool(
    "record", False, "Whether to write the results to experiments/results/, from committed code.", allow_override=True
)

PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """Maps windows (B, T, V) to quantiles (B, K, V, Q).

    Attributes:
      weights: (T, K), applied to the window minus its last value.
      bias: (K,).
      errors: (K, V, Q), added to the median forecast.
    """

    weights: np.ndarray
    bias: np.ndarray
    errors: np.ndarray

    def __call__(self, xs: np.ndarray, *, key: None = None) -> np.ndarray:
        return self.median(xs)[..., None] + self.errors[None]

    def median(self, xs: np.ndarray) -> np.ndarray:
        """Returns the median forecast (B, K, V)."""
        last = xs[:, -1:]
        change = np.einsum("btv,tk->bkv", xs - last, self.weights, optimize=True)
        return last + change + self.bias[None, :, None]


def last_value(task: Forecasting) -> Baseline:
    """Returns the baseline that repeats the last value."""
    T, K = task.config.window, task.config.horizon
    return with_errors(task, np.zeros((T, K), np.float32), np.zeros(K, np.float32))


def linear(task: Forecasting) -> tuple[Baseline, float]:
    """Returns the ridge regression with the best penalty on the validation split, and the penalty."""
    T, K = task.config.window, task.config.horizon
    batch = task.windows(task.origins["train"])
    last = batch["xs"][:, -1:]
    inputs = (batch["xs"] - last).swapaxes(1, 2).reshape(-1, T)
    targets = (batch["targets"] - last).swapaxes(1, 2).reshape(-1, K)
    best, best_penalty, best_error = None, 0.0, np.inf
    for penalty in PENALTIES:
        fit = Ridge(alpha=penalty, solver="cholesky").fit(inputs, targets)
        weights = np.asarray(fit.coef_, np.float32).reshape(K, T).T
        bias = np.asarray(fit.intercept_, np.float32)
        candidate = Baseline(weights, bias, np.zeros((1, 1, len(task.config.quantiles)), np.float32))
        error = score(task, candidate, "validation")["mse"]
        if error < best_error:
            best, best_penalty, best_error = candidate, penalty, error
    assert best is not None
    return with_errors(task, best.weights, best.bias), best_penalty


def with_errors(task: Forecasting, weights: np.ndarray, bias: np.ndarray) -> Baseline:
    """Returns a baseline with the quantiles of its errors on the training split."""
    levels = task.config.quantiles
    batch = task.windows(task.origins["train"])
    median = Baseline(weights, bias, np.zeros((1, 1, len(levels)), np.float32))
    errors = np.moveaxis(np.quantile(batch["targets"] - median.median(batch["xs"]), levels, axis=0), 0, -1)
    errors[..., levels.index(0.5)] = 0.0
    return Baseline(weights, bias, errors.astype(np.float32))


def score(task: Forecasting, baseline: Baseline, split: Split) -> dict[str, float]:
    """Returns the same metrics of a split as for a trained model."""
    totals: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches(split):
        sums, _ = task.loss(baseline, batch, (), None)
        totals = add_sums(totals, jax.device_get(sums))
    return task.metrics(totals) | task.last_step_scores(baseline, split)


def compare(task: Forecasting, origin: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Fits both baselines, prints their scores and yields a record for each.

    Args:
      task: has the series.
      origin: the "config", "overrides" and "seed" of the records.
    """
    for name in ("naive", "linear"):
        started = time.monotonic()
        baseline, penalty = (last_value(task), None) if name == "naive" else linear(task)
        scores = {split: score(task, baseline, split) for split in ("validation", "test")}
        parameters = 0 if penalty is None else baseline.weights.size + baseline.bias.size
        title = name if penalty is None else f"{name}, {parameters:,} parameters, penalty {penalty:g}"
        for split, values in scores.items():
            shown = [(metric, f"{values[metric]:.5g}") for metric in task.scoring.reported]
            print(logging.table(shown, f"{task.result_name}: {title}, {split} split"))
        yield {
            "task": task.result_name,
            **origin,
            "cell": name,
            "parameters": parameters,
            "test": scores["test"],
            "steps": 0,
            "minutes": round((time.monotonic() - started) / 60, 3),
            "machine": environment.machine(),
            "versions": environment.versions(),
            "commit": environment.commit(),
        }


def main(arguments: Sequence[str]) -> None:
    """Fits and evaluates both baselines, and records them with --record."""
    del arguments
    if RECORD.value:
        environment.require_clean_commit("--record", environment.commit())
    config, config_file, overrides = cli.config_of(CONFIG)
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
    if not isinstance(task, Forecasting):
        raise UserError(f"task.name: expected 'forecasting', got {config.task.name!r}")
    for result in compare(task, {"config": config_file, "overrides": overrides, "seed": config.seed}):
        if RECORD.value:
            print(f"recorded in {logging.record(result, task.scoring.reported)}")


if __name__ == "__main__":
    cli.run(main)
