"""The IndRNN is an Elman network with a diagonal matrix U, whose entries are clipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import Elman, ElmanParams, IndRNN, IndRNNParams, Stack, unroll

B, T, I, H = 3, 6, 2, 5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_values_and_gradients_equal_those_of_a_diagonal_relu_network(backend):
    params = IndRNN(b_init="uniform").init(jax.random.key(0), I, H, jnp.float64)
    params = params._replace(u=params.u.at[0].set(-0.5))
    xs, weights = jax.random.normal(jax.random.key(1), (2, B, T, H), jnp.float64)
    xs = xs[..., :I]

    def of_elman(params):
        dense = ElmanParams(params.W, jnp.diag(params.u), params.b)
        return unroll(Elman("relu"), dense, xs, backend=backend)[0]

    def loss(run):
        return jax.value_and_grad(lambda params: (run(params) * weights).sum())(params)

    found, expected = loss(lambda params: unroll(IndRNN(), params, xs, backend=backend)[0]), loss(of_elman)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_weights_beyond_the_bound_act_as_the_bound_and_have_no_gradient(backend):
    cell = IndRNN(max_u=0.5)
    params = IndRNNParams(jnp.ones((1, 4)), jnp.array([0.4, 0.6, -0.6, 3.0]), jnp.ones((4,)))
    xs = jnp.ones((T, 1))

    def loss(params):
        return unroll(cell, params, xs, backend=backend)[0].sum()

    clipped = cell.clip(params)
    np.testing.assert_allclose(clipped.u, [0.4, 0.5, -0.5, 0.5])
    np.testing.assert_array_equal(loss(params), loss(clipped))
    gradient = jax.grad(loss)(params)
    assert gradient.u[0] > 0
    np.testing.assert_array_equal(gradient.u[1:], np.zeros(3))
    free = IndRNN(max_u=None)
    assert unroll(free, params, xs, backend=backend)[0].sum() > 10 * loss(params)
    assert free.clip(params) == params


@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_weights_at_the_bound_have_the_gradient_of_weights_without_a_bound(backend):
    """Clipped weights are at the bound, which must not change how they learn."""
    params = IndRNNParams(jnp.ones((1, 2)), jnp.array([0.5, -0.5]), jnp.ones((2,)))

    def slope(cell):
        return jax.grad(lambda params: unroll(cell, params, jnp.ones((T, 1)), backend=backend)[0].sum())(params).u

    np.testing.assert_array_equal(slope(IndRNN(max_u=0.5)), slope(IndRNN(max_u=None)))
    through_clip = jax.grad(lambda params: IndRNN(max_u=0.5).clip(params).u.sum())(params).u
    np.testing.assert_array_equal(through_clip, np.ones(2))


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("max_u", [2 ** (1 / 100), 0.99, 1.0])
def test_clipped_weights_in_16_bits_have_the_whole_gradient(max_u, dtype, backend):
    """Clipped in 16 bits, and clipped in float32 before they are rounded, as a layer with `dtype` does."""
    cell = IndRNN(max_u=max_u)

    def slope(u, cell):
        params = IndRNNParams(jnp.ones((1, 2), u.dtype), u, jnp.ones((2,), u.dtype))
        xs = jnp.ones((T, 1), u.dtype)
        return jax.grad(lambda p: unroll(cell, p, xs, backend=backend)[0].astype("float32").sum())(params).u

    far = IndRNNParams(jnp.ones((1, 2)), jnp.array([9.0, -9.0]), jnp.ones((2,)))
    clipped = cell.clip(jax.tree.map(lambda a: a.astype(dtype), far)).u
    assert clipped.dtype == dtype
    assert float(jnp.abs(clipped).max()) <= max_u
    assert float(jnp.abs(clipped).min()) > max_u * (1 - 2**-7)
    for u in (clipped, cell.clip(far).u.astype(dtype)):
        np.testing.assert_allclose(
            slope(u, cell).astype("float32"), slope(u, IndRNN(max_u=None)).astype("float32"), rtol=0.1
        )


def test_gradient_through_time_is_at_most_the_bound_to_the_power_of_the_steps():
    """With the bound 2 ** (1 / T) of the paper, a gradient at most doubles in T steps."""
    T = 50
    cell = IndRNN(max_u=2 ** (1 / T))
    params = IndRNNParams(jnp.zeros((1, 3)), jnp.array([9.0, 1.0, 0.9]), jnp.ones((3,)))
    gradient = jax.grad(lambda h0: unroll(cell, params, jnp.zeros((T, 1)), h0)[1].sum())(jnp.ones(3))
    np.testing.assert_allclose(gradient, [2, 1, 0.9**T], rtol=1e-5)


def test_recurrent_weights_are_drawn_from_zero_to_the_bound():
    for cell, bound in ((IndRNN(), 1), (IndRNN(max_u=0.25), 0.25), (IndRNN(max_u=None), 1)):
        u = np.asarray(cell.init(jax.random.key(0), I, 2000).u)
        assert u.min() >= 0
        assert 0.99 * bound < u.max() <= bound
        assert abs(u.mean() - bound / 2) < 0.02 * bound
    ones = IndRNN(u_init=jax.nn.initializers.ones).init(jax.random.key(0), I, H)
    np.testing.assert_array_equal(ones.u, np.ones(H))


def test_wrong_arguments_raise_one_line():
    with pytest.raises(ValueError, match=r"^IndRNN: max_u: expected a number above 0 or None, got 0$"):
        IndRNN(max_u=0)
    with pytest.raises(TypeError, match=r"^IndRNN: max_u: expected a number, got '1'$"):
        IndRNN(max_u="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^IndRNN: u_init: expected one of 'uniform', got 'orthogonal'$"):
        IndRNN(u_init="orthogonal")
    with pytest.raises(ValueError, match=r"^IndRNN: W_init: expected one of 'glorot'"):
        IndRNN(W_init="eye")
    stack = Stack(IndRNN(), weight_dropout=0.5)
    with pytest.raises(ValueError, match=r"^params\[0\]\[0\]: expected a field U for weight_dropout"):
        unroll(stack, stack.init(jax.random.key(0), I, H), jnp.ones((B, T, I)))
