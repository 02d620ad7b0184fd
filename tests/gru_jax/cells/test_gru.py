"""Steps of the GRU against values computed by hand, and its parameters."""

import dataclasses
import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from gru_jax import GRU, GRUParams, gru_step, unroll

# One input, two units, columns [r1 r2 | z1 z2 | n1 n2]. The values are chosen to give short sums.
X = np.array([2.0])
H = np.array([0.5, -1.0])
W = np.array([[0.5, -0.5, 0.25, 1.0, -1.0, 0.5]])
U = np.array([[1.0, 0.0, 0.0, 2.0, 1.0, -1.0], [0.0, 1.0, 1.0, 0.0, 2.0, 0.5]])
B = np.array([0.0, 0.5, -1.0, 0.0, 0.5, 0.0])
B_HN = np.array([0.5, -0.25])

# The gates, for both values of `reset`:
#   r1 = sigmoid( 2 *  0.5  + (0.5 * 1 - 1 * 0) + 0  ) = sigmoid( 1.5) = 0.8175744761936437
#   r2 = sigmoid( 2 * -0.5  + (0.5 * 0 - 1 * 1) + 0.5) = sigmoid(-1.5) = 0.18242552380635635
#   z1 = sigmoid( 2 *  0.25 + (0.5 * 0 - 1 * 1) - 1  ) = sigmoid(-1.5) = 0.18242552380635635
#   z2 = sigmoid( 2 *  1    + (0.5 * 2 - 1 * 0) + 0  ) = sigmoid( 3  ) = 0.9525741268224334
# reset="before": r * h = (0.40878723809682185, -0.18242552380635635)
#   n1 = tanh(-2 + (0.40878723809682185 * 1 - 0.18242552380635635 * 2) + 0.5) = tanh(-1.4560638095158909)
#   n2 = tanh( 1 - (0.40878723809682185 * 1 + 0.18242552380635635 / 2) + 0  ) = tanh(0.5)
# reset="after": U_hh h + b_hn = (0.5 * 1 - 1 * 2 + 0.5, -0.5 * 1 - 1 * 0.5 - 0.25) = (-1, -1.25)
#   n1 = tanh(-2 + 0.8175744761936437  * -1    + 0.5) = tanh(-2.3175744761936437)
#   n2 = tanh( 1 + 0.18242552380635635 * -1.25 + 0  ) = tanh( 0.7719680952420546)
BY_HAND = {
    "before": [
        0.8175744761936437 * 0.5 + 0.18242552380635635 * -0.8968854052010677,
        0.0474258731775666 * -1 + 0.9525741268224334 * 0.46211715726000974,
    ],
    "after": [
        0.8175744761936437 * 0.5 + 0.18242552380635635 * -0.9807772276999004,
        0.0474258731775666 * -1 + 0.9525741268224334 * 0.6480724062539749,
    ],
}


def by_hand(reset, dtype=jnp.float64):
    b_hn = jnp.asarray(B_HN, dtype) if reset == "after" else None
    return GRUParams(jnp.asarray(W, dtype), jnp.asarray(U, dtype), jnp.asarray(B, dtype), b_hn)


def test_values_computed_by_hand_match_the_comment():
    np.testing.assert_allclose(BY_HAND["before"], [0.24517244825874088, 0.3927749743890523], rtol=1e-14)
    np.testing.assert_allclose(BY_HAND["after"], [0.22986843859632147, 0.5699111333275267], rtol=1e-14)
    assert math.tanh(-1.4560638095158909) == pytest.approx(-0.8968854052010677, rel=1e-15)
    assert math.tanh(-2.3175744761936437) == pytest.approx(-0.9807772276999004, rel=1e-15)


