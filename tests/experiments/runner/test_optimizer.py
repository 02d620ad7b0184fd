"""Schedules against values computed by hand, and each rule against its definition on one step.

Also the moving average of the parameters against a loop in NumPy, and its use in a run.
"""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.runner import devices, loop
from experiments.runner.config import OptimizerConfig, resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import Display, read_rows
from experiments.runner.optimizer import average_parameters, eval_params, learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import TrainState
from experiments.tasks.synthetic.adding import Adding

PARAMS = {"W": jnp.array([[2.0, -1.0]]), "b": jnp.array([4.0])}
GRADIENT = {"W": jnp.array([[3.0, 0.0]]), "b": jnp.array([4.0])}


def first_update(**options) -> dict[str, np.ndarray]:
    optimizer = make_optimizer(OptimizerConfig(**options), steps=10)
    updates, _ = optimizer.update(GRADIENT, optimizer.init(PARAMS), PARAMS)
    return {name: np.asarray(update) for name, update in updates.items()}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, {0: 0.1, 50: 0.1, 100: 0.1}),
        # Warmup over 20 steps, then half a cosine over 80 steps. Its midpoint is the mean of peak and end.
        ({"schedule": "warmup_cosine", "warmup_steps": 20}, {0: 0.0, 10: 0.05, 20: 0.1, 60: 0.05, 100: 0.0}),
        ({"schedule": "warmup_cosine", "warmup_steps": 20, "final_fraction": 0.2}, {20: 0.1, 60: 0.06, 100: 0.02}),
        ({"schedule": "warmup_cosine"}, {0: 0.1, 50: 0.05, 100: 0.0}),
        ({"schedule": "exponential", "final_fraction": 0.01}, {0: 0.1, 50: 0.01, 100: 0.001}),
    ],
)
def test_schedules(options, expected):
    schedule = learning_rate(OptimizerConfig(learning_rate=0.1, **options), steps=100)
    np.testing.assert_allclose([schedule(step) for step in expected], list(expected.values()), rtol=1e-5, atol=1e-9)


def test_sgd_is_the_clipped_gradient():
    # The gradient's norm is 5: clipping at 1 divides it by 5.
    updates = first_update(name="sgd", learning_rate=0.5, clip_norm=1.0)
    np.testing.assert_allclose(updates["W"], [[-0.3, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-0.4], rtol=1e-6)
    updates = first_update(name="sgd", learning_rate=0.5, clip_norm=0.0)
    np.testing.assert_allclose(updates["b"], [-2.0], rtol=1e-6)


def test_momentum_accumulates_gradients():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=1.0, clip_norm=0.0, momentum=0.5), steps=10)
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(GRADIENT, state, PARAMS)
    updates, _ = optimizer.update(GRADIENT, state, PARAMS)
    np.testing.assert_allclose(updates["b"], [-6.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_first_adam_update_is_the_learning_rate(name):
    updates = first_update(name=name, learning_rate=0.1, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-0.1, 0.0]], rtol=1e-5)


def test_clipping_applies_to_the_gradient_not_to_the_update():
    updates = first_update(name="adam", learning_rate=0.1, clip_norm=1e-3)
    np.testing.assert_allclose(updates["W"], [[-0.1, 0.0]], rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_uses_betas_and_epsilon(name):
    config = OptimizerConfig(name=name, learning_rate=1.0, clip_norm=0.0, beta1=0.5, beta2=0.75, epsilon=2.0)
    optimizer = make_optimizer(config, steps=10)
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(GRADIENT, state, PARAMS)
    updates, _ = optimizer.update({"W": jnp.zeros((1, 2)), "b": jnp.array([0.0])}, state, PARAMS)
    # For b, gradients 4 and 0: m = 0.5·2, v = 0.75·4; their corrections divide by 1 - 0.5² and 1 - 0.75².
    expected = -(1.0 / 0.75) / (np.sqrt(3.0 / 0.4375) + 2.0)
    np.testing.assert_allclose(updates["b"], [expected], rtol=1e-5)


def test_rmsprop_divides_by_the_root_mean_square():
    # The mean of squares starts at zero, so after one step it is (1 - 0.99) g².
    updates = first_update(name="rmsprop", learning_rate=0.1, beta2=0.99, clip_norm=0.0)
    np.testing.assert_allclose(updates["b"], [-1.0], rtol=1e-4)


def test_adamw_decays_matrices_but_not_biases():
    updates = first_update(name="adamw", learning_rate=0.1, weight_decay=0.5, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-0.1 - 0.1 * 0.5 * 2.0, 0.1 * 0.5 * 1.0]], rtol=1e-5)
    np.testing.assert_allclose(updates["b"], [-0.1], rtol=1e-5)


