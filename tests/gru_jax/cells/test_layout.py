"""Recurrent matrices laid out for loops: whichever way, the product is the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, unroll
from gru_jax.cells.layout import lay_out, lay_out_transpose

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("rows", "K", "N", "dtype", "parts", "transposed"),
    [
        (2, 8, 24, "float32", 1, False),
        (32, 256, 768, "float32", 1, False),
        (32, 256, 768, "bfloat16", 4, False),
        (33, 250, 750, "bfloat16", 4, False),
        (64, 512, 1536, "bfloat16", 1, False),
        (2, 1024, 48, "float32", 1, True),
        (128, 1024, 48, "bfloat16", 3, True),
    ],
)
def test_product(rows, K, N, dtype, parts, transposed):
    x, w = (jnp.asarray(RNG.normal(size=shape), dtype) for shape in ((rows, K), (K, N)))
    laid = lay_out(w, rows, "cpu")
    assert (len(laid.parts), laid.transposed) == (parts, transposed)
    check(laid, x, np.asarray(x, np.float64) @ np.asarray(w, np.float64), dtype)


@pytest.mark.parametrize(
    ("rows", "K", "N", "dtype", "parts", "transposed"),
    [
        (2, 8, 24, "float32", 1, False),
        (32, 256, 768, "float32", 3, False),
        (33, 250, 750, "bfloat16", 4, False),
        (2, 448, 1344, "float32", 1, True),
        (1, 512, 1600, "float32", 2, True),
        (1, 512, 1600, "bfloat16", 1, True),
    ],
)
def test_product_with_the_transpose(rows, K, N, dtype, parts, transposed):
    x, w = (jnp.asarray(RNG.normal(size=shape), dtype) for shape in ((rows, N), (K, N)))
    laid = lay_out_transpose(w, rows, "cpu")
    assert (len(laid.parts), laid.transposed) == (parts, transposed)
    check(laid, x, np.asarray(x, np.float64) @ np.asarray(w, np.float64).T, dtype)


def check(laid, x, expected, dtype):
    got = np.asarray(jax.jit(lambda x: laid.product(x.astype(jnp.float32), dtype))(x), np.float64)
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_get_the_matrix_whole(platform):
    w = jnp.ones((1024, 3072))
    for laid in (lay_out(w, 64, platform), lay_out_transpose(w, 64, platform)):
        assert len(laid.parts) == 1
        assert not laid.transposed


@pytest.mark.parametrize("matmul_dtype", [None, jnp.bfloat16])
@pytest.mark.parametrize("cell", [GRU(), GRU("after"), LSTM()])
def test_layers_large_enough_for_every_rule_equal_the_plain_scan_for_each_of_many_weights(cell, matmul_dtype):
    """Cut into parts going forward, read from the transpose in parts going back, and mapped over weights."""
    H, B, T = 464, 4, 3
    params = jax.vmap(lambda key: cell.init(key, 3, H))(jax.random.split(jax.random.key(0), 2))
    xs = jnp.asarray(RNG.normal(size=(T, B, 3)), jnp.float32)

    def gradient(backend):
        def loss(params):
            ys, _ = unroll(cell, params, xs, time_major=True, backend=backend, matmul_dtype=matmul_dtype)
            return (ys**2).sum()

        return jax.jit(jax.vmap(jax.grad(loss)))(params)

    for name, got, expected in zip(type(params)._fields, gradient("fused"), gradient("scan"), strict=True):
        if expected is not None:
            error = jnp.linalg.norm(got - expected) / jnp.linalg.norm(expected)
            assert error < (1e-5 if matmul_dtype is None else 2e-2), name
