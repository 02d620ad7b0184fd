"""The LSTM with layer normalization: its step and its gradient, derived by hand.

Reference: Ba et al., "Layer Normalization", 2016.

As in the paper, its code (https://github.com/ryankiros/layer-norm) and Haste, all gates are normalized together. The
memory is normalized for the output only, not where it is carried to the next step.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_shapes, zeros
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
from gru_jax.cells.lstm import LSTM, LSTMState
from gru_jax.cells.normalization import Normalized, layer_norm, layer_norm_pullback


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LayerNormLSTMParams")
class LayerNormLSTMParams(NamedTuple):
    """The parameters of an LSTM with layer normalization. Columns are `[i | f | g | o]`.

    Attributes:
      W: (I, 4H), input weights.
      U: (H, 4H), recurrent weights.
      b: (4H,), biases.
      b_c: (H,), the bias of the normalized memory.
      gain_x: (4H,), the gains of the normalized `W x`.
      gain_h: (4H,), the gains of the normalized `U h`.
      gain_c: (H,), the gains of the normalized memory.
    """

    W: Any
    U: Any
    b: Any
    b_c: Any
    gain_x: Any
    gain_h: Any
    gain_c: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H), and what was normalized."""

    c_i: Array
    c_f: Array
    c_g: Array
    c_o: Array
    c_c: Array  # the derivative of h' by the input of the output's tanh
    f: Array
    of_x: Normalized
    of_h: Normalized
    of_c: Normalized


@register_static
@dataclass(frozen=True)
class LayerNormLSTM:
    """An LSTM cell with layer normalization. With input x and state (h, c), a step is

        i, f, g, o = gain_x * norm(W x) + gain_h * norm(U h) + b
        c' = sigmoid(f) * c + sigmoid(i) * tanh(g)
        h' = sigmoid(o) * tanh(gain_c * norm(c') + b_c)

    where `norm(a) = (a - mean(a)) / sqrt(var(a) + epsilon)`, over all gates in the first line. `norm(W x)` does not
    depend on the state and is computed for all steps at once.

    Args:
      forget_bias: added to b_f by `init`, so that the memory is initially kept (Jozefowicz et al., 2015).
      epsilon: added to the variances.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform", an initializer, or "chrono", which sets b_f and b_i = -b_f and ignores forget_bias.
        Gains are ones, and b_c is zeros.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = LayerNormLSTM()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, (h, c) = unroll(cell, params, jnp.ones((32, 100, 64)))

    Reference: Ba et al., 2016.
    """

    forget_bias: float = 1.0
    epsilon: float = 1e-5
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        arguments.finite_number("LayerNormLSTM: forget_bias", self.forget_bias)
        arguments.positive_number("LayerNormLSTM: epsilon", self.epsilon)
        initializers.check(
            "LayerNormLSTM", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LayerNormLSTMParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LayerNormLSTMParams.
        """
        plain = LSTM(self.forget_bias, self.W_init, self.U_init, self.b_init, self.longest_delay)
        W, U, b = plain.init(key, input_size, hidden_size, dtype)
        gain_x, gain_h = (jnp.ones((4 * hidden_size,), dtype) for _ in range(2))  # One array cannot be donated twice.
        gain_c, b_c = jnp.ones((hidden_size,), dtype), jnp.zeros((hidden_size,), dtype)
        return LayerNormLSTMParams(W, U, b, b_c, gain_x=gain_x, gain_h=gain_h, gain_c=gain_c)

    def infer_sizes(self, params: LayerNormLSTMParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        matrices, gains = {"U": ("H", "4H"), "W": ("I", "4H")}, {"gain_x": ("4H",), "gain_h": ("4H",), "gain_c": ("H",)}
        return check_shapes(params, LayerNormLSTMParams, matrices | {"b": ("4H",), "b_c": ("H",)} | gains)

    def initial_state(
        self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32
    ) -> LSTMState:
        """Returns zeros (*batch_shape, H) for h and for c."""
        return LSTMState(zeros(batch_shape, hidden_size, dtype), zeros(batch_shape, hidden_size, dtype))

    def project(self, params: LayerNormLSTMParams, xs: Array, matmul_dtype: DType | None = None) -> Normalized:
        """Returns the normalized `W x` for the four gates: (..., I) -> four arrays (..., H), and their scale."""
        return layer_norm(project_gates(xs, params.W, 4, matmul_dtype), self.epsilon)

    def step(
        self,
        params: LayerNormLSTMParams,
        state: LSTMState,
        gate_inputs: Normalized,
        matmul_dtype: DType | None = None,
    ) -> LSTMState:
        """Returns the state after a step, arrays (..., H), given the state before it and the gate inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: LSTMState) -> Array:
        """Returns h (..., H)."""
        return state.h

    # The gradient. Let g_h be the cotangent of h', and g_c the cotangent of c' plus that of the norm of c', given
    # g_h c_c gain_c. The cotangents of the pre-activations are g_c c_i, g_c c_f, g_c c_g and g_h c_o. The cotangent of
    # c is g_c f.

    def recurrent_matrices(self, params: LayerNormLSTMParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self,
        params: LayerNormLSTMParams,
        products: tuple[Product, ...],
        state: LSTMState,
        gate_inputs: Normalized,
    ) -> tuple[LSTMState, Array]:
        """Returns the state after a step, and `U h` (..., 4H)."""
        (product,) = products
        recurrent = product(state.h)
        i, f, g, o = _gates(params, gate_inputs, layer_norm(split_gates(recurrent, 4), self.epsilon))
        c = f * state.c + i * g
        return LSTMState(o * _output_tanh(params, layer_norm((c,), self.epsilon)), c), recurrent

    def linearize(
        self,
        params: LayerNormLSTMParams,
        before: LSTMState,
        after: LSTMState,
        gate_inputs: Normalized,
        residuals: Array,
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        of_h = layer_norm(split_gates(residuals, 4), self.epsilon)
        i, f, g, o = _gates(params, gate_inputs, of_h)
        of_c = layer_norm((f * before.c + i * g,), self.epsilon)
        t = _output_tanh(params, of_c)
        return Coefficients(
            c_i=g * i * (1 - i),
            c_f=before.c * f * (1 - f),
            c_g=i * (1 - g * g),
            c_o=t * o * (1 - o),
            c_c=o * (1 - t * t),
            f=f,
            of_x=gate_inputs,
            of_h=of_h,
            of_c=of_c,
        )

    def pullback(
        self,
        params: LayerNormLSTMParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: LSTMState,
    ) -> tuple[LSTMState, tuple[Array, Array]]:
        """Returns the cotangent of the state before the step, and (g_h, g_c)."""
        (transposed_product,) = transposed_products
        g_h = cotangent.h
        (through_norm,) = _pull_back_norm(params.gain_c, coefficients.of_c, (g_h * coefficients.c_c,))
        g_c = cotangent.c + through_norm
        g_recurrent = _pull_back_norm(params.gain_h, coefficients.of_h, _gate_cotangents(coefficients, g_h, g_c))
        return LSTMState(transposed_product(concatenate_gates(g_recurrent)), g_c * coefficients.f), (g_h, g_c)

    def gradients(
        self,
        params: LayerNormLSTMParams,
        xs: Array,
        before: LSTMState,
        coefficients: Coefficients,
        step_cotangents: tuple[Array, Array],
        matmul_dtype: DType | None = None,
    ) -> tuple[LayerNormLSTMParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        g_h, g_c = step_cotangents
        of_x, of_h, of_c = coefficients.of_x, coefficients.of_h, coefficients.of_c
        gates = _gate_cotangents(coefficients, g_h, g_c)
        g_output = g_h * coefficients.c_c
        g_projected = _pull_back_norm(params.gain_x, of_x, gates)
        g_recurrent = _pull_back_norm(params.gain_h, of_h, gates)
        rows = tuple(range(g_h.ndim - 1))
        gradient = LayerNormLSTMParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in g_projected),
            U=tuple(matmul_weight_gradient(before.h, gate, matmul_dtype) for gate in g_recurrent),
            b=tuple(gate.sum(rows) for gate in gates),
            b_c=g_output.sum(rows),
            gain_x=tuple((gate * a).sum(rows) for gate, a in zip(gates, of_x.gates, strict=True)),
            gain_h=tuple((gate * a).sum(rows) for gate, a in zip(gates, of_h.gates, strict=True)),
            gain_c=(g_output * of_c.gates[0]).sum(rows),
        )
        return gradient, project_gates_input_gradient(g_projected, params.W, matmul_dtype)