def test_sgd_adds_weight_decay_to_the_gradient():
    updates = first_update(name="sgd", learning_rate=1.0, weight_decay=0.5, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-(3.0 + 0.5 * 2.0), 0.5]], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-4.0], rtol=1e-6)


def test_updated_parameters_are_projected():
    """SGD moves b from 4 to 2 and W from 2 to 0.5. The bound is 1.75, for the average too."""
    config = OptimizerConfig(name="sgd", learning_rate=0.5, clip_norm=0.0, average=0.9)
    optimizer = make_optimizer(config, 10, project=lambda params: jax.tree.map(lambda p: jnp.minimum(p, 1.75), params))
    state = optimizer.init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(make_optimizer(config, 10).init(PARAMS))
    updates, state = optimizer.update(GRADIENT, state, PARAMS)
    after = optax.apply_updates(PARAMS, updates)
    np.testing.assert_array_equal(after["b"], [1.75])
    np.testing.assert_array_equal(after["W"], [[0.5, -1.0]])
    # The first decay of the average is a tenth.
    average = optax.tree.get(state, "parameter_average")
    np.testing.assert_allclose(average["b"], [0.1 * 4.0 + 0.9 * 1.75], rtol=1e-6)


def test_average_equals_a_plain_loop():
    rng, chain = np.random.default_rng(0), optax.chain(optax.sgd(0.1), average_parameters(0.6))
    params = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    state, expected = chain.init(params), np.asarray(params, np.float64)
    for t in range(1, 30):
        updates, state = chain.update(jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), state, params)
        params = optax.apply_updates(params, updates)
        decay = min(0.6, t / (9 + t))  # 0.1 at first; 0.6 from the fourteenth update on
        expected = decay * expected + (1 - decay) * np.asarray(params, np.float64)
    np.testing.assert_allclose(state[-1].parameter_average, expected, rtol=1e-5, atol=1e-6)


def test_eval_params_without_average_are_the_parameters():
    params = {"W": jnp.ones((2, 2))}
    for average in (0.0, 0.9):
        optimizer = make_optimizer(OptimizerConfig(average=average, learning_rate=1.0), steps=10)
        updates, opt_state = optimizer.update({"W": jnp.ones((2, 2))}, optimizer.init(params), params)
        after = optax.apply_updates(params, updates)
        found = eval_params(TrainState(1, after, opt_state, ()))
        # Adam's first step is 1. The first decay of the average is a tenth, so the average moves by nine tenths.
        np.testing.assert_allclose(found["W"], np.full((2, 2), 0.1 if average else 0.0), atol=1e-5)


def test_run_evaluates_and_saves_the_average(tmp_path):
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
        config, task, folder, loop.load_run(config, task, folder, mesh), mesh, Display(6, 0, io.StringIO()), ()
    )
    average = eval_params(end.state)
    jax.tree.map(np.testing.assert_array_equal, end.best, average)
    assert any(
        (np.asarray(a) != p).any() for a, p in zip(*map(jax.tree.leaves, (average, end.state.params)), strict=True)
    )
    validation = next(row for row in read_rows(folder.metrics) if row["split"] == "validation")
    assert validation["mse"] == Evaluator(task, end.graphdef, mesh)(average, "validation")["mse"]
