"""Schedules against values worked out by hand, and each rule against its definition on one step."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.config import OptimizerConfig
from experiments.training.optimizer import learning_rate, make_optimizer

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
        # Up over 20 steps; down along half a cosine over 80; half way down is the mean of peak and end.
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


def test_momentum_adds_up():
    optimizer = make_optimizer(OptimizerConfig(name="sgd", learning_rate=1.0, clip_norm=0.0, momentum=0.5), steps=10)
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(GRADIENT, state, PARAMS)
    updates, _ = optimizer.update(GRADIENT, state, PARAMS)
    np.testing.assert_allclose(updates["b"], [-6.0], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_first_steps_by_the_learning_rate(name):
    updates = first_update(name=name, learning_rate=0.1, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-0.1, 0.0]], rtol=1e-5)


def test_what_is_clipped_is_the_gradient_and_not_adams_step():
    updates = first_update(name="adam", learning_rate=0.1, clip_norm=1e-3)
    np.testing.assert_allclose(updates["W"], [[-0.1, 0.0]], rtol=1e-4)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_takes_its_moments_decays_and_epsilon(name):
    config = OptimizerConfig(name=name, learning_rate=1.0, clip_norm=0.0, beta1=0.5, beta2=0.75, epsilon=2.0)
    optimizer = make_optimizer(config, steps=10)
    state = optimizer.init(PARAMS)
    _, state = optimizer.update(GRADIENT, state, PARAMS)
    updates, _ = optimizer.update({"W": jnp.zeros((1, 2)), "b": jnp.array([0.0])}, state, PARAMS)
    # For b, gradients 4 and 0: m = 0.5·2, v = 0.75·4; their corrections divide by 1 - 0.5² and 1 - 0.75².
    expected = -(1.0 / 0.75) / (np.sqrt(3.0 / 0.4375) + 2.0)
    np.testing.assert_allclose(updates["b"], [expected], rtol=1e-5)


def test_rmsprop_divides_by_the_root_mean_square():
    # The mean of squares starts at zero, so that after one step it is (1 - 0.99) g².
    updates = first_update(name="rmsprop", learning_rate=0.1, beta2=0.99, clip_norm=0.0)
    np.testing.assert_allclose(updates["b"], [-1.0], rtol=1e-4)


def test_weight_decay_is_decoupled_for_adamw_and_spares_biases():
    updates = first_update(name="adamw", learning_rate=0.1, weight_decay=0.5, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-0.1 - 0.1 * 0.5 * 2.0, 0.1 * 0.5 * 1.0]], rtol=1e-5)
    np.testing.assert_allclose(updates["b"], [-0.1], rtol=1e-5)


def test_weight_decay_joins_the_gradient_for_sgd():
    updates = first_update(name="sgd", learning_rate=1.0, weight_decay=0.5, clip_norm=0.0)
    np.testing.assert_allclose(updates["W"], [[-(3.0 + 0.5 * 2.0), 0.5]], rtol=1e-6)
    np.testing.assert_allclose(updates["b"], [-4.0], rtol=1e-6)
