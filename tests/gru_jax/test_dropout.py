"""Dropout: its rate, its mask, the scale of kept entries and its gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import dropout

SHAPE = (101, 999)  # An odd number of entries.


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_entries_are_dropped_at_the_rate_and_the_rest_scaled(rate):
    y = np.asarray(dropout(jnp.full(SHAPE, 3.0), rate, jax.random.key(0)))
    spread = np.sqrt(rate * (1 - rate) / y.size)
    assert abs((y == 0).mean() - rate) < 5 * spread
    np.testing.assert_allclose(y[y != 0], 3 / (1 - rate), rtol=2**-15 / (1 - rate))


def test_entries_are_dropped_independently():
    """Neighbors are uncorrelated, and so are the two entries that share a random word."""
    dropped = np.asarray(dropout(jnp.ones(SHAPE), 0.5, jax.random.key(1)) == 0, np.float64).ravel()
    half = (dropped.size + 1) // 2
    spread = 1 / np.sqrt(half)
    assert abs(np.corrcoef(dropped[: dropped.size - half], dropped[half:])[0, 1]) < 5 * spread
    assert abs(np.corrcoef(dropped[:-1], dropped[1:])[0, 1]) < 5 * spread


def test_mask_depends_on_the_key():
    x = jnp.ones((8, 9))
    first, again, other = (dropout(x, 0.5, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_input_is_returned_without_a_key_or_a_rate():
    x = jnp.ones((3, 4))
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert dropout(jnp.ones((0, 4)), 0.5, jax.random.key(0)).shape == (0, 4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.float64])
def test_dtype_is_kept(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        assert dropout(jnp.ones((5, 3), dtype), 0.5, jax.random.key(0)).dtype == dtype


def test_gradient_is_the_scaled_mask():
    x, key = jnp.linspace(1, 2, 35).reshape(5, 7), jax.random.key(2)
    gradient = jax.grad(lambda x: dropout(x, 0.25, key).sum())(x)
    np.testing.assert_allclose(gradient, dropout(jnp.ones((5, 7)), 0.25, key), rtol=1e-6)
    spoilt = jax.grad(lambda x: jnp.where(gradient == 0, dropout(x, 0.25, key), 0).sum())(jnp.full((5, 7), jnp.inf))
    assert not np.isnan(spoilt).any()
