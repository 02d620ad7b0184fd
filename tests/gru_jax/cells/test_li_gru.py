"""The Li-GRU: its gate, its normalization and its arguments. The oracle tests its values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import LiGRU, LiGRUParams, step, unroll

B, T, I, H = 3, 6, 2, 4
NORMALIZED = LiGRU(norm="layer")


def test_step_equals_values_computed_by_hand():
    """a_z = 0, so z = 1/2. a_n = 2 * 1 + 3 * 1 - 1 = 4, then -2 * 1 + 3 * 2.5 - 1 = 4.5, then less than zero."""
    params = LiGRUParams(jnp.array([[0.0, 1.0]]), jnp.array([[0.0, 3.0]]), jnp.array([0.0, -1.0]))
    ys, h_last = unroll(LiGRU(), params, jnp.array([[2.0], [-2.0], [-99.0]]), jnp.array([1.0]))
    np.testing.assert_array_equal(ys[:, 0], [2.5, 3.5, 1.75])
    np.testing.assert_array_equal(h_last, ys[-1])


def test_update_gate_weights_the_old_state():
    params = LiGRU().init(jax.random.key(0), I, H)
    h, x = jnp.ones((H,)), jnp.ones((I,))
    kept, _ = step(LiGRU(), params._replace(b=params.b.at[:H].set(100)), h, x)
    np.testing.assert_array_equal(kept, h)


def test_normalization_ignores_the_scale_of_input_weights():
    params = NORMALIZED.init(jax.random.key(0), I, H)
    xs = jax.random.normal(jax.random.key(1), (B, T, I)) + 3
    ys, _ = unroll(NORMALIZED, params, xs)
    scaled, _ = unroll(NORMALIZED, params._replace(W=7 * params.W), xs)
    np.testing.assert_allclose(scaled, ys, rtol=1e-3, atol=1e-3)
    assert not np.allclose(ys, unroll(LiGRU(), params._replace(gain=None), xs)[0], atol=1e-2)


def test_normalized_inputs_have_mean_zero_and_variance_one_over_both_gates():
    params = NORMALIZED.init(jax.random.key(0), I, 64)
    both = jnp.concatenate(NORMALIZED.project(params, 9 * jax.random.normal(jax.random.key(1), (B, I))), -1)
    np.testing.assert_allclose(both.mean(-1), np.zeros(B), atol=1e-5)
    np.testing.assert_allclose(both.var(-1), np.ones(B), rtol=1e-3)


def test_chrono_biases_keep_the_state_for_up_to_the_longest_delay():
    b = LiGRU(b_init="chrono", longest_delay=100).init(jax.random.key(0), I, 500).b
    keep = np.exp(np.asarray(b[:500]))  # z / (1 - z), the time scale of a unit
    assert keep.min() >= 1
    assert 90 < keep.max() <= 99
    assert not b[500:].any()


def test_wrong_arguments_raise_one_line():
    with pytest.raises(ValueError, match=r"^LiGRU: norm: expected one of None, 'layer', got 'batch'$"):
        LiGRU(norm="batch")
    params = NORMALIZED.init(jax.random.key(0), I, H)
    with pytest.raises(ValueError, match=r"^params\.gain: expected None for norm=None, got an array$"):
        unroll(LiGRU(), params, jnp.ones((B, T, I)))
    with pytest.raises(TypeError, match=r"^params\.gain: expected an array, got NoneType$"):
        unroll(NORMALIZED, params._replace(gain=None), jnp.ones((B, T, I)))
    with pytest.raises(ValueError, match=r"^params\.gain: expected shape \(8,\), got \(4,\)$"):
        unroll(NORMALIZED, params._replace(gain=jnp.ones(4)), jnp.ones((B, T, I)))
