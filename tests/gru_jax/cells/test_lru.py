"""The Linear Recurrent Unit against complex arithmetic, values computed by hand and its published initialization."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import LRU, LRUParams, LRUState, Stack, step, unroll


def by_hand():
    """lambda = i/2, B = 1 + i, C = 2 - i, D = 3 and gamma = 1/2, all exact in binary but for lambda."""
    nu_log, theta_log = np.log(np.log(2)), np.log(np.pi / 2)
    one = [np.array([[value]]) for value in (1.0, 1.0, 2.0, -1.0, 3.0)]
    return LRUParams(np.array([nu_log]), np.array([theta_log]), *one, np.array([np.log(0.5)]))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_unroll_and_its_gradient_equal_values_computed_by_hand(backend):
    """h1 = (1 + i) / 2, h2 = i/2 h1 + (1 + i) x2 / 2 = (-1 + i) / 4 + 1 + i = (3 + 5i) / 4 for x = (1, 2).

    y1 = Re((2 - i) h1) + 3 = 4.5, y2 = (6 + 5) / 4 + 6 = 8.75. dy2/dC = (3/4, -5/4) for the parts, dy2/dD = 2,
    dy2/dx1 = Re((2 - i) i/2 (1 + i) / 2) = -1/4 and dy2/dx2 = Re((2 - i) (1 + i) / 2) + 3 = 4.5.
    dy2/dgamma_log = Re(C h2) = 11/4. dy2/dh0 = (Re, -Im) of C lambda^2 = -(2 - i)/4.
    """
    params = jax.tree.map(jnp.asarray, by_hand())
    start = LRUState(jnp.zeros(1), jnp.zeros(1))

    def y2(params, xs, h0):
        ys, h_last = unroll(LRU(), params, xs, h0, backend=backend)
        return ys[1, 0], (ys, h_last)

    evaluate = jax.jit(jax.grad(y2, argnums=(0, 1, 2), has_aux=True))
    (g_params, g_xs, g_h0), (ys, h_last) = evaluate(params, jnp.array([[1.0], [2.0]]), start)
    assert_close = partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-14)
    assert_close(ys[:, 0], [4.5, 8.75])
    assert_close([h_last.re[0], h_last.im[0]], [0.75, 1.25])
    assert_close([g_params.C_re[0, 0], g_params.C_im[0, 0], g_params.D[0, 0]], [0.75, -1.25, 2])
    assert_close(g_xs[:, 0], [-0.25, 4.5])
    assert_close(g_params.gamma_log, [2.75])
    assert_close([g_h0.re[0], g_h0.im[0]], [-0.5, -0.25])


@pytest.mark.usefixtures("x64")
def test_unroll_equals_a_loop_in_complex_arithmetic():
    cell = LRU(r_min=0.5, r_max=0.99)
    params = cell.init(jax.random.key(0), 3, 5, jnp.float64)
    p = jax.tree.map(np.asarray, params)
    xs = np.random.default_rng(0).normal(size=(2, 20, 3))
    eigenvalues = np.exp(-np.exp(p.nu_log) + 1j * np.exp(p.theta_log))
    B, C = p.B_re + 1j * p.B_im, p.C_re + 1j * p.C_im
    h, expected = np.zeros((2, 5), complex), []
    for t in range(20):
        h = eigenvalues * h + np.exp(p.gamma_log) * (xs[:, t] @ B)
        expected.append((h @ C).real + xs[:, t] @ p.D)
    ys, h_last = unroll(cell, params, jnp.asarray(xs))
    np.testing.assert_allclose(ys, np.stack(expected, 1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(h_last.re + 1j * h_last.im, h, rtol=1e-12, atol=1e-12)


def test_steps_of_a_stack_equal_unroll():
    """The outputs of a step and of `unroll` are both read from the state and the input."""
    stack = Stack(LRU(r_min=0.5), num_layers=2)
    params = stack.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 6, 3))
    expected, h_last = unroll(stack, params, xs)
    state = stack.initial_state(4, (2,))
    for t in range(6):
        y, state = step(stack, params, state, xs[:, t])
        np.testing.assert_allclose(y, expected[:, t], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, h_last)


def test_outputs_past_the_length_are_zero():
    cell = LRU()
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 6, 3)).at[0, 2:].set(jnp.nan)
    ys, h_last = unroll(cell, params, xs, lengths=[2, 6])
    np.testing.assert_array_equal(ys[0, 2:], 0)
    np.testing.assert_allclose(h_last.re[0], unroll(cell, params, xs[:1, :2])[1].re[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_initialization_is_the_published_one(dtype):
    """|lambda| is uniform on the ring by area, gamma = sqrt(1 - |lambda|^2), B, C and D have the stated variances."""
    I, H = 200, 1000
    params = LRU(r_min=0.4, r_max=0.9, max_phase=0.5).init(jax.random.key(0), I, H, dtype)
    assert {leaf.dtype for leaf in params} == {jnp.dtype(dtype)}
    nu_log, theta_log, B_re, B_im, C_re, C_im, D, gamma_log = (np.asarray(leaf, np.float64) for leaf in params)
    radius, tolerance = np.exp(-np.exp(nu_log)), 0.02 if dtype == jnp.bfloat16 else 1e-3
    assert radius.min() > 0.4 - tolerance
    assert radius.max() < 0.9 + tolerance
    np.testing.assert_allclose((radius**2).mean(), (0.4**2 + 0.9**2) / 2, rtol=0.05)
    assert np.exp(theta_log).max() < 0.5 + tolerance
    np.testing.assert_allclose(np.exp(theta_log).mean(), 0.25, rtol=0.1)
    np.testing.assert_allclose(np.exp(gamma_log), np.sqrt(1 - radius**2), rtol=5 * tolerance)
    for weights, variance in ((B_re, 0.5 / I), (B_im, 0.5 / I), (C_re, 1 / H), (C_im, 1 / H), (D, 1 / I)):
        np.testing.assert_allclose(weights.var(), variance, rtol=0.03)
        np.testing.assert_allclose(weights.mean(), 0, atol=5 * np.sqrt(variance / weights.size))


def test_eigenvalues_of_the_default_ring_are_finite():
    params = LRU().init(jax.random.key(3), 2, 100_000)
    assert all(np.isfinite(leaf).all() for leaf in (params.nu_log, params.theta_log, params.gamma_log))
    assert (np.exp(-np.exp(np.asarray(params.nu_log))) <= 1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r_min": 0.9, "r_max": 0.5}, r"^LRU: r_min, r_max: expected 0 <= r_min < r_max <= 1, got 0.9, 0.5$"),
        ({"r_max": 1.1}, r"^LRU: r_min, r_max: expected 0 <= r_min < r_max <= 1, got 0.0, 1.1$"),
        ({"max_phase": 0.0}, r"^LRU: max_phase: expected a positive number, got 0.0$"),
    ],
)
def test_invalid_rings_raise_value_error(options, message):
    with pytest.raises(ValueError, match=message):
        LRU(**options)
