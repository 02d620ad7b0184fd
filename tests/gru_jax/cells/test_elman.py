"""Steps of the Elman network against values computed by hand, with both activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import Elman, ElmanParams, elman_step, unroll

X = np.array([1.0, -2.0])
H = np.array([0.5, -1.0])
W = np.array([[0.5, 1.0], [0.25, -0.5]])
U = np.array([[1.0, -0.5], [1.0, 1.0]])
B = np.array([1.0, 0.5])

#   h1' = tanh(1 * 0.5 - 2 * 0.25 + 0.5 *  1   - 1 * 1 + 1  ) = tanh(0.5 )
#   h2' = tanh(1 * 1   + 2 * 0.5  - 0.5 * 0.5  - 1 * 1 + 0.5) = tanh(1.25)
BY_HAND = [0.46211715726000974, 0.8482836399575129]


@pytest.mark.parametrize(("x64", "dtype", "rtol"), [(True, jnp.float64, 1e-14), (False, jnp.float32, 1e-6)])
def test_step_equals_values_computed_by_hand(x64, dtype, rtol):
    with jax.enable_x64(x64):
        params = ElmanParams(*(jnp.asarray(array, dtype) for array in (W, U, B)))
        h, x = (jnp.asarray(np.broadcast_to(a, (3, 2)), dtype) for a in (H, X))
        after = elman_step(params, h, x)
        assert after.dtype == dtype
        np.testing.assert_allclose(after, np.broadcast_to(BY_HAND, (3, 2)), rtol=rtol)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_unroll_and_its_gradient_equal_values_computed_by_hand(backend):
    """h1 = tanh(a x1 + u h0), h2 = tanh(a x2 + u h1), with a = u = atanh(1/2), x1 = x2 = 1, h0 = 0: h1 = 1/2.

    Let t = 1 - h2^2; 1 - h1^2 = 3/4. Then dh2/da = t (1 + 3/4 u), dh2/du = t (1/2 + 0), dh2/db = t (1 + 3/4 u),
    dh2/dx1 = 3/4 t u a, dh2/dx2 = t a, dh2/dh0 = 3/4 t u^2.
    """
    u = np.arctanh(0.5)
    params = ElmanParams(jnp.full((1, 1), u), jnp.full((1, 1), u), jnp.zeros((1,)))

    def h2(params, xs, h0):
        ys, h_last = unroll(Elman(), params, xs, h0, backend=backend)
        return h_last[0], ys

    evaluate = jax.jit(jax.grad(h2, argnums=(0, 1, 2), has_aux=True))
    (g_params, g_xs, g_h0), ys = evaluate(params, jnp.ones((2, 1)), jnp.zeros((1,)))
    t = 1 - np.tanh(1.5 * u) ** 2
    np.testing.assert_allclose(ys[:, 0], [0.5, np.tanh(1.5 * u)], rtol=1e-14)
    np.testing.assert_allclose(g_params.W, [[t * (1 + 0.75 * u)]], rtol=1e-14)
    np.testing.assert_allclose(g_params.U, [[t / 2]], rtol=1e-14)
    np.testing.assert_allclose(g_params.b, [t * (1 + 0.75 * u)], rtol=1e-14)
    np.testing.assert_allclose(g_xs[:, 0], [0.75 * t * u * u, t * u], rtol=1e-14)
    np.testing.assert_allclose(g_h0, [0.75 * t * u * u], rtol=1e-14)


#   a = (0.5, 1.25) as above. With b - 1, a = (-0.5, 0.25). With b = (0.5, 0.5), a = (0, 1.25).
RELU_BY_HAND = {(1.0, 0.5): (0.5, 1.25), (0.0, -0.5): (0.0, 0.25), (0.5, 0.5): (0.0, 1.25)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("b", RELU_BY_HAND)
def test_relu_step_equals_values_computed_by_hand(b):
    params = ElmanParams(jnp.asarray(W), jnp.asarray(U), jnp.asarray(b))
    after = elman_step(params, jnp.asarray(H), jnp.asarray(X), activation="relu")
    np.testing.assert_allclose(after, RELU_BY_HAND[b], rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_relu_gradient_equals_values_computed_by_hand(backend):
    """Two units: a1 = (2, -1), h1 = (2, 0); a2 = (2 + 2, -1 + 1), h2 = (4, 0). Units at 0 have no gradient.

    First unit of h2: dW = x2 + u x1 = 2, du = h1 = 2, db = 1 + u = 2, dx1 = u w = 2, dx2 = w = 2, dh0 = u^2 = 1.
    """
    params = ElmanParams(jnp.array([[2.0, -1.0]]), jnp.array([[1.0, 0.5], [0.0, 1.0]]), jnp.zeros((2,)))
    xs, h0 = jnp.array([[1.0], [1.0]]), jnp.zeros((2,))

    def total(params, xs, h0):
        ys, h_last = unroll(Elman("relu"), params, xs, h0, backend=backend)
        return h_last.sum(), ys

    evaluate = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
    (g_params, g_xs, g_h0), ys = evaluate(params, xs, h0)
    np.testing.assert_array_equal(ys, [[2, 0], [4, 0]])
    np.testing.assert_array_equal(g_params.W, [[2, 0]])
    np.testing.assert_array_equal(g_params.U, [[2, 0], [0, 0]])
    np.testing.assert_array_equal(g_params.b, [2, 0])
    np.testing.assert_array_equal(g_xs, [[2], [2]])
    np.testing.assert_array_equal(g_h0, [1, 0])


def test_unknown_activation_raises_value_error():
    with pytest.raises(ValueError, match=r"^Elman: activation: expected one of 'tanh', 'relu', got 'gelu'$"):
        Elman(activation="gelu")
    params = Elman("relu").init(jax.random.key(0), 2, 3)
    np.testing.assert_array_equal(params.W, Elman().init(jax.random.key(0), 2, 3).W)
    with pytest.raises(ValueError, match=r"^Elman: activation: expected one of"):
        elman_step(params, jnp.zeros((3,)), jnp.ones((2,)), activation="sigmoid")


def test_parameters_have_the_documented_shapes():
    params = Elman().init(jax.random.key(0), input_size=3, hidden_size=5)
    assert params._fields == ("W", "U", "b")
    assert [p.shape for p in params] == [(3, 5), (5, 5), (5,)]
    assert Elman() == Elman(W_init="glorot")
