"""Forecasts of a series by a trained model: its choice and scaling, the table, the CSV file and the picture."""

import csv
import dataclasses
import datetime
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from experiments import files
from experiments.figures import png, verbatim
from experiments.schema import UserError, nearest
from experiments.tasks.forecasting.series import MissingColumnError, Scaling, Series, read_csv
from experiments.tasks.forecasting.task import Forecasting, predict

SHOWN_ROWS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """Quantiles of the next K values of one variable.

    Attributes:
      series: the series, with the true values after the origin in a backtest.
      column: the variable.
      origin: the first forecast row.
      levels: the Q quantile levels.
      quantiles: (K, Q) float64, in the units of the series.
      point: what the values at level 0.5 are, "median" or "mean".
    """

    series: Series
    column: str
    origin: int
    levels: tuple[float, ...]
    quantiles: np.ndarray
    point: str = "median"

    @property
    def history(self) -> np.ndarray:
        """All known values of the variable: (N,)."""
        return self.series.values[:, self.series.columns.index(self.column)]

    @property
    def middle(self) -> np.ndarray:
        """The values at level 0.5: (K,)."""
        return self.quantiles[:, self.levels.index(0.5)]

    @property
    def truth(self) -> np.ndarray:
        """The true values of the forecast rows: (K,), or (0,) if unknown."""
        return self.history[self.origin :]

    def rows(self) -> list[tuple[str, ...]]:
        """Returns date and quantiles of every forecast row, as the shortest text of the same float64."""
        labels = (self.series.label(self.origin + k) for k in range(len(self.quantiles)))
        return [(label, *map(repr, row.tolist())) for label, row in zip(labels, self.quantiles, strict=True)]


def choose_series(
    task: Forecasting, path: str | None, column: str | None, date_column: str | None
) -> tuple[Series, str]:
    """Reads the series to forecast. A run of one variable can forecast any variable; others need all their variables.

    Args:
      task: the run's task.
      path: a CSV file; None for the series that the run was trained on.
      column: the variable; None for the run's own, or its first one.
      date_column: the date column of the CSV file; empty for none; None for that of the run.

    Returns:
      the series, with as many variables as the run's, and the variable to show.

    Raises:
      UserError: the series cannot be read, lacks a variable, or a flag does not fit it.
    """
    own = task.columns
    if path is not None:
        single = len(own) == 1
        dates = task.config.date_column if date_column is None else date_column
        try:
            series = read_csv(path, (column or own[0],) if single else own, dates)
        except MissingColumnError as error:
            flag = "--date_column" if error.is_date else "--column" if single else "--csv"
            raise UserError(f"{flag}: {error}") from None
    else:
        if date_column is not None:
            raise UserError(f"--date_column: expected --csv beside it, got {date_column!r} alone")
        own_path = task.config.csv_file
        if own_path and not pathlib.Path(own_path).exists():
            raise UserError(f"--csv: expected a series, since the training file {own_path} does not exist")
        series = task.series
    shown = column or series.columns[0]
    if shown not in series.columns:
        near = nearest(shown, series.columns)
        raise UserError(f"--column: expected one of {', '.join(series.columns)}{near}, got {shown!r}")
    return series, shown


def differences(task: Forecasting, series: Series, training_file: bool) -> list[str]:
    """Returns how a series differs from the training series and how it is scaled; nothing if it does not differ."""
    newer, known = task.newer_rows(series), task.recorded or task.fingerprint()
    if newer is not None:
        return [f"{newer} rows are newer than the training data; the training scaling is kept"] if newer else []
    scaling = "the training scaling is kept" if training_file else "scaled by its own rows"
    return [f"not the series that the run was trained on ({known.description}); {scaling}"]


def make_forecast(
    task: Forecasting, model: nnx.Module, series: Series, column: str, backtest: bool, training_file: bool = False
) -> Forecast:
    """Forecasts the K rows after the end of a series, or its last K rows in a backtest.

    The training series, also with newer rows, has the training scaling. Others are scaled by the rows before the
    origin.

    Args:
      task: the run's task.
      model: its trained model.
      series: from `choose_series`.
      column: the variable.
      backtest: whether to hold out the last K rows and forecast them.
      training_file: whether the series comes from the training file, which has the training scaling in any case.

    Raises:
      UserError: the series is shorter than the window, or its values or dates leave the range of a forecast.
    """
    T, K = task.config.window, task.config.horizon
    origin = len(series.values) - (K if backtest else 0)
    if origin < T:
        held = f", before the {K} that --backtest holds out" if backtest else ""
        raise UserError(f"--csv: expected at least {T} rows, the run's window{held}, got {max(origin, 0)}")
    _check_last_date(series, origin + K - 1)
    own = training_file or task.newer_rows(series) is not None
    scaling = task.scaling if own else Scaling.standard(series.values[:origin])
    window = scaling.forward(series.values[origin - T : origin])
    graphdef, params = nnx.split(model)
    quantiles = np.asarray(predict(graphdef, params, window[None].astype(np.float32)))[0]
    if not np.isfinite(quantiles).all():
        raise UserError(f"--csv: expected values on the scale of the series, got {np.abs(window).max():g} times it")
    unscaled = scaling.inverse(quantiles.swapaxes(1, 2)).swapaxes(1, 2)
    shown = unscaled[:, series.columns.index(column)]
    return Forecast(series, column, origin, task.config.quantiles, shown, task.config.point)


