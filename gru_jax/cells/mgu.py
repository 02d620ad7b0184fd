"""The minimal gated unit (MGU): its step and its gradient, derived by hand.

Reference: Zhou et al., "Minimal Gated Unit for Recurrent Neural Networks", 2016.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export
from jax.tree_util import register_static

from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_init, check_weights, zeros
from gru_jax.cells.gates import (
    matmul_weight_gradient,
    products,
    project_gates,
    project_gates_input_gradient,
    sigmoid,
    split_bias,
    split_gates,
)


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.MGUParams")
class MGUParams(NamedTuple):
    """The parameters of an MGU. Columns are `[f | n]`.

    Attributes:
      W: (I, 2H), input weights.
      U: (H, 2H), recurrent weights.
      b: (2H,), biases.
    """

    W: Any
    U: Any
    b: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    f: Array
    c_f: Array  # (n - h) f (1 - f)
    c_s: Array  # h f (1 - f)
    c_n: Array  # f (1 - n²)


@register_static
@dataclass(frozen=True)
class MGU:
    """A minimal gated unit. With input x and state h, a step is

        f  = sigmoid(W_f x + U_f h + b_f)
        n  = tanh(W_n x + U_n (f * h) + b_n)
        h' = (1 - f) * h + f * n

    It is a GRU with reset="before" whose two gates are one. The gates are concatenated along the columns, `[f | n]`:
    `W = [W_f | W_n]`, likewise U and b.

    `flax.linen.MGUCell` is another cell: there f weights the old state, and the product with U_n comes before f.

    Args:
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform", "chrono" or an initializer.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = MGU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)))

    Reference: Zhou et al., 2016.
    """

    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        initializers.check(
            "MGU", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> MGUParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          MGUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_U, key_b = jax.random.split(key, 3)
        b = initializers.bias(self.b_init, key_b, 2 * hidden_size, hidden_size, dtype)
        if self.longest_delay is not None:
            b = b.at[:hidden_size].set(-initializers.chrono(key_b, self.longest_delay, hidden_size, dtype))
        return MGUParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 2, dtype),
            U=initializers.gates(self.U_init, key_U, hidden_size, hidden_size, 2, dtype),
            b=b,
        )

    def infer_sizes(self, params: MGUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        return check_weights(params, MGUParams, gates=2)

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: MGUParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` for the two gates: (..., I) -> two arrays (..., H)."""
        return project_gates(xs, params.W, 2, matmul_dtype)

    def step(
        self, params: MGUParams, state: Array, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        each = products(self.recurrent_matrices(params), matmul_dtype)
        return self.step_with_residuals(params, each, state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h', c_n = f (1 - n²) and c_f = (n - h) f (1 - f). The cotangent of f * h
    # is s = (g c_n) U_nᵀ. With c_s = h f (1 - f), the cotangents of the pre-activations are g c_f + s c_s and g c_n.

    def recurrent_matrices(self, params: MGUParams) -> tuple[Array, ...]:
        """Returns (U_f, U_n)."""
        return split_gates(params.U, 2)

    def step_with_residuals(
        self, params: MGUParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, tuple[Array, Array]]:
        """Returns h' (..., H), and the products `U_f h` and `U_n (f * h)`, each (..., H)."""
        product_f, product_n = products
        a_f = product_f(state)
        f = _forget(params, gate_inputs, a_f)
        a_n = product_n(f * state)
        n = _candidate(params, gate_inputs, a_n)
        return state + f * (n - state), (a_f, a_n)

    def linearize(
        self,
        params: MGUParams,
        before: Array,
        after: Array,
        gate_inputs: tuple[Array, ...],
        residuals: tuple[Array, Array],
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        a_f, a_n = residuals
        f, n = _forget(params, gate_inputs, a_f), _candidate(params, gate_inputs, a_n)
        slope = f * (1 - f)
        return Coefficients(f=f, c_f=(n - before) * slope, c_s=before * slope, c_n=f * (1 - n * n))

    def pullback(
        self, params: MGUParams, transposed_products: tuple[Product, ...], coefficients: Coefficients, cotangent: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        """Returns the cotangent of h, and those of the pre-activations, each (..., H)."""
        g, (f, c_f, c_s, c_n) = cotangent, coefficients
        transposed_product_f, transposed_product_n = transposed_products
        g_n = g * c_n
        s = transposed_product_n(g_n)
        g_f = g * c_f + s * c_s
        return g * (1 - f) + s * f + transposed_product_f(g_f), (g_f, g_n)

    def gradients(
        self,
        params: MGUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: tuple[Array, Array],
        matmul_dtype: DType | None = None,
    ) -> tuple[MGUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        g_f, g_n = step_cotangents
        rows = tuple(range(g_f.ndim - 1))
        gradient = MGUParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in (g_f, g_n)),
            U=(
                matmul_weight_gradient(before, g_f, matmul_dtype),
                matmul_weight_gradient(coefficients.f * before, g_n, matmul_dtype),
            ),
            b=tuple(gate.sum(rows) for gate in (g_f, g_n)),
        )
        return gradient, project_gates_input_gradient((g_f, g_n), params.W, matmul_dtype)


def _forget(params: MGUParams, gate_inputs: tuple[Array, ...], product: Array) -> Array:
    """Returns f, given `U_f h`."""
    return sigmoid(gate_inputs[0] + split_bias(params.b, 2, like=product)[0] + product)


def _candidate(params: MGUParams, gate_inputs: tuple[Array, ...], product: Array) -> Array:
    """Returns n, given `U_n (f * h)`."""
    return jnp.tanh(gate_inputs[1] + split_bias(params.b, 2, like=product)[1] + product)
