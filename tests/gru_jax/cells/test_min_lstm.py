"""The minimal LSTM against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import MinLSTM, MinLSTMParams, step, unroll
from tests.gru_jax import oracle

LOG3 = np.log(3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_step_equals_values_computed_by_hand(dtype):
    """f = sigmoid(log 3) = 3/4 and i = sigmoid(0) = 1/2, so F = 3/5 and I = 2/5; n = g(1) = 3/2, h' = 3/5 h + 3/5."""
    with jax.enable_x64(dtype == jnp.float64):
        params = MinLSTMParams(jnp.array([[LOG3, 0.0, 1.0]], dtype), jnp.zeros(3, dtype))
        y, after = step(MinLSTM(), params, jnp.array([[0.5], [-1.0]], dtype), jnp.ones((2, 1), dtype))
        assert (y.dtype, after.dtype) == (dtype, dtype)
        np.testing.assert_allclose(after, [[0.9], [0.0]], rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(y, after)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_gradient_equals_values_computed_by_hand(backend):
    """One step as above with h0 = 1/2. dF/da_f = F I (1 - f) = 3/50, dF/da_i = -F I (1 - i) = -3/25, h0 - n = -1.

    So dh'/db_f = -3/50, dh'/db_i = 3/25, dh'/db_n = I = 2/5 and dh'/dh0 = 3/5.
    """
    params = MinLSTMParams(jnp.array([[LOG3, 0.0, 1.0]]), jnp.zeros(3))

    def last(params, xs, h0):
        return unroll(MinLSTM(), params, xs, h0, backend=backend)[1][0]

    g_params, g_xs, g_h0 = jax.jit(jax.grad(last, argnums=(0, 1, 2)))(params, jnp.ones((1, 1)), jnp.array([0.5]))
    np.testing.assert_allclose(g_params.b, [-0.06, 0.12, 0.4], rtol=1e-14)
    np.testing.assert_allclose(g_params.W, [[-0.06, 0.12, 0.4]], rtol=1e-14)
    np.testing.assert_allclose(g_xs, [[-0.06 * LOG3 + 0.4]], rtol=1e-14)
    np.testing.assert_allclose(g_h0, [0.6], rtol=1e-14)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("closed", [20.0, 200.0, 1e30])
def test_closed_gates_are_finite_and_keep_their_ratio(closed, backend):
    """With both gates closed, f + i rounds to zero. The ratio of equal gates is 1/2."""
    params = MinLSTMParams(jnp.zeros((1, 3)), jnp.array([-closed, -closed, 0.5]))

    def total(params):
        ys, _ = unroll(MinLSTM(), params, jnp.ones((3, 1)), jnp.zeros(1), backend=backend)
        return ys.sum(), ys

    gradient, ys = jax.jit(jax.grad(total, has_aux=True))(params)
    np.testing.assert_allclose(ys[:, 0], [0.5, 0.75, 0.875], rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("backend", ["scan", "fused", "associative"])
@pytest.mark.parametrize(
    ("a_f", "a_i", "keep"), [(-100.0, -120.0, 1.0), (-120.0, -100.0, 0.0), (-100.0, -99.0, 1 / (1 + np.e))]
)
def test_closed_gates_of_different_sizes_keep_their_ratio(a_f, a_i, keep, backend):
    """exp(100) is no number in float32. The ratio is that of f = exp(a_f) to i = exp(a_i)."""
    params = MinLSTMParams(jnp.zeros((1, 3)), jnp.array([a_f, a_i, 2.0]))

    def last(params):
        return unroll(MinLSTM(), params, jnp.zeros((1, 1)), jnp.array([1.0]), backend=backend)[1][0]

    h, slope = jax.value_and_grad(last)(params)
    np.testing.assert_allclose(h, keep + (1 - keep) * 2.5, rtol=1e-6)
    change = keep * (1 - keep) * (1.0 - 2.5)
    np.testing.assert_allclose(slope.b, [change, -change, 1 - keep], rtol=1e-5, atol=1e-8)


def test_a_closed_input_gate_keeps_its_weight_and_gradient():
    """With f open and i = sigmoid(-20), I is about i, far below the spacing of float32 near 1."""
    params = MinLSTMParams(jnp.zeros((1, 3)), jnp.array([20.0, -20.0, 0.5]))
    h, slope = jax.value_and_grad(lambda params: unroll(MinLSTM(), params, jnp.ones((1, 1)))[1][0])(params)
    np.testing.assert_allclose(h, oracle.sigmoid(-20.0), rtol=1e-6)
    np.testing.assert_allclose(slope.b[1], oracle.sigmoid(-20.0), rtol=1e-6)


def test_parameters_have_the_documented_shapes_and_biases():
    params = MinLSTM(f_bias=2.0).init(jax.random.key(0), input_size=3, hidden_size=5)
    assert params._fields == ("W", "b")
    assert [p.shape for p in params] == [(3, 15), (15,)]
    np.testing.assert_array_equal(params.b, [2.0] * 5 + [0.0] * 10)
    np.testing.assert_array_equal(MinLSTM().init(jax.random.key(0), 3, 5).b, 0)
    with pytest.raises(TypeError, match=r"^MinLSTM: f_bias: expected a number, got '1'$"):
        MinLSTM(f_bias="1")  # pyright: ignore[reportArgumentType]
