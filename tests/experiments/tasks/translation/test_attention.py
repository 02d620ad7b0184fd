"""Additive attention against its equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.translation.model import AdditiveAttention

B, S, H, D, A = 3, 5, 4, 6, 7


@pytest.fixture(scope="module")
def attention():
    module = AdditiveAttention(H, D, A, jnp.float32, nnx.Rngs(0))
    module.key.b[...] = jax.random.normal(jax.random.key(9), (A,))
    return module


def draw():
    keys = jax.random.split(jax.random.key(1))
    return jax.random.normal(keys[0], (B, H)), jax.random.normal(keys[1], (B, S, D))


def test_attention_equals_its_equations(attention):
    h, annotations = draw()
    lengths = np.array([5, 2, 1])
    context, weights = attention(h, attention.memory(annotations, lengths))
    W, U, v, b = (np.asarray(p[...], np.float64) for p in (attention.W, attention.key.W, attention.v, attention.key.b))
    for row, length in enumerate(lengths):
        a = np.asarray(annotations[row, :length], np.float64)
        energies = np.tanh(np.asarray(h[row], np.float64) @ W + a @ U + b) @ v[:, 0]
        expected = np.exp(energies) / np.exp(energies).sum()
        np.testing.assert_allclose(weights[row, :length], expected, rtol=1e-5)
        np.testing.assert_allclose(context[row], expected @ a, rtol=1e-5, atol=1e-6)
    assert not np.asarray(weights)[np.arange(S) >= lengths[:, None]].any()


def test_padding_changes_neither_values_nor_gradients(attention):
    h, annotations = draw()
    lengths = np.array([5, 2, 1])
    past = np.arange(S)[None, :, None] >= lengths[:, None, None]

    def total(annotations):
        return attention(h, attention.memory(annotations, lengths))[0].sum()

    other = jnp.where(past, 1e3, annotations)
    assert total(other) == total(annotations)
    gradient = jax.grad(total)(annotations)
    assert not np.asarray(gradient)[np.broadcast_to(past, gradient.shape)].any()
    assert np.asarray(gradient)[~np.broadcast_to(past, gradient.shape)].all()