def _check_last_date(series: Series, row: int) -> None:
    """Refuses a forecast whose last row is after the last year that dates and the axis of a plot can have."""
    try:
        late = series.dates is not None and series.dates(row).year >= datetime.MAXYEAR
    except (ValueError, OverflowError):
        late = True
    if late:
        raise UserError(f"--csv: expected a forecast before {datetime.MAXYEAR}; --date_column= numbers the rows")


def title(forecast: Forecast, source: str) -> str:
    """Returns the title of the table: the variable, the source of the series, and its last row."""
    last = f"{forecast.series.label(forecast.origin - 1)}: {forecast.history[forecast.origin - 1].item()!r}"
    return f"{forecast.column} of {source}, {len(forecast.quantiles)} rows after {last}"


def describe(forecast: Forecast) -> list[tuple[str, str]]:
    """Returns the first rows as (date, quantiles), and in a backtest the errors."""
    share, count = 100 * (forecast.levels[-1] - forecast.levels[0]), len(forecast.quantiles)
    numbers = rounded(forecast.quantiles[:SHOWN_ROWS])
    points = [row[forecast.levels.index(0.5)] for row in numbers]
    width = max(map(len, points))
    lines = [
        (
            forecast.series.label(forecast.origin + k),
            f"{point:>{width}}   {share:.0f} % between {row[0]} and {row[-1]}",
        )
        for k, (point, row) in enumerate(zip(points, numbers, strict=True))
    ]
    if count > SHOWN_ROWS:
        lines.append(("...", f"{count - SHOWN_ROWS} more rows"))
    truth = forecast.truth
    if len(truth):
        last_value = forecast.history[forecast.origin - 1]
        inside = (forecast.quantiles[:, 0] <= truth) & (truth <= forecast.quantiles[:, -1])
        lines.append(("mean absolute error", f"{np.abs(forecast.middle - truth).mean():.6g}"))
        lines.append(("of the last value", f"{np.abs(last_value - truth).mean():.6g}"))
        lines.append((f"inside the {share:.0f} %", f"{100 * inside.mean():.1f} %"))
    return lines


def rounded(quantiles: np.ndarray) -> list[list[str]]:
    """Returns quantiles (K, Q) as text, with six digits of the smallest spread of a row."""
    spread = float(np.ptp(quantiles, axis=1).min())
    decimals = 5 - math.floor(math.log10(spread)) if 0 < spread < math.inf else None
    if decimals is None or not 0 <= decimals <= 12:  # no fixed-point notation
        return [
            [repr(value if decimals is None else round(value, decimals)) for value in row] for row in quantiles.tolist()
        ]
    return [[f"{value:.{decimals}f}" for value in row] for row in quantiles.tolist()]


def write_csv(forecast: Forecast, path: pathlib.Path) -> None:
    """Writes date and quantiles of all rows. The column of level 0.5 is named "mean" if it is one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["mean" if level == 0.5 and forecast.point == "mean" else f"q{level:g}" for level in forecast.levels]
    writer.writerow(["date" if forecast.series.dates else "row", *names])
    writer.writerows(forecast.rows())
    files.write_bytes(path, text.getvalue().encode())


def draw(forecast: Forecast, past: int, path: pathlib.Path) -> None:
    """Writes a PNG of the last `past` rows, the median or mean, the intervals, and the true values if known."""
    import matplotlib.dates

    start, end = max(forecast.origin - past, 0), forecast.origin + len(forecast.quantiles)
    dates = forecast.series.dates
    times = np.array([row if dates is None else dates(row) for row in range(start, end)])
    before, after = times[: forecast.origin - start], times[forecast.origin - start :]

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(before, forecast.history[start : forecast.origin], color="black", linewidth=1, label="history")
        if len(forecast.truth):
            axes.plot(after, forecast.truth, color="black", linewidth=1, linestyle=":", label="truth")
        for low, high in _intervals(forecast.levels):
            share = 100 * (forecast.levels[high] - forecast.levels[low])
            band = (forecast.quantiles[:, low], forecast.quantiles[:, high])
            axes.fill_between(after, *band, color="C0", alpha=0.25, linewidth=0, label=f"{share:.0f} % interval")
        axes.plot(after, forecast.middle, color="C0", label=forecast.point)
        axes.set(ylabel=verbatim(forecast.column))
        if dates is not None:
            locator = matplotlib.dates.AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
        figure.legend(loc="outside upper right", ncols=4, frameon=False)

    files.write_bytes(path, png((9, 3.5), paint))


def _intervals(levels: Sequence[float]) -> list[tuple[int, int]]:
    """Returns the lower and upper quantile of each interval around the median, widest first."""
    return [(low, len(levels) - 1 - low) for low in range(levels.index(0.5))]
