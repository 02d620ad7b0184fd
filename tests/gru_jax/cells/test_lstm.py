"""Steps of the LSTM against values computed by hand, and its parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized

from gru_jax import LSTM, LSTMParams, LSTMState, lstm_step, unroll

# One input, two units, columns [i1 i2 | f1 f2 | g1 g2 | o1 o2].
X = np.array([2.0])
H = np.array([0.5, -1.0])
C = np.array([1.0, -0.5])
W = np.array([[1.0, -1.0, 0.5, 0.25, -0.5, 0.5, 1.0, 0.25]])
U = np.array([[1.0, 2.0, 0.0, 1.0, -1.0, 0.5, 2.0, -1.0], [2.0, 0.0, -1.0, 0.0, -1.0, 2.0, 1.0, 1.5]])
B = np.array([0.0, 0.0, -1.0, 1.0, 0.0, 1.0, 0.0, -0.5])

#   i1 = sigmoid( 2   + 0.5 * 1 - 1 * 2   + 0  ) = sigmoid( 0.5 ) = 0.6224593312018546
#   i2 = sigmoid(-2   + 0.5 * 2 - 1 * 0   + 0  ) = sigmoid(-1   ) = 0.2689414213699951
#   f1 = sigmoid( 1   + 0.5 * 0 + 1 * 1   - 1  ) = sigmoid( 1   ) = 0.7310585786300049
#   f2 = sigmoid( 0.5 + 0.5 * 1 - 1 * 0   + 1  ) = sigmoid( 2   ) = 0.8807970779778823
#   g1 = tanh   (-1   - 0.5 * 1 + 1 * 1   + 0  ) = tanh   (-0.5 ) = -0.46211715726000974
#   g2 = tanh   ( 1   + 0.5 / 2 - 1 * 2   + 1  ) = tanh   ( 0.25) = 0.24491866240370913
#   o1 = sigmoid( 2   + 0.5 * 2 - 1 * 1   + 0  ) = sigmoid( 2   ) = 0.8807970779778823
#   o2 = sigmoid( 0.5 - 0.5 * 1 - 1 * 1.5 - 0.5) = sigmoid(-2   ) = 0.11920292202211755
C_BY_HAND = [
    0.7310585786300049 * 1.0 + 0.6224593312018546 * -0.46211715726000974,  # 0.44340944198503696
    0.8807970779778823 * -0.5 + 0.2689414213699951 * 0.24491866240370913,  # -0.37452976580204966
]
H_BY_HAND = [0.3668225043290872, -0.04266838585576112]  # o1 tanh(0.44340944198503696), o2 tanh(-0.37452976580204966)


def by_hand(dtype=jnp.float64):
    return LSTMParams(*(jnp.asarray(array, dtype) for array in (W, U, B)))


@pytest.mark.usefixtures("x64")
class TestStep(parameterized.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_equals_values_computed_by_hand(self):
        h, c = self.variant(lstm_step)(by_hand(), LSTMState(jnp.asarray(H), jnp.asarray(C)), jnp.asarray(X))
        np.testing.assert_allclose(c, C_BY_HAND, rtol=1e-14)
        np.testing.assert_allclose(h, H_BY_HAND, rtol=1e-14)


def test_float32_step_supports_batch_axes():
    h, c, x = (jnp.asarray(np.broadcast_to(a, (3, *a.shape)), jnp.float32) for a in (H, C, X))
    state = lstm_step(by_hand(jnp.float32), LSTMState(h, c), x)
    assert isinstance(state, LSTMState)
    assert {state.h.dtype, state.c.dtype} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(state.h, np.broadcast_to(H_BY_HAND, (3, 2)), rtol=1e-6)
    np.testing.assert_allclose(state.c, np.broadcast_to(C_BY_HAND, (3, 2)), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_unroll_and_its_gradient_equal_values_computed_by_hand(backend):
    """If all weights and biases are 0, the gates are 1/2 and g = 0. Then c2 = c0 / 4 and h2 = tanh(c2) / 2.

    For c0 = 4 atanh(1/2): c2 = atanh(1/2), tanh(c2) = 1/2, h2 = 1/4. Let k = dh2/dc2 = 1/2 * (1 - 1/4) = 3/8. Then
      dh2/dc0 = k / 4 = 3/32
      dh2/db_f = k (1/4 c1 + 1/2 * 1/4 c0) = k (2 c2 / 4 + 4 c2 / 8) = 3/8 atanh(1/2)
      dh2/db_g = k (1/2 + 1/2 * 1/2) = 9/32
      dh2/db_i = 0, since g = 0;  dh2/db_o = tanh(c2) / 4 = 1/8
    """
    half = np.arctanh(0.5)
    params = LSTMParams(jnp.zeros((1, 4)), jnp.zeros((1, 4)), jnp.zeros((4,)))

    def h2(params, state):
        ys, h_last = unroll(LSTM(), params, jnp.zeros((2, 1)), state, backend=backend)
        return h_last.h[0], (ys, h_last)

    start = LSTMState(jnp.zeros((1,)), jnp.array([4 * half]))
    gradient, (ys, h_last) = jax.jit(jax.grad(h2, argnums=(0, 1), has_aux=True))(params, start)
    np.testing.assert_allclose(ys[:, 0], [np.tanh(2 * half) / 2, 0.25], rtol=1e-14)
    np.testing.assert_allclose(h_last.c, [half], rtol=1e-14)
    np.testing.assert_allclose(gradient[1].c, [3 / 32], rtol=1e-14)
    np.testing.assert_allclose(gradient[1].h, [0.0], atol=1e-14)
    np.testing.assert_allclose(gradient[0].b, [0.0, 3 / 8 * half, 9 / 32, 1 / 8], rtol=1e-14, atol=1e-14)


def test_forget_gate_keeps_the_memory_and_input_gate_writes_to_it():
    params, x = by_hand(jnp.float32), jnp.asarray(X, jnp.float32)
    state = LSTMState(jnp.asarray(H, jnp.float32), jnp.asarray(C, jnp.float32))
    kept = lstm_step(params._replace(b=jnp.array([-100.0, -100.0, 100.0, 100.0, 0.0, 0.0, 0.0, 0.0])), state, x)
    np.testing.assert_array_equal(kept.c, C)
    written = lstm_step(params._replace(b=jnp.array([100.0, 100.0, -100.0, -100.0, 0.0, 1.0, 0.0, 0.0])), state, x)
    np.testing.assert_allclose(written.c, [-0.46211715726000974, 0.24491866240370913], rtol=1e-6)


def test_parameters_and_state_have_the_documented_shapes():
    params = LSTM().init(jax.random.key(0), input_size=3, hidden_size=5)
    assert params._fields == ("W", "U", "b")
    assert [p.shape for p in params] == [(3, 20), (5, 20), (20,)]
    state = LSTM().initial_state(5, (2,), jnp.bfloat16)
    assert state._fields == ("h", "c")
    assert {(a.shape, a.dtype) for a in state} == {((2, 5), jnp.dtype(jnp.bfloat16))}
    assert not state.h.any()
    assert not state.c.any()


def test_cells_are_hashable_and_equal_by_value():
    assert len({LSTM(), LSTM(forget_bias=1.0), LSTM(forget_bias=0.0)}) == 2