def _gates(params: LayerNormLSTMParams, of_x: Normalized, of_h: Normalized) -> tuple[Array, Array, Array, Array]:
    vectors = (split_bias(vector, 4, like=of_x.gates[0]) for vector in (params.gain_x, params.gain_h, params.b))
    pairs = zip(of_x.gates, of_h.gates, *vectors, strict=True)
    a_i, a_f, a_g, a_o = (gain_x * x + gain_h * h + b for x, h, gain_x, gain_h, b in pairs)
    return sigmoid(a_i), sigmoid(a_f), jnp.tanh(a_g), sigmoid(a_o)


def _output_tanh(params: LayerNormLSTMParams, of_c: Normalized) -> Array:
    (c,) = of_c.gates
    return jnp.tanh(jnp.broadcast_to(params.gain_c, c.shape) * c + jnp.broadcast_to(params.b_c, c.shape))


def _gate_cotangents(coefficients: Coefficients, g_h: Array, g_c: Array) -> tuple[Array, Array, Array, Array]:
    """Returns the cotangents of the pre-activations."""
    c_i, c_f, c_g, c_o, *_ = coefficients
    return g_c * c_i, g_c * c_f, g_c * c_g, g_h * c_o


def _pull_back_norm(gain: Array, normalized: Normalized, cotangents: tuple[Array, ...]) -> tuple[Array, ...]:
    """Returns the cotangents before a norm, given those after its gain."""
    gains = split_bias(gain, len(cotangents), like=cotangents[0])
    return layer_norm_pullback(normalized, [g * s for g, s in zip(cotangents, gains, strict=True)])
