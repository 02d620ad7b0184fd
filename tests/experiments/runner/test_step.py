"""One training step against a manual computation, on one device and on several."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.runner import devices
from experiments.runner.config import resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import initial_state, make_train_step, shard_state
from experiments.tasks.synthetic.adding import Adding

CONFIG = resolve(
    {
        "task": {"name": "adding", "length": 7, "batch_size": 8, "eval_count": 30},
        "model": {"hidden_size": 5},
        "optimizer": {"name": "sgd", "learning_rate": 0.5, "clip_norm": 0.0},
    }
)
TASK = Adding(CONFIG.task, None)


def one_step(device_count, weights):
    mesh = devices.make_mesh(TASK.batch_size, device_count)
    optimizer = make_optimizer(CONFIG.optimizer, 10)
    graph, state = initial_state(TASK, CONFIG, optimizer)
    before = jax.tree.map(np.array, state.params)  # a copy: the step consumes the state
    step = make_train_step(TASK, graph, optimizer, learning_rate(CONFIG.optimizer, 10), mesh, CONFIG.seed)
    batch = TASK.train_batch(0, 0) | {"weights": weights}
    after, sums = step(devices.replicate(state, mesh), devices.shard_batch(batch, mesh))
    return graph, before, batch, after, sums


@pytest.mark.parametrize("device_count", [1, 4])
def test_gradient_is_of_the_weighted_mean(device_count):
    # Uneven weights: a mean of the devices' means would be wrong.
    weights = np.array([1, 1, 1, 0, 0, 0, 0, 1], np.float32)
    graph, before, batch, after, sums = one_step(device_count, weights)

    def mean_loss(params):
        predictions = nnx.merge(graph, params)(jnp.asarray(batch["xs"]))[:, 0]
        return (jnp.square(predictions - batch["targets"]) * weights).sum() / 4

    loss, gradient = jax.jit(jax.value_and_grad(mean_loss))(before)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, before, gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, expected)
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-6)
    np.testing.assert_allclose(sums["grad_norm"][0], optax.tree.norm(gradient), rtol=1e-5)
    assert int(after.step) == 1
    assert float(sums["learning_rate"][0]) == 0.5


def test_dropout_masks_depend_on_the_step():
    config = resolve(
        {
            "task": {"name": "adding", "length": 7, "batch_size": 8},
            "model": {"hidden_size": 16, "dropout": 0.5},
            "optimizer": {"name": "sgd", "learning_rate": 1e-30, "clip_norm": 0.0},
        }
    )
    mesh, optimizer = devices.make_mesh(8, 1), make_optimizer(config.optimizer, 10)
    batch = TASK.train_batch(0, 0)

    def losses(count):
        graph, state = initial_state(TASK, config, optimizer)
        step = make_train_step(TASK, graph, optimizer, learning_rate(config.optimizer, 10), mesh, config.seed)
        state = devices.replicate(state, mesh)
        for _ in range(count):
            state, sums = step(state, devices.shard_batch(batch, mesh))
            yield float(sums["loss"][0])

    first = list(losses(3))
    assert first == list(losses(3))
    assert len(set(first)) == 3


class Counting(Adding):
    """The carry counts the previous steps."""

    def initial_carry(self, model, rows):
        return jnp.zeros(rows)

    def loss(self, model, batch, carry, key):
        return super().loss(model, batch, (), key)[0], carry + 1


def test_carry_is_passed_on_except_from_a_nonfinite_step():
    task, mesh = Counting(CONFIG.task, None), devices.make_mesh(8, 4)
    optimizer = make_optimizer(CONFIG.optimizer, 10)
    graph, state = initial_state(task, CONFIG, optimizer)
    step = make_train_step(task, graph, optimizer, learning_rate(CONFIG.optimizer, 10), mesh, CONFIG.seed)
    state = shard_state(state, mesh)
    for number, weight in enumerate((1, 1, np.nan, 1)):
        batch = task.train_batch(0, number) | {"weights": np.full(8, weight, np.float32)}
        state, _ = step(state, devices.shard_batch(batch, mesh))
    np.testing.assert_array_equal(state.carry, np.full(8, 3.0))
    assert int(state.step) == 3


def test_initial_parameters_depend_on_the_seed():
    first, again, other = (
        initial_state(TASK, dataclasses.replace(CONFIG, seed=seed), make_optimizer(CONFIG.optimizer, 10))[1].params
        for seed in (1, 1, 2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, again)
    differing = [(np.asarray(a) != b).any() for a, b in zip(*map(jax.tree.leaves, (first, other)), strict=True)]
    assert sum(differing) >= 3  # W, U and the readout; biases start at zero


def test_gradients_are_all_reduced_once_and_not_at_every_time_step():
    mesh = devices.make_mesh(TASK.batch_size, 4)
    optimizer = make_optimizer(CONFIG.optimizer, 10)
    graph, state = initial_state(TASK, CONFIG, optimizer)
    step = make_train_step(TASK, graph, optimizer, learning_rate(CONFIG.optimizer, 10), mesh, CONFIG.seed)
    jaxpr = jax.make_jaxpr(step)(state, TASK.train_batch(0, 0))

    def sums_inside(jaxpr, in_loop=False):
        for equation in jaxpr.eqns:
            inner = in_loop or equation.primitive.name in ("scan", "while")
            if in_loop and "psum" in equation.primitive.name:
                yield equation
            for sub in jax.extend.core.jaxprs_in_params(equation.params):
                yield from sums_inside(sub, inner)

    assert "psum" in str(jaxpr)
    assert "scan" in str(jaxpr)
    assert list(sums_inside(jaxpr.jaxpr)) == []


def test_evaluation_ignores_padding_for_any_device_count():
    graph, state = initial_state(TASK, CONFIG, make_optimizer(CONFIG.optimizer, 10))
    (batch,) = TASK.eval_batches("validation")
    predictions = nnx.merge(graph, state.params)(jnp.asarray(batch["xs"]))[:, 0]
    expected = float(jnp.square(predictions - batch["targets"]).mean())
    for count in (1, 2, 4):  # four do not divide the 30 rows
        mesh = devices.make_mesh(TASK.batch_size, count)
        scores = Evaluator(TASK, graph, mesh)(devices.replicate(state.params, mesh), "validation")
        assert scores["mse"] == pytest.approx(expected, rel=1e-6)


def test_nonfinite_step_keeps_the_state_and_marks_the_arrays():
    weights = np.ones(8, np.float32)
    weights[3] = np.nan
    _, before, _, after, sums = one_step(4, weights)
    jax.tree.map(np.testing.assert_array_equal, after.params, before)
    assert int(after.step) == 0
    assert not np.isfinite(sums["loss"][0])
    np.testing.assert_array_equal(sums["nonfinite"][0], np.ones(len(jax.tree.leaves(before))))
