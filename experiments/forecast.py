"""Forecasts a person's own series with a trained run: a table, forecast.csv and forecast.png in the run's folder.

python -m experiments.forecast --workdir=runs/etth1_uni_24 --csv=mine.csv --column=OT

The CSV has a header and, unless --date_column= is empty, a column of evenly spaced dates; its newest rows are
what the forecast is made from. With --backtest the last ones are held out, and compared with their forecast.
"""

import csv
import dataclasses
import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from flax import nnx

from experiments import files
from experiments.figures import png, verbatim
from experiments.runner import cli, run
from experiments.runner.logging import table
from experiments.schema import UserError, nearest
from experiments.tasks.forecasting.series import Scaling, Series, read_csv
from experiments.tasks.forecasting.task import Forecasting, forecast

WORKDIR = cli.define_workdir("The run's folder.")
CSV = flags.DEFINE_string("csv", None, "The series; else the one that the run was trained on.")
COLUMN = flags.DEFINE_string("column", None, "The variable to show, and of a run with one variable the one to read.")
DATE_COLUMN = flags.DEFINE_string("date_column", "date", "The CSV's column of dates; empty for rows that are counted.")
BACKTEST = flags.DEFINE_bool(
    "backtest", False, "Whether to forecast the last rows, which are known, from those before."
)
DATA_DIR = cli.define_data_dir()

SHOWN_ROWS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class Forecast:
    """The quantiles of one variable's next K values.

    Attributes:
      series: what they are made from, and with a backtest what came.
      column: which of its variables.
      origin: the first row forecast.
      levels: the quantiles' levels, Q.
      quantiles: (K, Q), in the series' own units.
    """

    series: Series
    column: str
    origin: int
    levels: tuple[float, ...]
    quantiles: np.ndarray

    @property
    def history(self) -> np.ndarray:
        """The variable's values, (N,), up to and beyond the origin."""
        return self.series.values[:, self.series.columns.index(self.column)]

    @property
    def median(self) -> np.ndarray:
        return self.quantiles[:, self.levels.index(0.5)]

    @property
    def truth(self) -> np.ndarray:
        """What is known of the rows forecast: (K,), or none."""
        return self.history[self.origin :]

    def rows(self) -> list[tuple[str, ...]]:
        """Returns date, and every quantile, of every row forecast: the shortest figures that give the same float64."""
        labels = (self.series.label(self.origin + k) for k in range(len(self.quantiles)))
        return [(label, *map(repr, row.tolist())) for label, row in zip(labels, self.quantiles, strict=True)]


