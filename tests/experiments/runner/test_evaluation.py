"""The score of a split is the mean over its rows, without dropout."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.runner import devices
from experiments.runner.config import resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import make_optimizer
from experiments.runner.step import initial_state
from experiments.tasks.synthetic.adding import Adding

CONFIG = resolve(
    {
        "task": {"name": "adding", "length": 7, "batch_size": 8},
        "model": {"hidden_size": 5, "dropout": 0.5, "weight_dropout": 0.5},
    }
)


class Uneven(Adding):
    """A task with batches of eight, one and zero valid rows."""

    def eval_batches(self, split):
        for step, count in enumerate((8, 1, 0)):
            yield self.train_batch(7, step) | {"weights": (np.arange(8) < count).astype(np.float32)}


class Counting(Uneven):
    """The carry is the number of previous batches, and is also the loss."""

    def initial_carry(self, model, rows):
        return jnp.zeros(rows)

    def loss(self, model, batch, carry, key):
        sums, _ = super().loss(model, batch, (), key)
        return sums | {"loss": ((carry * batch["weights"]).sum(), batch["weights"].sum())}, carry + 1


@pytest.mark.parametrize("count", [1, 4])
def test_carry_is_passed_between_batches(count):
    task = Counting(CONFIG.task, None)
    graph, state = initial_state(task, CONFIG, make_optimizer(CONFIG.optimizer, 10))
    mesh = devices.make_mesh(8, count)
    scores = Evaluator(task, graph, mesh)(devices.replicate(state.params, mesh), "test")
    assert scores["mse"] == pytest.approx(1 / 9)  # one of nine rows is in the second batch


@pytest.mark.parametrize("count", [1, 4])
def test_scores_are_means_over_rows_without_dropout(count):
    task = Uneven(CONFIG.task, None)
    graph, state = initial_state(task, CONFIG, make_optimizer(CONFIG.optimizer, 10))
    model, errors = nnx.merge(graph, state.params), []
    for batch in task.eval_batches("test"):
        squared = jnp.square(model(jnp.asarray(batch["xs"]))[:, 0] - batch["targets"])
        errors += [float(error) for error, weight in zip(squared, batch["weights"], strict=True) if weight]
    assert len(errors) == 9
    mesh = devices.make_mesh(8, count)
    scores = Evaluator(task, graph, mesh)(devices.replicate(state.params, mesh), "test")
    assert scores["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
