"""The minimal GRU: a gated cell that is linear in its state, and its gradient, derived by hand.

Reference: Feng et al., "Were RNNs All We Needed?", 2024.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_init, check_shapes, zeros
from gru_jax.cells.gates import (
    matmul_weight_gradient,
    positive,
    positive_slope,
    project_gates,
    project_gates_input_gradient,
    sigmoid,
    split_bias,
)


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.MinGRUParams")
class MinGRUParams(NamedTuple):
    """The parameters of a minimal GRU. Columns are `[z | n]`.

    Attributes:
      W: (I, 2H), input weights.
      b: (2H,), biases.
    """

    W: Any
    b: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    keep: Array  # 1 - z, the weight of h in h'
    c_z: Array
    c_n: Array


@register_static
@dataclass(frozen=True)
class MinGRU:
    """A minimal GRU. With input x and state h, a step is

        z  = sigmoid(W_z x + b_z)
        n  = g(W_n x + b_n)                 g(a) = a + 0.5 for a >= 0, sigmoid(a) for a < 0
        h' = (1 - z) * h + z * n

    The gates do not depend on the state, so h' is linear in h, and `unroll` with `backend="associative"` computes all
    steps in parallel. For the same reason a single layer is weak; use a `Stack`.

    The gates are concatenated along the columns, `[z | n]`.

    Args:
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      b_init: "zeros", "uniform" or an initializer.

    Example:
      >>> cell = MinGRU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> params.W.shape
      (64, 256)

    Reference: Feng et al., "Were RNNs All We Needed?", 2024.
    """

    W_init: str | Initializer = "glorot"
    b_init: str | Initializer = "zeros"

    linear: ClassVar[bool] = True

    def __post_init__(self):
        initializers.check("MinGRU", self.W_init, None, self.b_init, None, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> MinGRUParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          MinGRUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_b = jax.random.split(key)
        return MinGRUParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 2, dtype),
            b=initializers.bias(self.b_init, key_b, 2 * hidden_size, hidden_size, dtype),
        )

    def infer_sizes(self, params: MinGRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        return check_shapes(params, MinGRUParams, {"W": ("I", "2H"), "b": ("2H",)})

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: MinGRUParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` for the two gates: (..., I) -> two arrays (..., H)."""
        return project_gates(xs, params.W, 2, matmul_dtype)

    def step(
        self, params: MinGRUParams, state: Array, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        a_z, a_n = _pre_activations(params, gate_inputs)
        return state + sigmoid(a_z) * (positive(a_n) - state)

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h'. The cotangents of the pre-activations are g (n - h) z (1 - z) and
    # g z g'(a). The cotangent of h is g (1 - z).

    def recurrent_matrices(self, params: MinGRUParams) -> tuple[()]:
        """Returns an empty tuple: no matrix multiplies the state."""
        return ()

    def step_with_residuals(
        self, params: MinGRUParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, None]:
        """Returns h' (..., H), and None: there are no products."""
        return self.step(params, state, gate_inputs), None

    def linearize(
        self, params: MinGRUParams, before: Array, after: Array, gate_inputs: tuple[Array, ...], residuals: None
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        a_z, a_n = _pre_activations(params, gate_inputs)
        z = sigmoid(a_z)
        return Coefficients(1 - z, c_z=(positive(a_n) - before) * z * (1 - z), c_n=z * positive_slope(a_n))

    def pullback(
        self,
        params: MinGRUParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: Array,
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of h', each (..., H)."""
        return cotangent * coefficients.keep, cotangent

    def gradients(
        self,
        params: MinGRUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[MinGRUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        gates = (step_cotangents * coefficients.c_z, step_cotangents * coefficients.c_n)
        rows = tuple(range(step_cotangents.ndim - 1))
        gradient = MinGRUParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            b=tuple(gate.sum(rows) for gate in gates),
        )
        return gradient, project_gates_input_gradient(gates, params.W, matmul_dtype)


def _pre_activations(params: MinGRUParams, gate_inputs: tuple[Array, ...]) -> tuple[Array, Array]:
    b_z, b_n = split_bias(params.b, 2, like=gate_inputs[0])
    return gate_inputs[0] + b_z, gate_inputs[1] + b_n
