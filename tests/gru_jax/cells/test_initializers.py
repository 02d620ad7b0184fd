"""Initializers: the distribution of the weights of each gate, biases, keys and dtypes."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, Elman

I, H = 60, 100
KINDS: dict[str, tuple[Any, int]] = {"GRU": (GRU, 3), "LSTM": (LSTM, 4), "Elman": (Elman, 1)}


def gates(matrix, count):
    return np.split(np.asarray(matrix, np.float64), count, axis=1)


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_glorot_has_the_variance_of_each_gate(kind):
    cell, count = kind
    params = cell(U_init="glorot").init(jax.random.key(1), I, H)
    for matrix, fan_in in ((params.W, I), (params.U, H)):
        bound = math.sqrt(6 / (fan_in + H))
        for gate in gates(matrix, count):
            # The relative standard error of the variance of n >= 6000 uniform draws is sqrt(0.8 / n), 1.2 %.
            assert np.var(gate) == pytest.approx(2 / (fan_in + H), rel=0.05)
            assert 0.99 * bound < np.abs(gate).max() <= bound
            assert abs(gate.mean()) < 0.05 * bound


def test_each_gate_is_orthogonal(kind):
    cell, count = kind
    params = cell(W_init="orthogonal").init(jax.random.key(2), I, H)
    for gate in gates(params.U, count):
        np.testing.assert_allclose(gate.T @ gate, np.eye(H), atol=1e-5)
    for gate in gates(params.W, count):  # More columns than rows: the rows are orthonormal.
        np.testing.assert_allclose(gate @ gate.T, np.eye(I), atol=1e-5)


def test_uniform_is_within_one_over_the_square_root_of_the_hidden_size(kind):
    cell, count = kind
    params = cell(W_init="uniform", U_init="uniform", b_init="uniform", **({"forget_bias": 0.0} if count == 4 else {}))
    params = params.init(jax.random.key(3), I, H)
    bound = 1 / math.sqrt(H)
    for array in jax.tree.leaves(params):
        for gate in np.split(np.asarray(array, np.float64), count, axis=-1):
            assert 0.95 * bound < np.abs(gate).max() <= bound
            assert np.var(gate) == pytest.approx(bound**2 / 3, rel=0.2 if gate.ndim == 1 else 0.05)


def test_uniform_initializes_b_hn():
    params = GRU("after", W_init="uniform", U_init="uniform", b_init="uniform").init(jax.random.key(3), I, H)
    assert 0.9 / math.sqrt(H) < np.abs(params.b_hn).max() <= 1 / math.sqrt(H)
    assert not np.isin(params.b_hn, params.b).any()


def test_gates_are_uncorrelated(kind):
    cell, count = kind
    params = cell().init(jax.random.key(4), H, H)
    everything = gates(params.W, count) + gates(params.U, count)
    for number, gate in enumerate(everything):
        for other in everything[:number]:
            assert abs(np.corrcoef(gate.ravel(), other.ravel())[0, 1]) < 0.05


def test_biases_are_zero_by_default():
    params = GRU(reset="after").init(jax.random.key(0), I, H)
    assert not params.b.any()
    assert not params.b_hn.any()
    assert not Elman().init(jax.random.key(0), I, H).b.any()


def test_forget_bias_is_added_only_to_the_forget_gate():
    for forget_bias in (1.0, 0.0, 2.5):
        b_i, b_f, b_g, b_o = np.split(LSTM(forget_bias).init(jax.random.key(0), I, H).b, 4)
        np.testing.assert_array_equal(b_f, np.full(H, forget_bias))
        assert not b_i.any()
        assert not b_g.any()
        assert not b_o.any()
    drawn = LSTM(2.0, b_init="uniform").init(jax.random.key(0), I, H).b
    without = LSTM(0.0, b_init="uniform").init(jax.random.key(0), I, H).b
    np.testing.assert_allclose(drawn - without, np.repeat([0.0, 2.0, 0.0, 0.0], H), atol=1e-6)


def assert_spread_over_delays(keep_bias, longest):
    """exp(b) is uniform from 1 to longest - 1: mean longest / 2, deviation (longest - 2) / sqrt(12)."""
    delays = np.exp(np.asarray(keep_bias, np.float64))
    assert delays.min() >= 1 - 1e-6
    assert delays.max() <= (longest - 1) * (1 + 1e-6)
    assert delays.mean() == pytest.approx(longest / 2, rel=0.1)
    assert delays.std() == pytest.approx((longest - 2) / math.sqrt(12), rel=0.1)


def test_chrono_bias_of_the_update_gate_keeps_the_state():
    b_r, b_z, b_n = np.split(
        GRU(U_init="uniform", b_init="chrono", longest_delay=400).init(jax.random.key(5), 3, 1000).b, 3
    )
    assert_spread_over_delays(-b_z, 400)
    assert not b_r.any()
    assert not b_n.any()


def test_chrono_biases_of_forget_and_input_gates_are_opposite():
    cell = LSTM(U_init="uniform", b_init="chrono", longest_delay=400)
    b_i, b_f, b_g, b_o = np.split(cell.init(jax.random.key(5), 3, 1000).b, 4)
    assert_spread_over_delays(b_f, 400)
    np.testing.assert_array_equal(b_i, -b_f)
    assert not b_g.any()
    assert not b_o.any()


@pytest.mark.parametrize("longest", [1, 2])
def test_chrono_bias_is_zero_for_the_shortest_delays(longest):
    assert not GRU(b_init="chrono", longest_delay=longest).init(jax.random.key(0), 3, 4).b.any()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_chrono_supports_long_delays_in_16_bits(dtype):
    b = GRU(b_init="chrono", longest_delay=10**6).init(jax.random.key(0), 3, 1000, dtype).b
    assert b.dtype == dtype
    _, b_z, _ = np.split(np.asarray(b, np.float64), 3)
    assert -np.log(1e6) - 0.1 <= b_z.min() < -np.log(9e5)


def test_parameters_depend_on_the_key_only(kind):
    cell, _ = kind
    first, again = (cell().init(jax.random.key(7), 3, 4) for _ in range(2))
    other = cell().init(jax.random.key(8), 3, 4)
    for a, b, c in zip(*map(jax.tree.leaves, (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.array_equal(a, c)


def test_raw_and_typed_keys_give_the_same_parameters(kind):
    cell, _ = kind
    for a, b in zip(cell().init(jax.random.key(7), 3, 4), cell().init(jax.random.PRNGKey(7), 3, 4), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_parameters_have_the_given_dtype(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        for cell in (GRU("after"), GRU(b_init="chrono", longest_delay=9), LSTM(), LSTM(b_init="uniform"), Elman()):
            params = cell.init(jax.random.key(0), 3, 4, dtype)
            assert {array.dtype for array in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
            for gate in gates(params.U, params.U.shape[1] // 4):
                np.testing.assert_allclose(gate.T @ gate, np.eye(4), atol=16 * float(jnp.finfo(dtype).eps))
