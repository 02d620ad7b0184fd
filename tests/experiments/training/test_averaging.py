"""The moving average of the parameters against a loop in NumPy, and where a run uses it."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.config import OptimizerConfig, resolve
from experiments.run_folder import RunFolder
from experiments.tasks.adding import Adding
from experiments.training import devices, loop
from experiments.training.averaging import average_parameters, evaluated
from experiments.training.display import Display
from experiments.training.evaluation import Evaluator
from experiments.training.metrics import read_rows
from experiments.training.optimizer import make_optimizer
from experiments.training.state import TrainState


def test_the_average_is_that_of_a_loop():
    rng, chain = np.random.default_rng(0), optax.chain(optax.sgd(0.1), average_parameters(0.6))
    params = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    state, expected = chain.init(params), np.asarray(params, np.float64)
    for t in range(1, 30):
        updates, state = chain.update(jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        decay = min(0.6, t / (9 + t))  # 0.1 at first; 0.6 from the fourteenth update on
        expected = decay * expected + (1 - decay) * np.asarray(params, np.float64)
    np.testing.assert_allclose(state[-1].parameter_average, expected, rtol=1e-5, atol=1e-6)


def test_parameters_stand_for_themselves_where_no_average_is_kept():
    params = {"W": jnp.ones((2, 2))}
    for average in (0.0, 0.9):
        optimizer = make_optimizer(OptimizerConfig(average=average, learning_rate=1.0), steps=10)
        updates, opt_state = optimizer.update({"W": jnp.ones((2, 2))}, optimizer.init(params), params)
        after = optax.apply_updates(params, updates)
        found = evaluated(TrainState(1, after, opt_state, ()))
        # Adam's first step is 1; the average, whose first decay is a tenth, has gone nine tenths of the way.
        np.testing.assert_allclose(found["W"], np.full((2, 2), 0.1 if average else 0.0), atol=1e-5)


def test_a_run_evaluates_and_keeps_the_average(tmp_path):
    config = resolve(
        {
            "task": {"name": "adding", "length": 3, "batch_size": 4, "eval_count": 8},
            "model": {"hidden_size": 3},
            "optimizer": {"learning_rate": 0.1, "average": 0.9},
            "train": {"steps": 6, "log_every": 6, "eval_every": 6, "checkpoint_every": 6},
        }
    )
    folder, task, mesh = RunFolder(tmp_path), Adding(config.task, None), devices.make_mesh(4, 1)
    end = loop.train(
        config, task, folder, loop.load(config, task, folder, mesh), mesh, Display(6, 0, io.StringIO()), ()
    )
    average = evaluated(end.state)
    jax.tree.map(np.testing.assert_array_equal, end.best, average)
    assert any(
        (np.asarray(a) != p).any() for a, p in zip(*map(jax.tree.leaves, (average, end.state.params)), strict=True)
    )
    validation = next(row for row in read_rows(folder.metrics) if row["split"] == "validation")
    assert validation["mse"] == Evaluator(task, end.graph, mesh)(average, "validation")["mse"]