def main(arguments: Sequence[str]) -> None:
    """Loads the run and the series, forecasts, prints the table and writes the files."""
    del arguments
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (Forecasting,))
    folder = pathlib.Path(WORKDIR.value)
    column = None if COLUMN.value is None else cli.given(COLUMN.value)
    series, column = choose_series(task, CSV.value, column, cli.given(DATE_COLUMN.value))
    made = make_forecast(task, model, series, column, BACKTEST.value, own_file=CSV.value is None)
    print(describe(made, CSV.value or task.result_name))
    for line in differences(task, series, own_file=CSV.value is None):
        print(f"  {line}")
    write_csv(made, folder / "forecast.csv")
    draw(made, 2 * task.config.horizon + task.config.window // 2, folder / "forecast.png")
    print(f"  written to {folder / 'forecast.csv'}, {folder / 'forecast.png'}")


def choose_series(task: Forecasting, path: str | None, column: str | None, date_column: str) -> tuple[Series, str]:
    """Reads what the run can forecast: its own variables, or with a run of one variable any one.

    Args:
      task: the run's.
      path: a CSV file; None for the series that the run was trained on.
      column: None for the run's own, or the first of several.
      date_column: of the CSV file.

    Returns:
      the series, with as many variables as the run's, and the one to show.
    """
    own = task.columns
    if path is not None:
        single = len(own) == 1
        series = read_csv(path, (column or own[0],) if single else own, date_column)
    else:
        own_path = task.config.csv_file
        if own_path and not pathlib.Path(own_path).exists():
            raise UserError(f"--csv: expected the series to forecast, for the run's own, {own_path}, is not there")
        series = task.series
    shown = column or series.columns[0]
    if shown not in series.columns:
        near = nearest(shown, series.columns)
        raise UserError(f"--column: expected one of {', '.join(series.columns)}{near}, got {shown!r}")
    return series, shown


def differences(task: Forecasting, series: Series, own_file: bool) -> list[str]:
    """Says how a series differs from the one that the run has learned from, and what it is scaled by; else nothing."""
    newer, known = task.newer_rows(series), task.recorded or task.fingerprint()
    if newer is not None:
        return (
            [f"{newer} rows are newer than those that the run has learned from; its scaling is kept"] if newer else []
        )
    what = "its scaling is kept" if own_file else "scaled by its own rows"
    return [f"not the series that the run has learned from ({known.description}); {what}"]


def make_forecast(
    task: Forecasting, model: nnx.Module, series: Series, column: str, backtest: bool, own_file: bool = False
) -> Forecast:
    """Forecasts the K rows after a series' end, or with `backtest` its last K rows from those before.

    The run's own series, and one that continues it, is scaled as in training, another one by its rows before the
    forecast. With `own_file` it is what the run's own file holds now, and scaled as in training in any case.

    Raises:
      UserError: the series is shorter than the window that the run reads.
    """
    T, K = task.config.window, task.config.horizon
    origin = len(series.values) - (K if backtest else 0)
    if origin < T:
        held = f", before the {K} that --backtest holds out" if backtest else ""
        raise UserError(f"--csv: expected at least {T} rows, the run's window{held}, got {max(origin, 0)}")
    own = own_file or task.newer_rows(series) is not None
    scaling = task.scaling if own else Scaling.standard(series.values[:origin])
    window = scaling.forward(series.values[origin - T : origin])
    graph, params = nnx.split(model)
    quantiles = np.asarray(forecast(graph, params, window[None].astype(np.float32)))[0]
    own_units = scaling.inverse(quantiles.swapaxes(1, 2)).swapaxes(1, 2)
    return Forecast(series, column, origin, task.config.quantiles, own_units[:, series.columns.index(column)])


def describe(made: Forecast, source: str) -> str:
    """Returns the table of the first rows, and with a backtest how they compare."""
    last = f"{made.series.label(made.origin - 1)}: {made.history[made.origin - 1].item()!r}"
    share, count = 100 * (made.levels[-1] - made.levels[0]), len(made.quantiles)
    figures = shown(made.quantiles[:SHOWN_ROWS])
    medians = [row[made.levels.index(0.5)] for row in figures]
    width = max(map(len, medians))
    lines = [
        (made.series.label(made.origin + k), f"{median:>{width}}   {share:.0f} % between {row[0]} and {row[-1]}")
        for k, (median, row) in enumerate(zip(medians, figures, strict=True))
    ]
    if count > SHOWN_ROWS:
        lines.append(("...", f"{count - SHOWN_ROWS} more rows"))
    truth = made.truth
    if len(truth):
        naive = made.history[made.origin - 1]
        inside = (made.quantiles[:, 0] <= truth) & (truth <= made.quantiles[:, -1])
        lines.append(("mean absolute error", f"{np.abs(made.median - truth).mean():.6g}"))
        lines.append(("of the last value", f"{np.abs(naive - truth).mean():.6g}"))
        lines.append((f"inside the {share:.0f} %", f"{100 * inside.mean():.1f} %"))
    return table(lines, f"{cli.one_line(made.column)} of {source}, {count} rows after {last}")


def shown(quantiles: np.ndarray) -> list[list[str]]:
    """Returns quantiles (K, Q) to six figures of the least spread of a row, however far they lie from zero."""
    spread = float(np.ptp(quantiles, axis=1).min())
    decimals = 5 - math.floor(math.log10(spread)) if 0 < spread < math.inf else None
    if decimals is None or not 0 <= decimals <= 12:  # decimal places alone would not serve
        return [
            [repr(value if decimals is None else round(value, decimals)) for value in row] for row in quantiles.tolist()
        ]
    return [[f"{value:.{decimals}f}" for value in row] for row in quantiles.tolist()]


def write_csv(made: Forecast, path: pathlib.Path) -> None:
    """Writes date and quantiles of all rows."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["date" if made.series.dates else "row", *(f"q{level:g}" for level in made.levels)])
    writer.writerows(made.rows())
    files.write_bytes(path, text.getvalue().encode())


def draw(made: Forecast, past: int, path: pathlib.Path) -> None:
    """Draws the last `past` rows, the median and the intervals, and what came where it is known."""
    import matplotlib.dates

    start, end = max(made.origin - past, 0), made.origin + len(made.quantiles)
    dates = made.series.dates
    places = np.array([row if dates is None else dates(row) for row in range(start, end)])
    before, after = places[: made.origin - start], places[made.origin - start :]

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot(before, made.history[start : made.origin], color="black", linewidth=1, label="known")
        if len(made.truth):
            axes.plot(after, made.truth, color="black", linewidth=1, linestyle=":", label="what came")
        for low in range(made.levels.index(0.5)):
            high = len(made.levels) - 1 - low
            share = 100 * (made.levels[high] - made.levels[low])
            band = (made.quantiles[:, low], made.quantiles[:, high])
            axes.fill_between(after, *band, color="C0", alpha=0.25, linewidth=0, label=f"{share:.0f} % interval")
        axes.plot(after, made.median, color="C0", label="median")
        axes.set(ylabel=verbatim(made.column))
        if dates is not None:
            locator = matplotlib.dates.AutoDateLocator()
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(matplotlib.dates.ConciseDateFormatter(locator))
        figure.legend(loc="outside upper right", ncols=4, frameon=False)

    files.write_bytes(path, png((9, 3.5), paint))


if __name__ == "__main__":
    cli.run(main)
