"""Selection of the best evaluation and its parameters, early stopping, and traces of the loss."""

import dataclasses
import io
import itertools
import math
from types import SimpleNamespace
from typing import Any

import chex
import jax
import numpy as np
import optax
import pytest

from experiments.runner import devices, loop
from experiments.runner.checkpoints import Progress
from experiments.runner.config import TrainConfig, resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import Display, read_rows
from experiments.runner.loop import update_best
from experiments.runner.run_folder import RunFolder
from experiments.tasks.base import Scoring
from experiments.tasks.synthetic.adding import Adding


def judge(values, mode="min", selects=True, **settings):
    task: Any = SimpleNamespace(scoring=Scoring("loss", mode, (), selects))
    progress = Progress()
    for step, value in enumerate(values, 1):
        progress = update_best(dataclasses.replace(progress, step=step), value, task, TrainConfig(**settings))
    return progress


@pytest.mark.parametrize(
    ("values", "mode", "selects", "best_step"),
    [
        ([3.0, 1.0, 2.0], "min", True, 2),
        ([3.0, 1.0, 2.0], "max", True, 1),
        ([3.0, 1.0, 2.0], "min", False, 3),
        ([3.0, math.nan, 2.0], "min", True, 3),
        ([1.0, 1.0], "min", True, 1),
    ],
)
def test_best_is_the_first_best_or_the_last_without_selection(values, mode, selects, best_step):
    progress = judge(values, mode, selects)
    assert progress.best_step == best_step
    assert progress.best_value == values[best_step - 1]


def test_patience_counts_evaluations_without_improvement():
    assert not judge([1.0, 2.0], patience=2).finished
    assert judge([1.0, 2.0, 2.0], patience=2).finished
    assert not judge([1.0, 2.0, 0.5, 2.0], patience=2).finished
    assert not judge([1.0, 2.0, 2.0], patience=2, selects=False).finished


@pytest.mark.parametrize(("mode", "values"), [("min", [0.3, 0.2]), ("max", [0.1, 0.2]), ("min", [0.3, 0.1])])
def test_goal_ends_training_when_reached_or_passed(mode, values):
    assert not judge(values[:1], mode, goal=0.2).finished
    assert judge(values, mode, goal=0.2).finished


def test_nan_does_not_reach_the_goal():
    assert not judge([math.nan], goal=0.2).finished


def test_best_parameters_are_saved_and_restored(tmp_path, monkeypatch):
    config = resolve(
        {
            "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 8},
            "model": {"hidden_size": 3},
            "optimizer": {"learning_rate": 0.1},
            "train": {"steps": 6, "log_every": 6, "eval_every": 2, "checkpoint_every": 6},
        }
    )
    folder, task, mesh = RunFolder(tmp_path), Adding(config.task, None), devices.make_mesh(4, 1)
    scored = []

    def score(self, params, split):
        scored.append(jax.device_get(params))
        return {"mse": (0.3, 0.1, 0.2)[len(scored) - 1]}

    monkeypatch.setattr(Evaluator, "__call__", score)
    end = loop.train(
        config, task, folder, loop.load_run(config, task, folder, mesh), mesh, Display(6, 0, io.StringIO())
    )
    again = loop.load_run(config, task, folder, mesh)
    for run in (end, again):
        assert (run.progress.best_step, run.progress.best_value) == (4, 0.1)
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.best), scored[1])
        jax.tree.map(np.testing.assert_array_equal, jax.device_get(run.state.params), scored[2])
    assert not np.array_equal(*(jax.tree.leaves(params)[0] for params in scored[1:]))


def test_row_has_the_learning_rate_of_its_step(tmp_path, monkeypatch):
    """The length of a step of plain gradient descent is the learning rate times the gradient's norm."""
    config = resolve(
        {
            "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 8},
            "model": {"hidden_size": 3},
            "optimizer": {"name": "sgd", "learning_rate": 0.5, "clip_norm": 0.0, "schedule": "warmup_cosine"},
            "train": {"steps": 4, "log_every": 1, "eval_every": 1, "checkpoint_every": 4},
        }
    )
    folder, task, mesh = RunFolder(tmp_path), Adding(config.task, None), devices.make_mesh(4, 1)
    start = loop.load_run(config, task, folder, mesh)
    passed = [jax.device_get(start.state.params)]

    def score(self, params, split):
        passed.append(jax.device_get(params))
        return {"mse": 1.0}

    monkeypatch.setattr(Evaluator, "__call__", score)
    loop.train(config, task, folder, start, mesh, Display(4, 0, io.StringIO()))
    rows = [row for row in read_rows(folder.metrics) if row["split"] == "train"]
    lengths = [optax.tree.norm(optax.tree.sub(b, a)) for a, b in itertools.pairwise(passed)]
    np.testing.assert_allclose(lengths, [row["learning_rate"] * row["grad_norm"] for row in rows], rtol=1e-4)
    np.testing.assert_allclose([row["learning_rate"] for row in rows], [0.5, 0.426777, 0.25, 0.073223], rtol=1e-4)


def test_loss_is_traced_once_for_training_and_once_for_evaluation(tmp_path, monkeypatch):
    chex.clear_trace_counter()
    monkeypatch.setattr(Adding, "loss", chex.assert_max_traces(Adding.loss, n=2))
    config = resolve(
        {
            "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 4},
            "model": {"hidden_size": 3},
            "train": {"steps": 6, "log_every": 2, "eval_every": 2, "checkpoint_every": 3},
        }
    )
    task, mesh, folder = Adding(config.task, None), devices.make_mesh(1, 1), RunFolder(tmp_path)
    end = loop.train(
        config, task, folder, loop.load_run(config, task, folder, mesh), mesh, Display(6, 0, io.StringIO())
    )
    assert end.progress.step == 6
