"""The sweep command, in its own process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def sweep(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.sweep", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_failed_run_is_reported_and_others_finish(tmp_path):
    grid = ["--config=configs/adding.py:smoke", "--grid=task.length=10,12", "--grid=model.cell=gru,lstm", "--seeds=2"]
    arguments = [*grid, f"--workdir={tmp_path}"]
    foreign = tmp_path / "task.length=12,model.cell=lstm" / "seed_1"
    foreign.mkdir(parents=True)
    (foreign / "thesis.tex").write_text("")
    # Two jobs of an array, then the whole sweep with their runs finished.
    for index in ("0", "2"):
        job = sweep(*arguments, f"--index={index}")
        out, error = job.communicate(timeout=500)
        assert job.returncode == 0, error
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(before) == 4
    job = sweep(*arguments)
    out, error = job.communicate(timeout=1000)
    assert job.returncode == 1
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    table = json.loads((tmp_path / "sweep.json").read_text())
    finished = {row["name"]: len(row["validation"]) for row in table["configurations"]}
    assert list(finished.values()) == [2, 2, 2, 1]
    assert table["best"] in list(finished)[:3]
    assert "is not empty and holds no run" in error
    assert out.count("failed: ") == 1
    (row,) = [line for line in out.splitlines() if line.startswith("*  ")]
    assert table["best"] in row
    for line in ("task.length=12,model.cell=lstm", "1/2"):
        assert line in out
    # Finished runs of another configuration are not results of this one.
    table = (tmp_path / "sweep.json").read_bytes()
    job = sweep(*arguments, "--config.model.hidden_size=3")
    out, error = job.communicate(timeout=500)
    assert (job.returncode, out) == (1, "")
    assert "seed_0 holds a run of another configuration: model.hidden_size: " in error
    assert (tmp_path / "sweep.json").read_bytes() == table


@pytest.mark.timeout(300)
def test_points_that_cannot_be_ranked_are_refused_before_training(tmp_path):
    grid = "--grid=task.train_on_validation=False,True"
    job = sweep("--config=configs/char_lm.py:smoke", grid, f"--workdir={tmp_path}")
    out, error = job.communicate(timeout=250)
    assert (job.returncode, out) == (1, "")
    assert "--grid: expected points with the same metrics and selection" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(300)
def test_failures_of_all_points_are_listed(tmp_path):
    data = ["--config.task.dataset=csv", f"--config.task.csv_file={tmp_path / 'nope.csv'}"]
    folder = tmp_path / "sweep"
    job = sweep("--config=configs/forecasting.py:smoke", *data, "--grid=model.hidden_size=8,16", f"--workdir={folder}")
    out, _ = job.communicate(timeout=250)
    assert job.returncode == 1
    assert out.count("nope.csv: expected a readable CSV file") == 2
    assert json.loads((folder / "sweep.json").read_text())["best"] is None
