"""The MGU is a GRU whose two gates are one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, MGU, GRUParams, unroll

B, T, I, H = 3, 6, 2, 4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_values_and_gradients_equal_those_of_a_gru_with_equal_gates(backend):
    params = MGU(b_init="uniform").init(jax.random.key(0), I, H, jnp.float64)
    xs, weights = jax.random.normal(jax.random.key(1), (2, B, T, H), jnp.float64)
    xs = xs[..., :I]

    def of_gru(params):
        W, U, b = (jnp.concatenate([array[..., :H], array], -1) for array in params)
        return unroll(GRU(), GRUParams(W, U, b), xs, backend=backend)[0]

    def of_mgu(params):
        return unroll(MGU(), params, xs, backend=backend)[0]

    def loss(run, params):
        ys = run(params)
        return (ys * weights).sum(), ys

    found = jax.grad(lambda params: loss(of_mgu, params), has_aux=True)(params)
    expected = jax.grad(lambda params: loss(of_gru, params), has_aux=True)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, expected)


def test_chrono_biases_keep_the_state_for_up_to_the_longest_delay():
    b = MGU(b_init="chrono", longest_delay=100).init(jax.random.key(0), I, 500).b
    keep = np.exp(-np.asarray(b[:500]))  # 1 / f - 1, the time scale of a unit
    assert keep.min() >= 1
    assert 90 < keep.max() <= 99
    assert not b[500:].any()


def test_recurrent_matrix_of_each_gate_is_orthogonal():
    U = MGU().init(jax.random.key(0), I, H).U
    for gate in (U[:, :H], U[:, H:]):
        np.testing.assert_allclose(gate @ gate.T, np.eye(H), atol=1e-5)
