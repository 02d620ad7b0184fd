"""What a trained forecast has to beat: the last value, and a linear map of the window.

python -m experiments.studies.forecast_baselines --config=configs/forecasting.py:etth1_multi_168

The linear map takes the T values of a variable's window, less the last one, to the K values that follow, less the same
(NLinear of Zeng et al. 2023, here in closed form): one matrix for all variables, by ridge regression, its penalty
chosen on the validation split. Both get intervals from the quantiles of their training errors.

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
RECORD = flags.DEFINE_bool("record", False, "Whether to add both rows to experiments/results/<task>.jsonl.")

PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)


@dataclasses.dataclass(frozen=True, eq=False)
class Baseline:
    """Windows (B, T, V) -> quantiles (B, K, V, Q): a forecast, and errors around it.

    Attributes:
      weights: (T, K), from the window less its last value to the forecast less the same.
      bias: (K,).
      errors: (K, V, Q), added to the forecast; zero for the median.
    """

    weights: np.ndarray
    bias: np.ndarray
    errors: np.ndarray

    def __call__(self, xs: np.ndarray, *, key: None = None) -> np.ndarray:
        return self.median(xs)[..., None] + self.errors[None]

    def median(self, xs: np.ndarray) -> np.ndarray:
        """Forecasts (B, K, V)."""
        last = xs[:, -1:]
        change = np.einsum("btv,tk->bkv", xs - last, self.weights, optimize=True)
        return last + change + self.bias[None, :, None]


def last_value(task: Forecasting) -> Baseline:
    """Every value to come is the last one."""
    T, K = task.config.window, task.config.horizon
    return with_errors(task, np.zeros((T, K), np.float32), np.zeros(K, np.float32))


def linear(task: Forecasting) -> tuple[Baseline, float]:
    """Returns the ridge regression whose penalty does best on the validation split, and that penalty."""
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
    """Completes a forecast with the quantiles of its errors on the training split."""
    levels = task.config.quantiles
    batch = task.windows(task.origins["train"])
    certain = Baseline(weights, bias, np.zeros((1, 1, len(levels)), np.float32))
    errors = np.moveaxis(np.quantile(batch["targets"] - certain.median(batch["xs"]), levels, axis=0), 0, -1)
    errors[..., levels.index(0.5)] = 0.0
    return Baseline(weights, bias, errors.astype(np.float32))


def score(task: Forecasting, baseline: Baseline, split: Split) -> dict[str, float]:
    """Returns the metrics of a split, those of a trained model."""
    totals: dict[str, tuple[float, float]] = {}
    for batch in task.eval_batches(split):
        sums, _ = task.loss(baseline, batch, (), None)
        totals = add_sums(totals, jax.device_get(sums))
    return task.metrics(totals) | task.last_step_scores(baseline, split)


def compare(task: Forecasting, origin: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Fits both and prints their scores; yields the record of each.

    Args:
      task: whose series to forecast.
      origin: "config", "overrides" and "seed", as records have them.
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
    """Compares on the series that the configuration names, and records what comes of it."""
    del arguments
    config, config_file, overrides = cli.config_of(CONFIG)
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
    if not isinstance(task, Forecasting):
        raise UserError(f"task.name: expected 'forecasting', got {config.task.name!r}")
    for result in compare(task, {"config": config_file, "overrides": overrides, "seed": config.seed}):
        if RECORD.value:
            print(f"recorded in {logging.record(result, task.scoring.reported)}")


if __name__ == "__main__":
    cli.run(main)