@pytest.mark.usefixtures("x64")
class TestStep(parameterized.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters("before", "after")
    def test_equals_values_computed_by_hand(self, reset):
        step = self.variant(partial(gru_step, reset=reset))
        h = step(by_hand(reset), jnp.asarray(H), jnp.asarray(X))
        assert h.dtype == jnp.float64
        np.testing.assert_allclose(h, BY_HAND[reset], rtol=1e-14)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_float32_step_supports_batch_axes(reset):
    h = jnp.asarray(np.broadcast_to(H, (3, 2, 2)), jnp.float32)
    x = jnp.asarray(np.broadcast_to(X, (3, 2, 1)), jnp.float32)
    after = gru_step(by_hand(reset, jnp.float32), h, x, reset=reset)
    assert after.dtype == jnp.float32
    np.testing.assert_allclose(after, np.broadcast_to(BY_HAND[reset], (3, 2, 2)), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_step_accepts_numpy_arrays(dtype):
    h = gru_step(GRUParams(W.astype(dtype), U.astype(dtype), B.astype(dtype)), H.astype(dtype), X.astype(dtype))
    assert isinstance(h, jax.Array)
    assert h.dtype == jnp.float32
    np.testing.assert_allclose(h, BY_HAND["before"], rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("reset", ["before", "after"])
def test_unroll_and_its_gradient_equal_values_computed_by_hand(reset, backend):
    """If U = 0 and W = 0, both gates are sigmoid(0) = 1/2 and n = tanh(b_n + b_hn / 2).

    Choose b_hn = 2 atanh(1/2) or b_n = atanh(1/2), so that n = 1/2: h1 = h0 / 2 + 1/4, h2 = h0 / 4 + 3/8. Then
      dh2/dh0 = 1/4
      dh2/db_n = z dn/db_n (1 + 1 - z) = 1/2 * 3/4 * 3/2 = 9/16
      dh2/db_z = 1/4 (n - h1) + 1/2 * 1/4 (n - h0); for h0 = 1: 1/4 * -1/4 - 1/8 * 1/2 = -1/8
      dh2/db_r = 0 for "before", r (1 - r) b_hn * 9/16 = 9/64 b_hn for "after"; dh2/db_hn = r * 9/16 = 9/32
    """
    half = math.atanh(0.5)
    params = GRUParams(jnp.zeros((1, 3)), jnp.zeros((1, 3)), jnp.array([0.0, 0.0, half]), None)
    if reset == "after":
        params = params._replace(b=jnp.zeros((3,)), b_hn=jnp.array([2 * half]))

    def h2(params, h0):
        ys, h_last = unroll(GRU(reset), params, jnp.zeros((2, 1)), h0, backend=backend)
        return h_last[0], ys

    gradient, ys = jax.jit(jax.grad(h2, argnums=(0, 1), has_aux=True))(params, jnp.array([1.0]))
    np.testing.assert_allclose(ys[:, 0], [0.75, 0.625], rtol=1e-14)
    np.testing.assert_allclose(gradient[1], [0.25], rtol=1e-14)
    through_r = 9 / 64 * 2 * half if reset == "after" else 0.0
    np.testing.assert_allclose(gradient[0].b, [through_r, -1 / 8, 9 / 16], rtol=1e-14)
    if reset == "after":
        np.testing.assert_allclose(gradient[0].b_hn, [9 / 32], rtol=1e-14)
    else:
        assert gradient[0].b_hn is None


def test_update_gate_weights_the_candidate():
    params = by_hand("before", jnp.float32)
    h, x = jnp.asarray(H, jnp.float32), jnp.asarray(X, jnp.float32)
    kept = gru_step(params._replace(b=params.b.at[2:4].set(-100)), h, x)
    np.testing.assert_array_equal(kept, h)
    replaced = gru_step(params._replace(b=params.b.at[2:4].set(100)), h, x)
    np.testing.assert_allclose(replaced, [-0.8968854052010677, 0.46211715726000974], rtol=1e-6)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_candidate_ignores_the_state_if_the_reset_gate_is_zero(reset):
    params = by_hand(reset, jnp.float32)
    shut = params._replace(b=params.b.at[:4].set(jnp.array([-100.0, -100.0, 100.0, 100.0])))  # r = 0, z = 1: h' = n
    after = gru_step(shut, jnp.asarray(H, jnp.float32), jnp.asarray(X, jnp.float32), reset=reset)
    np.testing.assert_allclose(after, np.tanh([-1.5, 1.0]), rtol=1e-6)


def test_reset_before_equals_after_if_the_reset_gate_is_one():
    b = jnp.asarray(B, jnp.float32).at[:2].set(100)
    h, x = jnp.asarray(H, jnp.float32), jnp.asarray(X, jnp.float32)
    before = gru_step(by_hand("before", jnp.float32)._replace(b=b), h, x)
    after = gru_step(by_hand("after", jnp.float32)._replace(b=b, b_hn=jnp.zeros((2,))), h, x, reset="after")
    np.testing.assert_allclose(before, after, rtol=1e-6)


def test_parameters_have_the_documented_shapes():
    before = GRU().init(jax.random.key(0), input_size=3, hidden_size=5)
    after = GRU(reset="after").init(jax.random.key(0), 3, 5)
    assert before._fields == ("W", "U", "b", "b_hn")
    assert [p.shape for p in before[:3]] == [(3, 15), (5, 15), (15,)]
    assert before.b_hn is None
    assert after.b_hn.shape == (5,)
    assert len(jax.tree.leaves(before)) == 3
    assert len(jax.tree.leaves(after)) == 4


def test_cells_are_frozen_hashable_and_equal_by_value():
    assert GRU() == GRU(reset="before")
    assert hash(GRU()) == hash(GRU(reset="before"))
    assert len({GRU(), GRU(), GRU(reset="after")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        GRU().reset = "after"  # type: ignore[misc]


def test_initial_state_is_zeros_of_the_given_dtype():
    state = GRU().initial_state(4, (2, 3), jnp.bfloat16)
    assert state.shape == (2, 3, 4)
    assert state.dtype == jnp.bfloat16
    assert not state.any()
    assert GRU().initial_state(4).shape == (4,)
