"""Long Expressive Memory (LEM): its step and its gradient, derived by hand.

Reference: Rusch et al., "Long Expressive Memory for Sequence Modeling", 2022 (https://github.com/tk-rusch/LEM).
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
from gru_jax.cells.base import Product, check_init, check_shapes, zeros
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


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LEMParams")
class LEMParams(NamedTuple):
    """The parameters of a LEM. As in the paper, W are recurrent and V are input weights.

    Attributes:
      V: (I, 4H), input weights. Columns are `[1 | 2 | z | y]`.
      W: (H, 3H), weights of y. Columns are `[1 | 2 | z]`.
      W_y: (H, H), weights of z.
      b: (4H,), biases. Columns are `[1 | 2 | z | y]`.
    """

    V: Any
    W: Any
    W_y: Any
    b: Any


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LEMState")
class LEMState(NamedTuple):
    """The state of a LEM.

    Attributes:
      y: (..., H), the output.
      z: (..., H), the memory that drives y.
    """

    y: Any
    z: Any


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    keep_y: Array
    keep_z: Array
    c_1: Array
    c_2: Array
    c_z: Array
    c_y: Array
    z: Array  # z', which W_y multiplies


@register_static
@dataclass(frozen=True)
class LEM:
    """A LEM cell. With input x and state (y, z), a step is

        s_1 = dt * sigmoid(W_1 y + V_1 x + b_1)
        s_2 = dt * sigmoid(W_2 y + V_2 x + b_2)
        z'  = (1 - s_1) * z + s_1 * tanh(W_z y + V_z x + b_z)
        y'  = (1 - s_2) * y + s_2 * tanh(W_y z' + V_y x + b_y)

    s_1 and s_2 are the two learned step sizes. The output is y.

    Args:
      dt: the largest step size. The authors tuned it per task, e.g. 0.31 for permuted sequential MNIST.
      V_init: "uniform" (within 1 / sqrt(H), as the authors), "glorot", "orthogonal" or an initializer
        `(key, shape, dtype) -> array`, e.g. from `jax.nn.initializers`. Each gate is initialized separately.
      W_init: "uniform", "orthogonal", "glorot" or an initializer, of W and W_y.
      b_init: "uniform", "zeros" or an initializer. The authors' code adds two biases, both uniform.

    Example:
      >>> cell = LEM(dt=0.3)
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, (y, z) = unroll(cell, params, jnp.ones((32, 100, 64)))

    Reference: Rusch et al., 2022.
    """

    dt: float = 1.0
    V_init: str | Initializer = "uniform"
    W_init: str | Initializer = "uniform"
    b_init: str | Initializer = "uniform"

    def __post_init__(self):
        arguments.positive_number("LEM: dt", self.dt)
        initializers.check_one("LEM: V_init", self.V_init, initializers.W_INITIALIZERS)
        initializers.check_one("LEM: W_init", self.W_init, initializers.U_INITIALIZERS)
        initializers.check_one("LEM: b_init", self.b_init, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LEMParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LEMParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_V, key_W, key_W_y, key_b = jax.random.split(key, 4)
        return LEMParams(
            V=initializers.gates(self.V_init, key_V, input_size, hidden_size, 4, dtype),
            W=initializers.gates(self.W_init, key_W, hidden_size, hidden_size, 3, dtype),
            W_y=initializers.gates(self.W_init, key_W_y, hidden_size, hidden_size, 1, dtype),
            b=initializers.bias(self.b_init, key_b, 4 * hidden_size, hidden_size, dtype),
        )

    def infer_sizes(self, params: LEMParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        shapes = {"W": ("H", "3H"), "W_y": ("H", "H"), "V": ("I", "4H"), "b": ("4H",)}
        return check_shapes(params, LEMParams, shapes)

    def initial_state(
        self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32
    ) -> LEMState:
        """Returns zeros (*batch_shape, H) for y and for z."""
        return LEMState(zeros(batch_shape, hidden_size, dtype), zeros(batch_shape, hidden_size, dtype))

    def project(self, params: LEMParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `V x` for the two step sizes, z and y: (..., I) -> four arrays (..., H)."""
        return project_gates(xs, params.V, 4, matmul_dtype)

    def step(
        self, params: LEMParams, state: LEMState, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> LEMState:
        """Returns the state after a step, arrays (..., H), given the state before it and the gate inputs."""
        matrices = self.recurrent_matrices(params)
        return self.step_with_residuals(params, products(matrices, matmul_dtype), state, gate_inputs)[0]

    def output(self, state: LEMState) -> Array:
        """Returns y (..., H)."""
        return state.y

    # The gradient. Let g_y be the cotangent of y', and g_z that of z' plus (g_y c_y) W_yᵀ. The cotangents of the
    # pre-activations are g_z c_1, g_y c_2, g_z c_z and g_y c_y. The derivative of s = dt sigmoid(a) is s (1 - s / dt).

    def recurrent_matrices(self, params: LEMParams) -> tuple[Array, ...]:
        """Returns (W, W_y)."""
        return params.W, params.W_y

    def step_with_residuals(
        self, params: LEMParams, products: tuple[Product, ...], state: LEMState, gate_inputs: tuple[Array, ...]
    ) -> tuple[LEMState, tuple[Array, Array]]:
        """Returns the state after a step, and the products `W y` (..., 3H) and `W_y z'` (..., H)."""
        product_W, product_W_y = products
        from_y = product_W(state.y)
        s_1, s_2, m, a_y = self._gates(params, gate_inputs, from_y)
        z = state.z + s_1 * (m - state.z)
        from_z = product_W_y(z)
        return LEMState(state.y + s_2 * (jnp.tanh(a_y + from_z) - state.y), z), (from_y, from_z)

    def linearize(
        self,
        params: LEMParams,
        before: LEMState,
        after: LEMState,
        gate_inputs: tuple[Array, ...],
        residuals: tuple[Array, Array],
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        from_y, from_z = residuals
        s_1, s_2, m, a_y = self._gates(params, gate_inputs, from_y)
        n = jnp.tanh(a_y + from_z)
        return Coefficients(
            keep_y=1 - s_2,
            keep_z=1 - s_1,
            c_1=(m - before.z) * s_1 * (1 - s_1 / self.dt),
            c_2=(n - before.y) * s_2 * (1 - s_2 / self.dt),
            c_z=s_1 * (1 - m * m),
            c_y=s_2 * (1 - n * n),
            z=before.z + s_1 * (m - before.z),
        )

    def pullback(
        self,
        params: LEMParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: LEMState,
    ) -> tuple[LEMState, tuple[Array, Array]]:
        """Returns the cotangent of the state before the step, and (g_y, g_z)."""
        transposed_W, transposed_W_y = transposed_products
        c, g_y = coefficients, cotangent.y
        g_z = cotangent.z + transposed_W_y(g_y * c.c_y)
        from_gates = transposed_W(concatenate_gates((g_z * c.c_1, g_y * c.c_2, g_z * c.c_z)))
        return LEMState(g_y * c.keep_y + from_gates, g_z * c.keep_z), (g_y, g_z)

    def gradients(
        self,
        params: LEMParams,
        xs: Array,
        before: LEMState,
        coefficients: Coefficients,
        step_cotangents: tuple[Array, Array],
        matmul_dtype: DType | None = None,
    ) -> tuple[LEMParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        c, (g_y, g_z) = coefficients, step_cotangents
        gates = (g_z * c.c_1, g_y * c.c_2, g_z * c.c_z, g_y * c.c_y)
        rows = tuple(range(g_y.ndim - 1))
        gradient = LEMParams(
            V=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            W=tuple(matmul_weight_gradient(before.y, gate, matmul_dtype) for gate in gates[:3]),
            W_y=matmul_weight_gradient(c.z, gates[3], matmul_dtype),
            b=tuple(gate.sum(rows) for gate in gates),
        )
        return gradient, project_gates_input_gradient(gates, params.V, matmul_dtype)

    def _gates(
        self, params: LEMParams, gate_inputs: tuple[Array, ...], from_y: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Returns s_1, s_2, the candidate of z, and the pre-activation of y without W_y z'."""
        b_1, b_2, b_z, b_y = split_bias(params.b, 4, like=gate_inputs[0])
        x_1, x_2, x_z, x_y = gate_inputs
        a_1, a_2, a_z = split_gates(from_y, 3)
        s_1, s_2 = self.dt * sigmoid(x_1 + a_1 + b_1), self.dt * sigmoid(x_2 + a_2 + b_2)
        return s_1, s_2, jnp.tanh(x_z + a_z + b_z), x_y + b_y
