# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Forecasting your own CSV file
#
# From a CSV file to a forecast with intervals, in two commands. The series here is the yearly number of sunspots. For
# your own, replace the file, the two column names, and the lengths of window and horizon.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/forecast_your_csv.py
# ```

# %%
import json
import os
import pathlib
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np

HERE = pathlib.Path.cwd()
os.chdir(next(folder for folder in (HERE, *HERE.parents) if (folder / "experiments").is_dir()))  # the checkout
FOLDER = pathlib.Path("runs/sunspots")
shutil.rmtree(FOLDER, ignore_errors=True)  # of an earlier run
FOLDER.mkdir(parents=True)

# %% [markdown]
# ## The file
#
# A header, a column of evenly spaced dates, and a column of numbers. The numbers of 1700 to 2008 are those of the
# National Geophysical Data Center, and are in the public domain.

# %%
SUNSPOTS = """
5 11 16 23 36 58 29 20 10 8 3 0 0 2 11 27 47 63 60 39 28 26 22 11 21 40 78 122 103 73 47 35 11 5 16 34 70 81 111 101
73 40 20 16 5 11 22 40 60 80.9 83.4 47.7 47.8 30.7 12.2 9.6 10.2 32.4 47.6 54 62.9 85.9 61.2 45.1 36.4 20.9 11.4
37.8 69.8 106.1 100.8 81.6 66.5 34.8 30.6 7 19.8 92.5 154.4 125.9 84.8 68.1 38.5 22.8 10.2 24.1 82.9 132 130.9 118.1
89.9 66.6 60 46.9 41 21.3 16 6.4 4.1 6.8 14.5 34 45 43.1 47.5 42.2 28.1 10.1 8.1 2.5 0 1.4 5 12.2 13.9 35.4 45.8
41.1 30.1 23.9 15.6 6.6 4 1.8 8.5 16.6 36.3 49.6 64.2 67 70.9 47.8 27.5 8.5 13.2 56.9 121.5 138.3 103.2 85.7 64.6
36.7 24.2 10.7 15 40.1 61.5 98.5 124.7 96.3 66.6 64.5 54.1 39 20.6 6.7 4.3 22.7 54.8 93.8 95.8 77.2 59.1 44 47 30.5
16.3 7.3 37.6 74 139 111.2 101.6 66.2 44.7 17 11.3 12.4 3.4 6 32.3 54.3 59.7 63.7 63.5 52.2 25.4 13.1 6.8 6.3 7.1
35.6 73 85.1 78 64 41.8 26.2 26.7 12.1 9.5 2.7 5 24.4 42 63.5 53.8 62 48.5 43.9 18.6 5.7 3.6 1.4 9.6 47.4 57.1 103.9
80.6 63.6 37.6 26.1 14.2 5.8 16.7 44.3 63.9 69 77.8 64.9 35.7 21.2 11.1 5.7 8.7 36.1 79.7 114.4 109.6 88.8 67.8 47.5
30.6 16.3 9.6 33.2 92.6 151.6 136.3 134.7 83.9 69.4 31.5 13.9 4.4 38 141.7 190.2 184.8 159 112.3 53.9 37.6 27.9 10.2
15.1 47 93.8 105.9 105.5 104.5 66.6 68.9 38 34.5 15.5 12.6 27.5 92.5 155.4 154.6 140.4 115.9 66.6 45.9 17.9 13.4
29.4 100.2 157.6 142.6 145.7 94.3 54.6 29.9 17.5 8.6 21.5 64.3 93.3 119.6 111 104 63.7 40.4 29.8 15.2 7.5 2.9
"""
numbers = np.array(SUNSPOTS.split(), float)
years = 1700 + np.arange(len(numbers))
csv_file = FOLDER / "sunspots.csv"
csv_file.write_text("year,sunspots\n" + "".join(f"{y},{n}\n" for y, n in zip(years, numbers, strict=True)), "utf-8")
print(csv_file.read_text("utf-8")[:40])

figure, axes = plt.subplots(figsize=(9, 2.2), layout="constrained")
axes.plot(years, numbers)
axes.set(xlabel="year", ylabel="sunspots")
plt.show()

# %% [markdown]
# ## Training
#
# A cycle takes about 11 years. The model reads 44 years, in segments of 11, and forecasts the next 11. The first 60 %
# of the rows are for training, the next 20 % for the choice of the best step, and the last 20 % for the test.


# %%
def command(name, *options):
    """Runs a command of `experiments` and prints what it prints."""
    line = [sys.executable, "-m", f"experiments.{name}", *options]
    done = subprocess.run(line, capture_output=True, text=True, encoding="utf-8")
    print(done.stdout)
    assert done.returncode == 0, done.stderr


config = (
    "--config=configs/forecasting.py",
    "--config.task.dataset=csv",
    f"--config.task.csv_file={csv_file}",
    "--config.task.date_column=year",
    "--config.task.column=sunspots",
    "--config.task.window=44",
    "--config.task.horizon=11",
    "--config.model.segment=11",
    "--config.train.eval_every=25",
)
command("train", f"--workdir={FOLDER / 'run'}", *config)

# %% [markdown]
# ## Is it any good?
#
# Compare with something simple before you believe a score: the last value, and a linear map of the window. The errors
# are those of the standardized series.

# %%
command("studies.forecast_baselines", *config)

# %% [markdown]
# The GRU has a quarter of the error of the last value. On the test years the linear map is better still, though the
# GRU was better on the validation years: 185 rows for training are few. Its intervals hold: about 80 % of the test rows
# are inside. See [forecasting](../results/forecasting.md) for longer series.
#
# ## A backtest
#
# The last 11 years are held out and compared with their forecast.

# %%
options = f"--workdir={FOLDER / 'run'}", f"--csv={csv_file}", "--date_column=year"
command("forecast", *options, "--backtest")

# %% [markdown]
# ## The forecast
#
# It continues the last row of the file. `forecast.csv` has a row per year and a column per quantile.

# %%
command("forecast", *options)
forecast = np.genfromtxt(FOLDER / "run" / "forecast.csv", delimiter=",", skip_header=1)
ahead, low, median, high = forecast.T

figure, axes = plt.subplots(figsize=(9, 2.6), layout="constrained")
axes.plot(years[-100:], numbers[-100:], label="numbers")
axes.plot(ahead, median, label="forecast")
axes.fill_between(ahead, low, high, alpha=0.3, color="tab:orange", label="80 % interval")
axes.set(xlabel="year", ylabel="sunspots")
axes.legend(loc="upper left")
plt.show()

# %%
scores = json.loads((FOLDER / "run" / "summary.json").read_text("utf-8"))["test"]
train_rows, test_start = int(0.6 * len(numbers)), int(0.8 * len(numbers))
scaled = (numbers - numbers[:train_rows].mean()) / numbers[:train_rows].std()
windows = np.lib.stride_tricks.sliding_window_view(scaled[test_start - 1 :], 12)  # the last value and the 11 after it
last_value = np.square(windows[:, 1:] - windows[:, :1]).mean()
print(f"test mse: {scores['mse']:.2f}, of the last value {last_value:.2f}")
assert scores["mse"] < last_value / 2
assert 60 < scores["coverage"] < 95
