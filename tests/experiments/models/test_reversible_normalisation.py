"""What is taken out of a window is put back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models.reversible_normalisation import ReversibleNormalisation


@pytest.fixture
def xs():
    return 3.0 + 5.0 * jax.random.normal(jax.random.key(0), (4, 50, 2))


def learned(centre):
    layer = ReversibleNormalisation(2, centre)
    layer.log_gain, layer.bias = nnx.Param(jnp.array([0.3, -1.2])), nnx.Param(jnp.array([0.5, -2.0]))
    return layer


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_the_inverse_undoes_it(centre, xs):
    layer = learned(centre)
    normalised, level = layer(xs)
    np.testing.assert_allclose(layer.inverse(normalised, level), xs, rtol=1e-5, atol=1e-5)


def test_a_fresh_one_standardises_every_window_by_itself(xs):
    normalised, _ = ReversibleNormalisation(2, "mean")(xs)
    np.testing.assert_allclose(normalised.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(normalised.std(axis=1), 1.0, rtol=1e-4)
    around_last, _ = ReversibleNormalisation(2, "last")(xs)
    np.testing.assert_array_equal(around_last[:, -1], 0.0)
    np.testing.assert_allclose(around_last.std(axis=1), 1.0, rtol=1e-4)


@pytest.mark.parametrize("centre", ["mean", "last"])
def test_it_does_not_see_a_windows_level_or_unit(centre, xs):
    layer = learned(centre)
    normalised, _ = layer(xs)
    moved, level = layer(100.0 * xs - 7.0)
    np.testing.assert_allclose(moved, normalised, rtol=1e-3, atol=1e-4)
    plain = layer.inverse(jnp.ones((4, 3, 2)), layer(xs)[1])
    np.testing.assert_allclose(layer.inverse(jnp.ones((4, 3, 2)), level), 100.0 * plain - 7.0, rtol=1e-4, atol=1e-2)


def test_a_constant_window_stays_finite():
    layer = ReversibleNormalisation(1, "mean")
    normalised, level = layer(jnp.full((1, 8, 1), 2.5))
    np.testing.assert_array_equal(normalised, 0.0)
    np.testing.assert_allclose(layer.inverse(jnp.zeros((1, 3, 1)), level), 2.5)
