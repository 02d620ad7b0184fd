"""The minimal LSTM: a gated cell that is linear in its state, and its gradient, derived by hand.

Reference: Feng et al., "Were RNNs All We Needed?", 2024.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_init, check_shapes, zeros
from gru_jax.cells.gates import (
    matmul_weight_gradient,
    positive,
    positive_slope,
    project_gates,
    project_gates_input_gradient,
    split_bias,
)

LARGEST = 1e30
"""The bound of pre-activations, so that the difference of two infinite ones is a number."""


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.MinLSTMParams")
class MinLSTMParams(NamedTuple):
    """The parameters of a minimal LSTM. Columns are `[f | i | n]`.

    Attributes:
      W: (I, 3H), input weights.
      b: (3H,), biases.
    """

    W: Any
    b: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    keep: Array  # f / (f + i), the weight of h in h'
    c_f: Array
    c_i: Array
    c_n: Array


@register_static
@dataclass(frozen=True)
class MinLSTM:
    """A minimal LSTM with normalized gates. With input x and state h, a step is

        f  = sigmoid(W_f x + b_f)
        i  = sigmoid(W_i x + b_i)
        n  = g(W_n x + b_n)                 g(a) = a + 0.5 for a >= 0, sigmoid(a) for a < 0
        h' = f / (f + i) * h + i / (f + i) * n

    The state is h alone. The gates do not depend on it, so h' is linear in h, and `unroll` with
    `backend="associative"` computes all steps in parallel. For the same reason a single layer is weak; use a `Stack`.

    The gates are concatenated along the columns, `[f | i | n]`.

    Args:
      f_bias: added to b_f by `init`. Larger values keep the state for longer at first.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      b_init: "zeros", "uniform" or an initializer.

    Example:
      >>> cell = MinLSTM()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> params.W.shape
      (64, 384)

    Reference: Feng et al., "Were RNNs All We Needed?", 2024.
    """

    f_bias: float = 0.0
    W_init: str | Initializer = "glorot"
    b_init: str | Initializer = "zeros"

    linear: ClassVar[bool] = True

    def __post_init__(self):
        arguments.finite_number("MinLSTM: f_bias", self.f_bias)
        initializers.check("MinLSTM", self.W_init, None, self.b_init, None, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> MinLSTMParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          MinLSTMParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_b = jax.random.split(key)
        b = initializers.bias(self.b_init, key_b, 3 * hidden_size, hidden_size, dtype)
        return MinLSTMParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 3, dtype),
            b=b.at[:hidden_size].add(self.f_bias),
        )

    def infer_sizes(self, params: MinLSTMParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        return check_shapes(params, MinLSTMParams, {"W": ("I", "3H"), "b": ("3H",)})

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: MinLSTMParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` for the three gates: (..., I) -> three arrays (..., H)."""
        return project_gates(xs, params.W, 3, matmul_dtype)

    def step(
        self, params: MinLSTMParams, state: Array, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        gates, a_n = _gates(params, gate_inputs)
        return gates.f * state + gates.i * positive(a_n)

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h', and F, I the normalized gates. The cotangents of the pre-activations
    # are g (h - n) dF/da_f, g (h - n) dF/da_i and g I g'(a_n), where dF/da_f = F I (1 - f) and dF/da_i = -F I (1 - i).
    # The cotangent of h is g F.

    def recurrent_matrices(self, params: MinLSTMParams) -> tuple[()]:
        """Returns an empty tuple: no matrix multiplies the state."""
        return ()

    def step_with_residuals(
        self, params: MinLSTMParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, None]:
        """Returns h' (..., H), and None: there are no products."""
        return self.step(params, state, gate_inputs), None

    def linearize(
        self, params: MinLSTMParams, before: Array, after: Array, gate_inputs: tuple[Array, ...], residuals: None
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        gates, a_n = _gates(params, gate_inputs)
        change = before - positive(a_n)
        return Coefficients(
            keep=gates.f,
            c_f=change * gates.f * gates.p,
            c_i=-change * gates.i * gates.q,
            c_n=gates.i * positive_slope(a_n),
        )

    def pullback(
        self,
        params: MinLSTMParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: Array,
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of h', each (..., H)."""
        return cotangent * coefficients.keep, cotangent

    def gradients(
        self,
        params: MinLSTMParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[MinLSTMParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        _, *factors = coefficients
        gates = [step_cotangents * factor for factor in factors]
        rows = tuple(range(step_cotangents.ndim - 1))
        gradient = MinLSTMParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            b=tuple(gate.sum(rows) for gate in gates),
        )
        return gradient, project_gates_input_gradient(gates, params.W, matmul_dtype)


class _Gates(NamedTuple):
    """The normalized gates f and i, and `F I (1 - f) / F` and `F I (1 - i) / I` for their derivatives."""

    f: Array
    i: Array
    p: Array
    q: Array


def _gates(params: MinLSTMParams, gate_inputs: tuple[Array, ...]) -> tuple[_Gates, Array]:
    """Returns the gates and the pre-activation of n.

    With p = exp(-a_f) and q = exp(-a_i), f / (f + i) = (1 + q) / (2 + p + q). Unlike f + i, this denominator is never
    zero. Numerator and denominator are divided by the largest of 1, p and q, so that no power overflows.
    """
    biases = split_bias(params.b, 3, like=gate_inputs[0])
    a_f, a_i, a_n = (a + b for a, b in zip(gate_inputs, biases, strict=True))
    log_p, log_q = (jnp.clip(-a, -LARGEST, LARGEST) for a in (a_f, a_i))
    largest = jax.lax.stop_gradient(jnp.maximum(jnp.maximum(log_p, log_q), 0))
    one, p, q = jnp.exp(-largest), jnp.exp(log_p - largest), jnp.exp(log_q - largest)
    total = 2 * one + p + q
    return _Gates((one + q) / total, (one + p) / total, p / total, q / total), a_n
