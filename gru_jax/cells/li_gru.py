"""The light gated recurrent unit (Li-GRU): its step and its gradient, derived by hand.

Reference: Ravanelli et al., "Light Gated Recurrent Units for Speech Recognition", 2018.
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
from gru_jax.cells.base import Product, check_init, check_weights, zeros
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
from gru_jax.cells.normalization import layer_norm

EPSILON = 1e-5
"""Added to the variance of the layer normalization."""


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LiGRUParams")
class LiGRUParams(NamedTuple):
    """The parameters of a Li-GRU. Columns are `[z | n]`.

    Attributes:
      W: (I, 2H), input weights.
      U: (H, 2H), recurrent weights.
      b: (2H,), biases.
      gain: (2H,), the gains of the normalized `W x`, for norm="layer"; None without a norm.
    """

    W: Any
    U: Any
    b: Any
    gain: Any = None


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    z: Array
    c_z: Array  # (h - n) z (1 - z)
    c_n: Array  # 1 - z where n > 0, zero elsewhere


@register_static
@dataclass(frozen=True)
class LiGRU:
    """A light GRU. With input x and state h, a step is

        z  = sigmoid(N_z(W x) + U_z h + b_z)
        n  = relu(N_n(W x) + U_n h + b_n)
        h' = z * h + (1 - z) * n

    Here N is the identity, or the layer normalization of `W x` over both gates, times a gain. It stands in place of the
    paper's batch normalization, which depends on the other sequences of a batch. The gates are concatenated along the
    columns, `[z | n]`: `W = [W_z | W_n]`, likewise U, b and the gain.

    There is no reset gate. As in the paper, z weights the old state, unlike in `GRU`.

    Args:
      norm: "layer" for the layer normalization of `W x`, or None.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform", "chrono" or an initializer.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = LiGRU(norm="layer")
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)))

    Reference: Ravanelli et al., 2018.
    """

    norm: str | None = None
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        arguments.one_of("LiGRU: norm", self.norm, (None, "layer"))
        initializers.check(
            "LiGRU", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LiGRUParams:
        """Initializes the parameters. Gains are ones.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LiGRUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_U, key_b = jax.random.split(key, 3)
        b = initializers.bias(self.b_init, key_b, 2 * hidden_size, hidden_size, dtype)
        if self.longest_delay is not None:
            b = b.at[:hidden_size].set(initializers.chrono(key_b, self.longest_delay, hidden_size, dtype))
        return LiGRUParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 2, dtype),
            U=initializers.gates(self.U_init, key_U, hidden_size, hidden_size, 2, dtype),
            b=b,
            gain=None if self.norm is None else jnp.ones((2 * hidden_size,), dtype),
        )

    def infer_sizes(self, params: LiGRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match the cell."""
        input_size, hidden_size, dtype = check_weights(params, LiGRUParams, gates=2)
        if self.norm is None and params.gain is not None:
            raise ValueError("params.gain: expected None for norm=None, got an array")
        if self.norm is not None:
            gain = arguments.floating("params.gain", params.gain)
            arguments.shape("params.gain", gain, (2 * hidden_size,))
            arguments.same_dtype("params.gain", gain, dtype, "params.W")
        return input_size, hidden_size, dtype

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: LiGRUParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `N(W x)` for the two gates: (..., I) -> two arrays (..., H)."""
        gates = project_gates(xs, params.W, 2, matmul_dtype)
        if self.norm is None:
            return gates
        gains = split_bias(params.gain, 2, like=gates[0])
        return tuple(gate * gain for gate, gain in zip(layer_norm(gates, EPSILON).gates, gains, strict=True))

    def step(
        self, params: LiGRUParams, state: Array, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h' and c_z = (h - n) z (1 - z). Let c_n be 1 - z where n > 0, and zero
    # elsewhere. The cotangents of the pre-activations are g c_z and g c_n. The norm is a function of x alone, so its
    # gradient is computed in bulk.

    def recurrent_matrices(self, params: LiGRUParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self, params: LiGRUParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Returns h' (..., H), and `U h` (..., 2H)."""
        (product,) = products
        recurrent = product(state)
        z, n = _gates(params, gate_inputs, recurrent)
        return n + z * (state - n), recurrent

    def linearize(
        self, params: LiGRUParams, before: Array, after: Array, gate_inputs: tuple[Array, ...], residuals: Array
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        z, n = _gates(params, gate_inputs, residuals)
        return Coefficients(z=z, c_z=(before - n) * z * (1 - z), c_n=jnp.where(n > 0, 1 - z, 0))

    def pullback(
        self,
        params: LiGRUParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: Array,
    ) -> tuple[Array, Array]:
        """Returns the cotangent of h (..., H), and g."""
        g, (z, c_z, c_n) = cotangent, coefficients
        (transposed_product,) = transposed_products
        return g * z + transposed_product(concatenate_gates((g * c_z, g * c_n))), g

    def gradients(
        self,
        params: LiGRUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[LiGRUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        gates = (step_cotangents * coefficients.c_z, step_cotangents * coefficients.c_n)
        rows = tuple(range(step_cotangents.ndim - 1))
        gradient = LiGRUParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            U=tuple(matmul_weight_gradient(before, gate, matmul_dtype) for gate in gates),
            b=tuple(gate.sum(rows) for gate in gates),
        )
        if self.norm is None:
            return gradient, project_gates_input_gradient(gates, params.W, matmul_dtype)

        def project(W: Array, gain: Array, xs: Array) -> tuple[Array, ...]:
            return self.project(params._replace(W=W, gain=gain), xs, matmul_dtype)

        g_W, g_gain, g_xs = jax.vjp(project, params.W, params.gain, xs)[1](gates)
        return gradient._replace(W=g_W, gain=g_gain), g_xs


def _gates(params: LiGRUParams, gate_inputs: tuple[Array, ...], recurrent: Array) -> tuple[Array, Array]:
    """Returns z and n, given `U h`."""
    biases = split_bias(params.b, 2, like=gate_inputs[0])
    a_z, a_n = (d + b + a for d, b, a in zip(gate_inputs, biases, split_gates(recurrent, 2), strict=True))
    return sigmoid(a_z), jax.nn.relu(a_n)
