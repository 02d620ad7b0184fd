"""The Elman network: its step and its gradient, derived by hand. It is the baseline for gated layers.

References: Elman, "Finding Structure in Time", 1990; Le et al., "A Simple Way to Initialize Recurrent Networks of
Rectified Linear Units", 2015 (the ReLU).
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
from gru_jax.cells.gates import matmul, matmul_input_gradient, matmul_weight_gradient, products

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.ElmanParams")
class ElmanParams(NamedTuple):
    """The parameters of an Elman network.

    Attributes:
      W: (I, H), input weights.
      U: (H, H), recurrent weights.
      b: (H,), biases.
    """

    W: Any
    U: Any
    b: Any


@register_static
@dataclass(frozen=True)
class Elman:
    """An Elman cell. With input x and state h, a step is

        h' = f(W x + U h + b)

    Args:
      activation: f, "tanh" or "relu".
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform" (one of PyTorch's two biases) or an initializer.

    Example:
      >>> cell = Elman()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> h = elman_step(params, jnp.zeros((32, 128)), jnp.ones((32, 64)))
    """

    activation: str = "tanh"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    def __post_init__(self):
        arguments.one_of("Elman: activation", self.activation, ACTIVATIONS)
        initializers.check("Elman", self.W_init, self.U_init, self.b_init, None, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> ElmanParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          ElmanParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_U, key_b = jax.random.split(key, 3)
        return ElmanParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 1, dtype),
            U=initializers.gates(self.U_init, key_U, hidden_size, hidden_size, 1, dtype),
            b=initializers.bias(self.b_init, key_b, hidden_size, hidden_size, dtype),
        )

    def infer_sizes(self, params: ElmanParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        return check_weights(params, ElmanParams, gates=1)

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: ElmanParams, xs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns `W x`: (..., I) -> (..., H)."""
        return matmul(xs, params.W, matmul_dtype)

    def step(self, params: ElmanParams, state: Array, gate_inputs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns h' (..., H), given h (..., H) and the projected inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h'. The cotangent a of the pre-activation is g (1 - h'²) for tanh. For
    # ReLU it is g where h' > 0, and zero elsewhere. The cotangent of h is a Uᵀ.

    def recurrent_matrices(self, params: ElmanParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self, params: ElmanParams, products: tuple[Product, ...], state: Array, gate_inputs: Array
    ) -> tuple[Array, None]:
        """Returns h' (..., H), and None: its derivative needs no other residuals."""
        activation, (product,) = ACTIVATIONS[self.activation], products
        return activation(gate_inputs + jnp.broadcast_to(params.b, gate_inputs.shape) + product(state)), None

    def linearize(self, params: ElmanParams, before: Array, after: Array, gate_inputs: Array, residuals: None) -> Array:
        """Returns the derivative of the activation, (..., H)."""
        return 1 - after * after if self.activation == "tanh" else (after > 0).astype(after.dtype)

    def pullback(
        self, params: ElmanParams, transposed_products: tuple[Product, ...], coefficients: Array, cotangent: Array
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of the pre-activation, each (..., H)."""
        a = cotangent * coefficients
        return transposed_products[0](a), a

    def gradients(
        self,
        params: ElmanParams,
        xs: Array,
        before: Array,
        coefficients: Array,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[ElmanParams, Array]:
        """Returns the gradients of the parameters and of the inputs (..., I)."""
        gradient = ElmanParams(
            W=matmul_weight_gradient(xs, step_cotangents, matmul_dtype),
            U=matmul_weight_gradient(before, step_cotangents, matmul_dtype),
            b=step_cotangents.sum(tuple(range(step_cotangents.ndim - 1))),
        )
        return gradient, matmul_input_gradient(step_cotangents, params.W, matmul_dtype)


def elman_step(
    params: ElmanParams, h: Array, x: Array, *, activation: str = "tanh", matmul_dtype: DType | None = None
) -> Array:
    """Runs one step of an Elman network: `h' = f(W x + U h + b)`.

    Args:
      params: ElmanParams.
      h: (..., H), the state before the step.
      x: (..., I), the input.
      activation: f, "tanh" or "relu".
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.

    Returns:
      (..., H), the state after the step.

    Raises:
      ValueError, TypeError: if shapes or dtypes do not match.

    Example:
      >>> params = Elman().init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> h = elman_step(params, jnp.zeros((32, 128)), jnp.ones((32, 64)))

    Reference: Elman, 1990.
    """
    return run_step(Elman(activation), params, h, x, matmul_dtype)[1]
