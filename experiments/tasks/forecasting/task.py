"""Forecasting of time series: ETTh1 and ETTh2, exchange rates, or your own CSV file.

A forecast has quantiles of the next K values of each variable, given the last T values. MSE, MAE, RSE and CORR score
its median, or the mean in its place (`point`), coverage its outermost quantiles. Splits are in time order:

    ETTh1, ETTh2      12 / 4 / 4 months of 30 days, standardized by the training rows. MSE and MAE over all K steps on
                      that scale (Zhou et al. 2021), for all seven variables or for `column`.
    exchange rates    60 / 20 / 20 %, divided by the largest training value of each variable. RSE and CORR of step K
                      in the original units (Lai et al. 2018).
    CSV               60 / 20 / 20 %, standardized by the training rows. MSE and MAE over all K steps.

Windows of the validation and test splits may read rows before their split, but all scored rows are in it. A window is
identified by its origin, the first forecast row.

References: Zhou et al., "Informer: Beyond Efficient Transformer for Long Sequence Time-Series Forecasting", 2021; Lai
et al., "Modeling Long- and Short-Term Temporal Patterns with Deep Neural Networks", 2018.
"""

import dataclasses
import functools
import pathlib
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import epoch_batch
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Checked, Count, Rate, UserError, nearest, require
from experiments.tasks.base import (
    SPLITS,
    Batch,
    Carry,
    Scoring,
    Split,
    Sums,
    Task,
    mean,
    padded_batches,
    read_artifacts,
)
from experiments.tasks.forecasting.model import Forecaster, ForecasterConfig
from experiments.tasks.forecasting.series import MissingColumnError, Scaling, Series, read_csv, read_table, windows

CURRENCIES = ("Australia", "Britain", "Canada", "Switzerland", "China", "Japan", "New Zealand", "Singapore")
ETT_ROWS = (8640, 11520, 14400)
EVAL_BATCH_SIZE = 250

LARGEST_SCALED = 1e15
"""Sums of squares of larger scaled values overflow in float32."""


@dataclasses.dataclass(frozen=True)
class ForecastingConfig(Checked):
    """The forecasting task.

    Attributes:
      dataset: "etth1", "etth2", "exchange_rate", or "csv" for `csv_file`.
      csv_file: your own CSV file, with a header.
      date_column: its column of evenly spaced dates; empty for none.
      column: the variable to forecast; empty for all.
      window: T, the input rows.
      horizon: K, the forecast rows.
      quantiles: the Q levels, increasing, 0.5 among them and symmetric around it.
      point: what the forecast at level 0.5 is, the "median" by the pinball loss or the "mean" by the squared error. The
        model keeps it between the other quantiles.
      batch_size: windows in a training batch.
    """

    name: Literal["forecasting"] = "forecasting"
    dataset: Literal["etth1", "etth2", "exchange_rate", "csv"] = "etth1"
    csv_file: str = ""
    date_column: str = "date"
    column: str = ""
    window: Count = 336
    horizon: Count = 24
    quantiles: tuple[Rate, ...] = (0.1, 0.5, 0.9)
    point: Literal["median", "mean"] = "median"
    batch_size: Count = 32

    def check(self):
        own = self.dataset == "csv"
        require("csv_file", bool(self.csv_file) == own, 'a file with dataset="csv", else nothing', self.csv_file)
        levels = self.quantiles
        mirrored = all(abs(low + high - 1) < 1e-9 for low, high in zip(levels, reversed(levels), strict=True))
        sound = list(levels) == sorted(set(levels)) and 0.5 in levels and len(levels) > 1 and 0 not in levels
        require("quantiles", sound and mirrored, "increasing levels around 0.5 such as (0.1, 0.5, 0.9)", levels)


