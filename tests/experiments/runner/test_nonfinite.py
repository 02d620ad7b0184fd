"""A step that is not finite stops the run with a diagnosis, or is skipped and counted up to a limit."""

import dataclasses
import io
import json

import chex
import jax
import numpy as np
import pytest

from experiments.runner import devices, loop, run
from experiments.runner.config import resolve
from experiments.runner.logging import Display, read_rows
from experiments.runner.loop import NonFiniteError
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks.synthetic.adding import Adding

VALUES = {
    "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 4},
    "model": {"hidden_size": 3},
    "train": {"steps": 12, "log_every": 3, "eval_every": 6, "checkpoint_every": 3},
}


class Poisoned(Adding):
    """`Adding` with a nonfinite value in row 2 of the batches of some steps (from 1)."""

    def __init__(self, config, *steps):
        super().__init__(config, None)
        self.steps = steps

    def train_batch(self, seed, step):
        batch = super().train_batch(seed, step)
        if step + 1 in self.steps:
            batch["xs"][2, 1, 0] = np.nan
        return batch

    def batch_indices(self, seed, step):
        return np.arange(self.batch_size) + 100 * step


def train(path, *poisoned, **settings):
    config = resolve(VALUES | {"train": VALUES["train"] | settings})
    task, mesh, out = Poisoned(config.task, *poisoned), devices.make_mesh(4, 1), io.StringIO()
    folder = RunFolder(path)
    path.mkdir(exist_ok=True)
    start = loop.load_run(config, task, folder, mesh)
    return loop.train(config, task, folder, start, mesh, Display(12, start.progress.step, out)), out.getvalue()


def test_stop_writes_a_diagnosis_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(
        NonFiniteError, match=r"^step 8: .* nan; training stopped .*; the last checkpoint is kept; see .*nonf"
    ):
        train(tmp_path, 8)
    with pytest.raises(NonFiniteError, match=r"^step 2: .*; there is no checkpoint yet; see .*nonfinite.json$"):
        train(tmp_path / "first", 2)
    found = json.loads((tmp_path / "nonfinite.json").read_text())
    assert found["step"] == 8
    assert (found["loss"], found["grad_norm"]) == ("nan", "nan")
    assert found["batch"] == {
        "repeat_with": "task.train_batch(0, 7)",
        "indices": [700, 701, 702, 703],
        "rows_with_nonfinite_values": {"xs": [2]},
    }
    names = found["parameters_with_nonfinite_gradient"]
    assert len(names) == 5  # W, U and b of the cell; kernel and bias of the readout
    assert "readout.kernel" in names
    assert found["last_finite"]["step"] == 7
    assert np.isfinite(list(found["last_finite"].values())).all()
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step_3", "step_6"]
    config = resolve(VALUES)
    kept = loop.load_run(config, Adding(config.task, None), RunFolder(tmp_path), devices.make_mesh(4, 1))
    assert kept.progress.step == 6
    chex.assert_tree_all_finite((kept.state, kept.best))


def test_score_that_is_not_finite_is_one_line_and_no_summary(tmp_path, monkeypatch):
    end, _ = train(tmp_path)
    config, folder = resolve(VALUES), RunFolder(tmp_path)
    monkeypatch.setattr(run, "Evaluator", lambda *_: lambda *_: {"mse": np.inf})
    with pytest.raises(NonFiniteError, match=r"^expected finite scores on the test split, got mse inf; see its data$"):
        run.finish(config, Adding(config.task, None), folder, end, devices.make_mesh(4, 1), {})
    assert not folder.summary.exists()


def test_skip_drops_and_counts_the_update(tmp_path):
    end, out = train(tmp_path / "skipped", 2, 5, 7, 8, 9, on_nonfinite="skip", nonfinite_limit=4)
    assert "step 5: loss nan, gradient norm nan: skipped" in out
    assert (end.progress.step, end.progress.skipped, int(end.state.step)) == (12, 5, 7)
    chex.assert_tree_all_finite(end.state)
    rows = [row for row in read_rows(tmp_path / "skipped" / "metrics.jsonl") if row["split"] == "train"]
    assert [row["skipped"] for row in rows] == [1, 2, 5, 5]
    assert ["loss" in row for row in rows] == [True, True, False, True]  # the third row's steps were all skipped
    assert all(np.isfinite(list(row.values())[2:]).all() for row in rows)


@pytest.mark.faults
def test_skipped_steps_do_not_affect_the_run(tmp_path):
    """The final state equals a run without those batches."""
    end, _ = train(tmp_path / "skipped", 2, 3, on_nonfinite="skip")

    class Without(Adding):
        def train_batch(self, seed, step):
            return super().train_batch(seed, step if step < 1 else step + 2)

    config = resolve(VALUES | {"train": VALUES["train"] | {"steps": 10}})
    task, mesh = Without(config.task, None), devices.make_mesh(4, 1)
    start = loop.load_run(config, task, RunFolder(tmp_path / "without"), mesh)
    (tmp_path / "without").mkdir()
    expected = loop.train(config, task, RunFolder(tmp_path / "without"), start, mesh, Display(10, 0, io.StringIO()))
    jax.tree.map(np.testing.assert_array_equal, end.state, expected.state)


@pytest.mark.faults
def test_skip_stops_at_the_limit_across_a_resumption(tmp_path):
    with pytest.raises(NonFiniteError, match=r"^step 7: the loss is nan, and 3 steps in a row were not finite; "):
        train(tmp_path, 2, 3, 5, 6, 7, on_nonfinite="skip", nonfinite_limit=3)
    assert json.loads((tmp_path / "nonfinite.json").read_text())["steps_in_a_row"] == 3
    with pytest.raises(NonFiniteError, match=r"^step 7: .* 3 steps in a row"):  # resumes from the checkpoint of step 6
        train(tmp_path, 7, on_nonfinite="skip", nonfinite_limit=3)


def test_resumed_run_may_change_from_stop_to_skip(tmp_path):
    folder, config = RunFolder(tmp_path), resolve(VALUES)
    with folder.claimed(config):
        pass
    skipping = dataclasses.replace(config, train=dataclasses.replace(config.train, on_nonfinite="skip"))
    with folder.claimed(skipping):
        assert folder.load_config() == skipping
    with pytest.raises(UserError, match=r"another configuration: train.on_nonfinite: 'skip', not 'stop'"):
        folder.check_config(config)
