"""The LSTM with peepholes, an operator of ONNX that the core does not have.

Reference: Gers and Schmidhuber, "Recurrent Nets that Time and Count", 2000.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType
from gru_jax.cells import LSTM, LSTMParams, LSTMState
from gru_jax.cells.gates import matmul, sigmoid, split_bias, split_gates


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.PeepholeLSTMParams")
class PeepholeLSTMParams(NamedTuple):
    """The parameters of an LSTM with peepholes. Columns are `[i | f | g | o]`.

    Attributes:
      W: (I, 4H), input weights.
      U: (H, 4H), recurrent weights.
      b: (4H,), biases.
      P: (3H,), peephole weights `[i | f | o]`, elementwise.
    """

    W: Any
    U: Any
    b: Any
    P: Any


@register_static
@dataclass(frozen=True)
class PeepholeLSTM:
    """An LSTM whose gates depend on the cell state:

        i = sigmoid(W_xi x + U_hi h + P_i * c + b_i)
        f = sigmoid(W_xf x + U_hf h + P_f * c + b_f)
        g = tanh(W_xg x + U_hg h + b_g)
        c' = f * c + i * g
        o = sigmoid(W_xo x + U_ho h + P_o * c' + b_o)
        h' = o * tanh(c')

    Backend "fused" derives its gradient automatically.
    """

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> PeepholeLSTMParams:
        """Draws the parameters of an LSTM; peephole weights are zeros. The key is consumed."""
        params = LSTM().init(key, input_size, hidden_size, dtype)
        return PeepholeLSTMParams(*params, P=jnp.zeros((3 * hidden_size,), params.W.dtype))

    def infer_sizes(self, params: PeepholeLSTMParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`; raises ValueError or TypeError if they do not match."""
        arguments.named_tuple("params", params, PeepholeLSTMParams)
        input_size, hidden_size, dtype = LSTM().infer_sizes(LSTMParams(*params[:3]))
        P = arguments.floating("params.P", params.P)
        arguments.shape("params.P", P, (3 * hidden_size,))
        arguments.same_dtype("params.P", P, dtype, "params.W")
        return input_size, hidden_size, dtype

    def initial_state(
        self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32
    ) -> LSTMState:
        """Returns zeros (*batch_shape, H) for h and for c."""
        return LSTM().initial_state(hidden_size, batch_shape, dtype)

    def project(self, params: PeepholeLSTMParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` of the four gates: xs (..., I) -> four arrays (..., H)."""
        return LSTM().project(LSTMParams(*params[:3]), xs, matmul_dtype)

    def step(
        self,
        params: PeepholeLSTMParams,
        state: LSTMState,
        gate_inputs: tuple[Array, ...],
        matmul_dtype: DType | None = None,
    ) -> LSTMState:
        """Maps the state before to the state after, arrays (..., H), given what `project` made of the input."""
        h, c = state
        recurrent = split_gates(matmul(h, params.U, matmul_dtype), 4)
        biases, (P_i, P_f, P_o) = split_bias(params.b, 4, like=c), split_bias(params.P, 3, like=c)
        a_i, a_f, a_g, a_o = (d + r + b for d, r, b in zip(gate_inputs, recurrent, biases, strict=True))
        c = sigmoid(a_f + P_f * c) * c + sigmoid(a_i + P_i * c) * jnp.tanh(a_g)
        return LSTMState(sigmoid(a_o + P_o * c) * jnp.tanh(c), c)

    def output(self, state: LSTMState) -> Array:
        """Returns h."""
        return state.h


def with_peepholes(params: LSTMParams, i: Any, o: Any, f: Any) -> tuple[PeepholeLSTM, PeepholeLSTMParams]:
    """Adds peephole weights (H,), in the order of ONNX, to the parameters of an LSTM."""
    P = jnp.concatenate([jnp.asarray(i), jnp.asarray(f), jnp.asarray(o)])
    return PeepholeLSTM(), PeepholeLSTMParams(*params, P=P)
