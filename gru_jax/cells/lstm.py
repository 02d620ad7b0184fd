"""The Long Short-Term Memory (LSTM): its step and its gradient, derived by hand.

References: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; Gers et al., "Learning to Forget", 2000.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_init, check_weights, run_step, zeros
from gru_jax.cells.gates import (
    concatenate_gates,
    matmul_weight_gradient,
    products,
    project_gates,
    project_gates_input_gradient,
    sigmoid,
    split_bias,
    split_gates,
)


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LSTMParams")
class LSTMParams(NamedTuple):
    """The parameters of an LSTM. Columns are `[i | f | g | o]`.

    Attributes:
      W: (I, 4H), input weights.
      U: (H, 4H), recurrent weights.
      b: (4H,), biases.
    """

    W: Any
    U: Any
    b: Any


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LSTMState")
class LSTMState(NamedTuple):
    """The state of an LSTM. Access its fields by name, since the carry of Flax is a tuple in the other order, (c, h).

    Attributes:
      h: (..., H), the output.
      c: (..., H), the memory.
    """

    h: Any
    c: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    c_i: Array
    c_f: Array
    c_g: Array
    c_o: Array
    c_c: Array  # dh'/dc'
    f: Array


@register_static
@dataclass(frozen=True)
class LSTM:
    """An LSTM cell. With input x and state (h, c), a step is

        i = sigmoid(W_i x + U_i h + b_i)
        f = sigmoid(W_f x + U_f h + b_f)
        g = tanh(W_g x + U_g h + b_g)
        o = sigmoid(W_o x + U_o h + b_o)
        c' = f * c + i * g
        h' = o * tanh(c')

    The gates are concatenated along the columns, `[i | f | g | o]`: `W = [W_i | W_f | W_g | W_o]`, likewise U and b.

    Args:
      forget_bias: added to b_f by `init`, so that the memory is initially kept (Jozefowicz et al., 2015).
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform" (one of PyTorch's two biases, with forget_bias=0.0), an initializer, or "chrono", which
        sets b_f and b_i = -b_f and ignores forget_bias.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = LSTM()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> state = lstm_step(params, cell.initial_state(128, (32,)), jnp.ones((32, 64)))
      >>> state.h.shape, state.c.shape
      ((32, 128), (32, 128))
    """

    forget_bias: float = 1.0
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        arguments.finite_number("LSTM: forget_bias", self.forget_bias)
        initializers.check(
            "LSTM", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LSTMParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LSTMParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_U, key_b = jax.random.split(key, 3)
        b_i, b_f, b_g, b_o = split_gates(initializers.bias(self.b_init, key_b, 4 * hidden_size, hidden_size, dtype), 4)
        if self.longest_delay is not None:
            b_f = initializers.chrono(key_b, self.longest_delay, hidden_size, dtype)
            b_i = -b_f
        else:
            b_f = b_f + jnp.asarray(self.forget_bias, dtype)
        return LSTMParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 4, dtype),
            U=initializers.gates(self.U_init, key_U, hidden_size, hidden_size, 4, dtype),
            b=concatenate_gates((b_i, b_f, b_g, b_o)),
        )

    def infer_sizes(self, params: LSTMParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        return check_weights(params, LSTMParams, gates=4)

    def initial_state(
        self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32
    ) -> LSTMState:
        """Returns zeros (*batch_shape, H) for h and for c."""
        return LSTMState(zeros(batch_shape, hidden_size, dtype), zeros(batch_shape, hidden_size, dtype))

    def project(self, params: LSTMParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` for the four gates: (..., I) -> four arrays (..., H)."""
        return project_gates(xs, params.W, 4, matmul_dtype)

    def step(
        self, params: LSTMParams, state: LSTMState, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> LSTMState:
        """Returns the state after a step, arrays (..., H), given the state before it and the gate inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: LSTMState) -> Array:
        """Returns h (..., H)."""
        return state.h

    # The gradient. Let g_h be the cotangent of h', and g_c the cotangent of c' plus g_h c_c. The cotangents of the
    # pre-activations are g_c c_i, g_c c_f, g_c c_g and g_h c_o. The cotangent of c is g_c f.

    def recurrent_matrices(self, params: LSTMParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self, params: LSTMParams, products: tuple[Product, ...], state: LSTMState, gate_inputs: tuple[Array, ...]
    ) -> tuple[LSTMState, Array]:
        """Returns the state after a step, and `U h` (..., 4H)."""
        (product,) = products
        recurrent = product(state.h)
        i, f, g, o = _gates(params, gate_inputs, recurrent)
        c = f * state.c + i * g
        return LSTMState(o * jnp.tanh(c), c), recurrent

    def linearize(
        self, params: LSTMParams, before: LSTMState, after: LSTMState, gate_inputs: tuple[Array, ...], residuals: Array
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        i, f, g, o = _gates(params, gate_inputs, residuals)
        t = jnp.tanh(f * before.c + i * g)
        return Coefficients(
            c_i=g * i * (1 - i),
            c_f=before.c * f * (1 - f),
            c_g=i * (1 - g * g),
            c_o=t * o * (1 - o),
            c_c=o * (1 - t * t),
            f=f,
        )

    def pullback(
        self,
        params: LSTMParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: LSTMState,
    ) -> tuple[LSTMState, tuple[Array, Array]]:
        """Returns the cotangent of the state before the step, and (g_h, g_c)."""
        c_i, c_f, c_g, c_o, c_c, f = coefficients
        (transposed_product,) = transposed_products
        g_h = cotangent.h
        g_c = cotangent.c + g_h * c_c
        g_gates = concatenate_gates((g_c * c_i, g_c * c_f, g_c * c_g, g_h * c_o))
        return LSTMState(transposed_product(g_gates), g_c * f), (g_h, g_c)

    def gradients(
        self,
        params: LSTMParams,
        xs: Array,
        before: LSTMState,
        coefficients: Coefficients,
        step_cotangents: tuple[Array, Array],
        matmul_dtype: DType | None = None,
    ) -> tuple[LSTMParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        c_i, c_f, c_g, c_o, _, _ = coefficients
        g_h, g_c = step_cotangents
        gates = (g_c * c_i, g_c * c_f, g_c * c_g, g_h * c_o)
        rows = tuple(range(g_h.ndim - 1))
        gradient = LSTMParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            U=tuple(matmul_weight_gradient(before.h, gate, matmul_dtype) for gate in gates),
            b=tuple(gate.sum(rows) for gate in gates),
        )
        return gradient, project_gates_input_gradient(gates, params.W, matmul_dtype)


def _gates(params: LSTMParams, gate_inputs: tuple[Array, ...], recurrent: Array) -> tuple[Array, Array, Array, Array]:
    biases = split_bias(params.b, 4, like=gate_inputs[0])
    a_i, a_f, a_g, a_o = (d + b + a for d, b, a in zip(gate_inputs, biases, split_gates(recurrent, 4), strict=True))
    return sigmoid(a_i), sigmoid(a_f), jnp.tanh(a_g), sigmoid(a_o)


def lstm_step(params: LSTMParams, state: LSTMState, x: Array, *, matmul_dtype: DType | None = None) -> LSTMState:
    """Runs one step of an LSTM; see `LSTM` for the equations.

    Args:
      params: LSTMParams.
      state: LSTMState of arrays (..., H), the state before the step.
      x: (..., I), the input.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.

    Returns:
      LSTMState, the state after the step.

    Raises:
      ValueError, TypeError: if shapes or dtypes do not match.

    Example:
      >>> params = LSTM().init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> state = lstm_step(params, LSTM().initial_state(128, (32,)), jnp.ones((32, 64)))

    References: Hochreiter and Schmidhuber, 1997; Gers et al., 2000.
    """
    return run_step(LSTM(), params, state, x, matmul_dtype, state_name="state")[1]
