"""The minimal GRU against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import MinGRU, MinGRUParams, step, unroll
from gru_jax.cells.gates import positive, positive_slope

X = np.array([1.0, -2.0])
H = np.array([0.5, -1.0])
# z = sigmoid(0, 1 * 1 - 1) = (1/2, 1/2)
# a_n = (1 * 1 + 0.5, 1 * 2 - 2 * 1) = (1.5, 0)
W = np.array([[0.0, 1.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]])
B = np.array([0.0, -1.0, 0.5, 0.0])
# g(a_n) = (2, 1/2); h' = (1/2 * 1/2 + 1/2 * 2, -1/2 + 1/2 * 1/2)
BY_HAND = [1.25, -0.25]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_step_equals_values_computed_by_hand(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        params = MinGRUParams(jnp.asarray(W, dtype), jnp.asarray(B, dtype))
        h, x = (jnp.asarray(np.broadcast_to(a, (3, 2)), dtype) for a in (H, X))
        y, after = step(MinGRU(), params, h, x)
        assert (y.dtype, after.dtype) == (dtype, dtype)
        np.testing.assert_allclose(after, np.broadcast_to(BY_HAND, (3, 2)), rtol=1e-6)
        np.testing.assert_array_equal(y, after)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_gradient_equals_values_computed_by_hand(backend):
    """One unit, x = 1, W_z = b_z = 0, W_n = w = 1, b_n = 0: z = 1/2, n = 3/2, h1 = (h0 + n) / 2, h2 = (h1 + n) / 2.

    With h0 = 1/2, h1 = 1 and h2 = 5/4. dh2/dn = 1/2 + 1/4, dh2/dh0 = 1/4, and with dz/db_z = 1/4,
    dh2/db_z = 1/4 (n - h1) + 1/4 * 1/2 (n - h0) = 1/8 + 1/8.
    """
    params = MinGRUParams(jnp.array([[0.0, 1.0]]), jnp.zeros(2))

    def h2(params, xs, h0):
        ys, h_last = unroll(MinGRU(), params, xs, h0, backend=backend)
        return h_last[0], ys

    evaluate = jax.jit(jax.grad(h2, argnums=(0, 1, 2), has_aux=True))
    (g_params, g_xs, g_h0), ys = evaluate(params, jnp.ones((2, 1)), jnp.array([0.5]))
    np.testing.assert_allclose(ys[:, 0], [1.0, 1.25], rtol=1e-14)
    np.testing.assert_allclose(g_params.b, [0.25, 0.75], rtol=1e-14)
    np.testing.assert_allclose(g_params.W, [[0.25, 0.75]], rtol=1e-14)
    np.testing.assert_allclose(g_xs[:, 0], [0.25, 0.5], rtol=1e-14)
    np.testing.assert_allclose(g_h0, [0.25], rtol=1e-14)


def test_candidate_is_positive_and_has_the_stated_slope():
    a = jnp.array([-30.0, -2.0, -1e-3, 0.0, 1e-3, 2.0])
    expected = [9.357623e-14, 0.11920292, 0.49975, 0.5, 0.501, 2.5]
    np.testing.assert_allclose(positive(a), expected, rtol=1e-6)
    slopes = jax.vmap(jax.grad(positive))(a)
    np.testing.assert_allclose(positive_slope(a), slopes, rtol=1e-6)
    np.testing.assert_array_equal(slopes[3:], 1)


def test_parameters_have_the_documented_shapes():
    params = MinGRU().init(jax.random.key(0), input_size=3, hidden_size=5)
    assert params._fields == ("W", "b")
    assert [p.shape for p in params] == [(3, 10), (10,)]
    np.testing.assert_array_equal(params.b, 0)
    assert np.abs(params.W).max() < np.sqrt(6 / (3 + 5))  # Glorot, per gate


def test_wrong_parameters_raise_one_line():
    params = MinGRU().init(jax.random.key(0), 3, 4)
    cell, xs = MinGRU(), jnp.ones((2, 5, 3))
    with pytest.raises(ValueError, match=r"^params\.W: expected an axis 2H that 2 divides, got 7$"):
        unroll(cell, params._replace(W=params.W[:, :7]), xs)
    with pytest.raises(ValueError, match=r"^params\.b: expected shape \(8,\), got \(6,\)$"):
        unroll(cell, params._replace(b=params.b[:6]), xs)
    with pytest.raises(ValueError, match=r"^params\.W: expected shape \(I, 2H\), got \(8,\)$"):
        unroll(cell, params._replace(W=params.b), xs)
    with pytest.raises(TypeError, match=r"^params\.b: expected dtype float32, as params\.W, got bfloat16$"):
        unroll(cell, params._replace(b=params.b.astype(jnp.bfloat16)), xs)
    with pytest.raises(
        ValueError, match=r"^MinGRU: W_init: expected one of 'glorot', 'orthogonal', 'uniform', got 'he'$"
    ):
        MinGRU(W_init="he")