class Forecasting(Task):
    """Quantiles of the next K values from the last T."""

    Config, ModelConfig = ForecastingConfig, ForecasterConfig
    user_file = "csv_file"
    artifact_names = ("columns", "split_ends", "shift", "scale")
    command = "forecast"
    not_for = (
        "Decisions without a test on your own series (`forecast --backtest`): scores and intervals are of the series "
        "that it was trained on."
    )

    @classmethod
    def scoring_for(cls, config: ForecastingConfig) -> Scoring:
        reported = ("rse", "corr") if config.dataset == "exchange_rate" else ("mse", "mae")
        return Scoring("loss", "min", (*reported, "coverage"))

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: the variables, the ends of the splits, and the scaling by the training rows."""
        config, values = self.config, self.series.values
        rows = len(values)
        ends = ETT_ROWS if config.dataset.startswith("ett") else (int(0.6 * rows), int(0.8 * rows), rows)
        fit = Scaling.largest if config.dataset == "exchange_rate" else Scaling.standard
        scaling = fit(values[: ends[0]])
        self._check_scaled(scaling.forward(values[: ends[-1]]))
        for split in SPLITS:
            if len(self._origins(split, ends)) == 0:
                needed = f"task.window={config.window} and task.horizon={config.horizon}"
                raise UserError(f"{needed}: expected to fit into the {split} split, got {rows} rows in all")
        count = len(self._origins("train", ends))
        require(
            "task.batch_size", config.batch_size <= count, f"at most the {count} training windows", config.batch_size
        )
        return {
            "columns": list(self.series.columns),
            "split_ends": list(ends),
            "shift": scaling.shift.tolist(),
            "scale": scaling.scale.tolist(),
        }

    def _check_scaled(self, scaled: np.ndarray) -> None:
        """Refuses scaled values (N, V) whose squares would overflow, such as fill values of another format."""
        row, column = np.unravel_index(np.abs(scaled).argmax(), scaled.shape)
        if abs(scaled[row, column]) > LARGEST_SCALED:
            name, value = self.series.columns[column], self.series.values[row, column]
            place = self.config.csv_file or self.config.dataset
            raise UserError(
                f"{place}: {self.series.label(int(row))}: expected a value of column {name!r} on the scale of the "
                f"training rows, got {value:g}; if it stands for a missing value, fill it in"
            )

    @property
    def dataset(self) -> Dataset | None:
        names = {"etth1": "ett", "etth2": "ett", "exchange_rate": "exchange_rate"}
        return REGISTRY[names[self.config.dataset]] if self.config.dataset in names else None

    def fingerprint(self) -> Fingerprint:
        """Returns the fingerprint of the rows up to the end of the last split. Newer rows do not change it."""
        name = pathlib.Path(self.config.csv_file).name or self.config.dataset
        return fingerprint_of(self.series, self.ends[-1], name)

    def check_data(self, folder: pathlib.Path, option: str) -> None:
        super().check_data(folder, option)
        content = read_artifacts(folder)
        later = 0 if content is None else len(self.series.values) - content["artifacts"]["split_ends"][-1]
        if later > 0 and self.config.csv_file:
            path = self.config.csv_file
            warnings.warn(f"{path} has {later} rows more than {folder} was trained on; they are not used", stacklevel=2)

    @property
    def ends(self) -> tuple[int, int, int]:
        """The ends of the training, validation and test splits, exclusive."""
        train, validation, test = self.artifacts["split_ends"]
        return train, validation, test

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the V variables."""
        return tuple(self.artifacts["columns"])

    @property
    def scaling(self) -> Scaling:
        return Scaling(np.array(self.artifacts["shift"]), np.array(self.artifacts["scale"]))

    @property
    def scored(self) -> slice:
        """The scored steps of K."""
        return slice(-1, None) if self.config.dataset == "exchange_rate" else slice(None)

    @functools.cached_property
    def series(self) -> Series:
        """The current series, including newer rows."""
        series = load_series(self.config, self.data_dir)
        known = self.artifacts.get("columns", series.columns)
        if not set(known) <= set(series.columns):
            return series
        return dataclasses.replace(
            series, values=series.values[:, [series.columns.index(name) for name in known]], columns=tuple(known)
        )

    @functools.cached_property
    def values(self) -> np.ndarray:
        """The scaled series: (N, V) float32."""
        return self.scaling.forward(self.series.values).astype(np.float32)

    @functools.cached_property
    def origins(self) -> dict[Split, np.ndarray]:
        """The origins of each split's windows."""
        return {split: self._origins(split, self.ends) for split in SPLITS}

    def newer_rows(self, series: Series) -> int | None:
        """Returns the number of rows after the training data; None if the series does not contain the training data."""
        known = self.ends[-1]
        recorded = self.recorded or self.fingerprint()
        if len(series.values) < known or fingerprint_of(series, known, "").sha256 != recorded.sha256:
            return None
        return len(series.values) - known

    @property
    def result_name(self) -> str:
        own = self.config.dataset == "csv"
        name = f"csv_{_slug(pathlib.Path(self.config.csv_file).stem)}" if own else self.config.dataset
        if self.config.dataset != "exchange_rate":
            name += {"": "_multi", "OT": "_uni"}.get(self.config.column, f"_{_slug(self.config.column)}")
        elif self.config.column:
            name += f"_{_slug(self.config.column)}"
        return f"{name}_{self.config.horizon}"

    def model(self, config: ForecasterConfig, rngs: nnx.Rngs) -> Forecaster:
        whole = self.config.window % config.segment == 0
        require("model.segment", whole, f"a divisor of task.window={self.config.window}", config.segment)
        sizes = self.config.window, self.config.horizon, len(self.columns)
        return Forecaster(config, *sizes, self.config.quantiles, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        weights = np.ones(self.batch_size, np.float32)
        return self.windows(self.batch_indices(seed, step)) | {"weights": weights}

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        """Returns the origins (B,) of a step's windows."""
        origins = self.origins["train"]
        return origins[epoch_batch(len(origins), self.batch_size, seed, step)]

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        for batch in padded_batches({"origins": self.origins[split]}, EVAL_BATCH_SIZE):
            yield self.windows(batch["origins"]) | {"weights": batch["weights"]}

    def windows(self, origins: np.ndarray) -> Batch:
        """Returns the scaled windows of origins (B,): xs (B, T, V) and targets (B, K, V)."""
        xs, targets = windows(self.values, origins, self.config.window, self.config.horizon)
        return {"xs": xs, "targets": targets}

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        """Returns the loss, MSE, MAE and coverage. `model` maps windows (B, T, V) to quantiles (B, K, V, Q).

        The loss is the mean over the levels of the pinball loss, or, at level 0.5 and with `point="mean"`, of the
        squared error.
        """
        forecasts, targets, weights = model(batch["xs"], key=key), batch["targets"], batch["weights"]
        middle = self.config.quantiles.index(0.5)
        errors = forecasts[..., middle] - targets
        of_levels = pinball(forecasts, targets, self.config.quantiles)
        if self.config.point == "mean":
            of_levels = of_levels.at[..., middle].set(jnp.square(errors))
        losses = {
            "loss": of_levels.mean(axis=-1),
            "mse": jnp.square(errors),
            "mae": jnp.abs(errors),
            "coverage": (forecasts[..., 0] <= targets) & (targets <= forecasts[..., -1]),
        }
        scored = {name: values if name == "loss" else values[:, self.scored] for name, values in losses.items()}
        count = weights.sum()
        sums = {name: ((values.mean(axis=(1, 2)) * weights).sum(), count) for name, values in scored.items()}
        return sums, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {**{name: mean(sums, name) for name in ("loss", "mse", "mae")}, "coverage": 100 * mean(sums, "coverage")}

    def scores(self, model: Any, split: Split) -> dict[str, float]:
        graphdef, params = nnx.split(model)
        return self.last_step_scores(lambda xs: predict(graphdef, params, xs), split)

    def last_step_scores(self, model: Callable[[np.ndarray], Any], split: Split) -> dict[str, float]:
        """Returns RSE and CORR of step K of the exchange rates in original units; nothing for other series.

        Args:
          model: maps windows (B, T, V) to quantiles (B, K, V, Q).
          split: the split to score.
        """
        if self.config.dataset != "exchange_rate":
            return {}
        middle, forecasts, targets = self.config.quantiles.index(0.5), [], []
        for batch in self.eval_batches(split):
            real = batch["weights"] > 0
            forecasts.append(np.asarray(model(batch["xs"]))[real, -1, :, middle])
            targets.append(batch["targets"][real, -1])
        in_rates = [self.scaling.inverse(np.concatenate(arrays)) for arrays in (forecasts, targets)]
        return {"rse": root_relative_squared_error(*in_rates), "corr": correlation(*in_rates)}

    def _origins(self, split: Split, ends: Sequence[int]) -> np.ndarray:
        """Returns the origins of all windows of a split, given the ends of the splits.

        All scored rows of a window are in the split.
        """
        T, K = self.config.window, self.config.horizon
        train, validation, test = ends
        start, end = {"train": (T, train), "validation": (train, validation), "test": (validation, test)}[split]
        if split != "train" and self.scored.start is not None:
            start -= K - 1
        return np.arange(max(start, T), end - K + 1)


def load_series(config: ForecastingConfig, data_dir: str | None) -> Series:
    """Returns the series of a configuration, with all variables or only `config.column`."""
    columns = (config.column,) if config.column else ()
    if config.dataset == "csv":
        return _read_columns(config.csv_file, columns, config.date_column)
    if config.dataset == "exchange_rate":
        series = read_table(fetch("exchange_rate", "exchange_rate.txt.gz", data_dir), CURRENCIES)
        if not columns:
            return series
        known = config.column in CURRENCIES
        near = nearest(config.column, CURRENCIES)
        require("task.column", known, f"one of {', '.join(CURRENCIES)}{near}", config.column)
        return Series(series.values[:, [CURRENCIES.index(config.column)]], columns)
    path = fetch("ett", {"etth1": "ETTh1.csv", "etth2": "ETTh2.csv"}[config.dataset], data_dir)
    return _read_columns(path, columns, "date")


def _read_columns(path: str | pathlib.Path, columns: Sequence[str], date_column: str) -> Series:
    try:
        return read_csv(path, columns, date_column)
    except MissingColumnError as error:
        raise UserError(f"task.{'date_column' if error.is_date else 'column'}: {error}") from None


def fingerprint_of(series: Series, rows: int, name: str) -> Fingerprint:
    """Returns the fingerprint of the first rows of a series."""
    values, names = series.values[:rows], ", ".join(series.columns)
    arrays = (np.frombuffer(names.encode(), np.uint8), values)
    return fingerprint.of_arrays(f"{name}, {len(values):,} rows of {names}", arrays)


@functools.partial(jax.jit, static_argnums=0)
def predict(graphdef: Any, params: Any, xs: jax.Array) -> jax.Array:
    """Returns the quantiles (B, K, V, Q) of windows (B, T, V) by a model that `nnx.split` split."""
    return nnx.merge(graphdef, params)(xs)


def root_relative_squared_error(forecasts: np.ndarray, targets: np.ndarray) -> float:
    """Returns RSE = √(Σ(y - ŷ)² / Σ(y - ȳ)²) over times and variables of forecasts and targets (N, V)."""
    return float(np.sqrt(np.square(targets - forecasts).sum() / np.square(targets - targets.mean()).sum()))


def correlation(forecasts: np.ndarray, targets: np.ndarray) -> float:
    """Returns CORR, the mean over varying variables of the correlation of forecasts and targets (N, V)."""
    p, y = forecasts - forecasts.mean(axis=0), targets - targets.mean(axis=0)
    varying = np.square(y).sum(axis=0) > 0
    norms = np.sqrt(np.square(p).sum(axis=0) * np.square(y).sum(axis=0))
    return float(((p * y).sum(axis=0) / np.where(norms > 0, norms, 1.0))[varying].mean())


def pinball(forecasts: jax.Array, targets: jax.Array, levels: Sequence[float]) -> jax.Array:
    """Returns the quantile loss max(τ (y - q), (τ - 1)(y - q)). Its mean is minimal at the τ-quantile of y.

    Args:
      forecasts: (..., Q), the q of each level.
      targets: (...), y.
      levels: the Q levels τ.

    Returns:
      (..., Q).

    Reference: Koenker and Bassett, "Regression Quantiles", 1978.
    """
    errors = targets[..., None] - forecasts
    taus = jnp.asarray(levels).reshape((1,) * targets.ndim + (-1,))
    return jnp.maximum(taus * errors, (taus - 1) * errors)


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()
