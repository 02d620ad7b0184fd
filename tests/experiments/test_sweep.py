"""A sweep as a person runs it, and seeds side by side against the same seeds alone."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from experiments.runner import loop
from experiments.runner.config import resolve
from experiments.runner.logging import Display, read_rows
from experiments.runner.loop import NonFiniteError
from experiments.runner.run_folder import RunFolder
from experiments.runner.sweep import ShapesDifferError, make_mesh, points, side_by_side, train
from experiments.tasks.synthetic.adding import Adding

ROOT = pathlib.Path(__file__).parents[2]
VALUES = {
    "task": {"name": "adding", "length": 10, "batch_size": 8, "eval_count": 20},
    "model": {"hidden_size": 8, "dropout": 0.3},
    "optimizer": {"learning_rate": 0.01},
    "train": {"steps": 12, "log_every": 4, "eval_every": 6, "checkpoint_every": 6},
}


def members_of(folder, seeds=4, values=VALUES):
    (point,) = points(resolve(values).to_dict(), [], seeds, folder)
    for member in point.members:
        member.folder.path.mkdir(parents=True)
    return point.members


def train_together(members, stop=lambda: False, mapped=None):
    task = Adding(members[0].config.task, None)
    mesh = make_mesh(len(members), task.batch_size, 2)
    starts = [loop.load(member.config, task, member.folder, mesh) for member in members]
    return train(members, task, starts, mesh, stop, mapped), mesh


def losses_of(folder):
    return {(row["step"], row["split"]): row["loss"] for row in read_rows(folder.metrics)}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_seeds_side_by_side_train_as_they_do_alone_and_go_on_where_they_were_stopped(tmp_path):
    members = members_of(tmp_path / "group")
    asked = iter(range(100))
    ends, mesh = train_together(members, lambda: next(asked) == 7, mapped=True)
    assert mesh.size == 2  # two runs on each device
    assert [(end.progress.step, end.progress.finished) for end in ends] == [(8, False)] * 4
    ends, _ = train_together(members, mapped=False)
    assert [(end.progress.step, end.progress.finished) for end in ends] == [(12, True)] * 4
    curves = [losses_of(member.folder) for member in members]
    assert len({curve[12, "train"] for curve in curves}) == 4
    for number in (0, 3):  # the first on a device, and one on another
        config = members[number].config
        task, folder = Adding(config.task, None), RunFolder(tmp_path / str(number))
        folder.path.mkdir()
        mesh = make_mesh(1, 1, 1)
        start = loop.load(config, task, folder, mesh)
        alone = loop.train(config, task, folder, start, mesh, Display(12))
        expected = losses_of(folder)
        assert curves[number].keys() == expected.keys()
        for place, loss in expected.items():
            np.testing.assert_allclose(curves[number][place], loss, rtol=1e-5)
        assert ends[number].progress.best_step == alone.progress.best_step


def test_a_seed_that_is_not_finite_fails_alone(tmp_path, monkeypatch):
    members, whole = members_of(tmp_path, 2), Adding.train_batch

    def broken(self, seed, step):
        batch = whole(self, seed, step)
        if seed == 1 and step == 7:
            batch["xs"] = np.full_like(batch["xs"], np.nan)
        return batch

    monkeypatch.setattr(Adding, "train_batch", broken)
    (one, other), _ = train_together(members)
    assert one.progress.finished
    assert isinstance(other, NonFiniteError)
    assert str(other).startswith("step 8: ")
    assert members[1].folder.nonfinite.exists()
    assert (12, "validation") in losses_of(members[0].folder)


def test_batches_of_different_shapes_are_not_stacked():
    short, long = ({"xs": np.zeros((2, length))} for length in (3, 4))
    assert side_by_side([short, short])["xs"].shape == (2, 2, 3)
    with pytest.raises(ShapesDifferError, match="differ in the shape of 'xs'"):
        side_by_side([short, long])


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
def test_a_sweep_reports_what_fails_and_finishes_the_rest(tmp_path):
    grid = ["--config=configs/adding.py:smoke", "--grid=task.length=10,12", "--grid=model.cell=gru,lstm", "--seeds=2"]
    arguments = [*grid, f"--workdir={tmp_path}"]
    spoilt = tmp_path / "task.length=12,model.cell=lstm" / "seed_1"
    spoilt.mkdir(parents=True)
    (spoilt / "thesis.tex").write_text("")
    # Two jobs of an array, then the whole, which finds them finished.
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
