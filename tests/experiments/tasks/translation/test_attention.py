"""Additive attention against its equations in NumPy, and matmuls of rounded operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.translation.model import AdditiveAttention, product

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


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize("transposed", [False, True])
def test_values_and_gradients(dtype, tolerance, transposed):
    rng = np.random.default_rng(0)
    x, w, g = (rng.normal(size=shape) for shape in ((3, 4, 6), (6, 5), (3, 4, 5)))
    given = [jnp.asarray(a, jnp.float32) for a in (x, w.T if transposed else w)]
    y, vjp = jax.vjp(lambda x, w: product(x, w, dtype, transposed), *given)
    x_gradient, w_gradient = vjp(jnp.asarray(g, jnp.float32))
    scale = {"rtol": tolerance, "atol": tolerance * 4}
    np.testing.assert_allclose(y, x @ w, **scale)
    np.testing.assert_allclose(x_gradient, g @ w.T, **scale)
    expected = np.einsum("btk,btn->kn", x, g)
    np.testing.assert_allclose(w_gradient, expected.T if transposed else expected, **scale)
    assert {y.dtype, x_gradient.dtype, w_gradient.dtype} == {jnp.dtype(jnp.float32)}


def test_operands_are_rounded_in_forward_and_backward_pass():
    x, w = jnp.full((1, 1), 1 + 2**-10), jnp.ones((1, 1))  # bfloat16 cannot represent 1 + 2⁻¹⁰
    assert product(x, w, jnp.float32)[0, 0] == x[0, 0]
    assert product(x, w, jnp.bfloat16)[0, 0] == 1
    gradient = jax.grad(lambda w: product(x, w, jnp.bfloat16).sum())(w)
    assert gradient[0, 0] == 1
