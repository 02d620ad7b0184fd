"""Forecasts a series with a trained model. Prints a table; writes forecast.csv and forecast.png.

python -m experiments.forecast --workdir=runs/etth1_uni_24 --csv=mine.csv --column=OT

The files are written to the run folder; if the model is an exported one, to the current folder.

The CSV file has a header and a column of evenly spaced dates, by default named as that of the training file;
--date_column= numbers the rows instead. The forecast continues
its last row. With --backtest the last rows are held out and compared with their forecast.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments.runner import cli, run
from experiments.runner.logging import table
from experiments.runner.run_folder import RunFolder
from experiments.tasks.forecasting.forecast import (
    choose_series,
    describe,
    differences,
    draw,
    make_forecast,
    title,
    write_csv,
)
from experiments.tasks.forecasting.task import Forecasting

WORKDIR = cli.define_workdir("The run folder, or an exported model.")
CSV = flags.DEFINE_string("csv", None, "CSV file of the series; by default the series that the run was trained on.")
COLUMN = flags.DEFINE_string("column", None, "Variable to show. A run of one variable can forecast any one of --csv.")
DATE_COLUMN = flags.DEFINE_string(
    "date_column", None, "Date column of the CSV file; empty for none. Default: that of the run."
)
BACKTEST = flags.DEFINE_bool("backtest", False, "Whether to hold out the last rows and forecast them.")
DATA_DIR = cli.define_data_dir()
OUTPUT_DIR = cli.define_output_dir()


def main(arguments: Sequence[str]) -> None:
    """Loads the run and the series, forecasts, prints the table and writes the files."""
    del arguments
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (Forecasting,))
    folder, training_file = RunFolder(pathlib.Path(WORKDIR.value)), CSV.value is None
    column = None if COLUMN.value is None else cli.given(COLUMN.value)
    date_column = None if DATE_COLUMN.value is None else cli.given(DATE_COLUMN.value)
    series, column = choose_series(task, CSV.value, column, date_column)
    forecast = make_forecast(task, model, series, column, BACKTEST.value, training_file)
    print(table(describe(forecast), cli.one_line(title(forecast, CSV.value or task.result_name))))
    for line in differences(task, series, training_file):
        print(f"  {line}")
    numbers, picture = (folder.output(f"forecast.{kind}", OUTPUT_DIR.value) for kind in ("csv", "png"))
    write_csv(forecast, numbers)
    draw(forecast, 2 * task.config.horizon + task.config.window // 2, picture)
    print(f"  written to {numbers}, {picture}")


if __name__ == "__main__":
    cli.run(main)
