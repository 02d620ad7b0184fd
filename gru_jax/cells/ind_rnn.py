"""The independently recurrent network (IndRNN): its step and its gradient, derived by hand.

Reference: Li et al., "Independently Recurrent Neural Network (IndRNN): Building A Longer and Deeper RNN", 2018.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType, Initializer
from gru_jax.cells import initializers
from gru_jax.cells.base import Product, check_init, zeros
from gru_jax.cells.gates import matmul, matmul_input_gradient, matmul_weight_gradient


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.IndRNNParams")
class IndRNNParams(NamedTuple):
    """The parameters of an IndRNN.

    Attributes:
      W: (I, H), input weights.
      u: (H,), recurrent weights, one per unit.
      b: (H,), biases.
    """

    W: Any
    u: Any
    b: Any


@register_static
@dataclass(frozen=True)
class IndRNN:
    """An independently recurrent cell. With input x and state h, a step is

        h' = relu(W x + clip(u, -max_u, max_u) * h + b)

    Each unit sees its own past only. Units are mixed by the W of the next layer, so use a `Stack` of two or more.

    Over T steps the gradient of a unit grows by up to `max_u ** T`. The paper therefore bounds |u| by `2 ** (1 / T)`;
    for long sequences the bound is 1. Here the step clips u, so that the bound always holds. The paper clips the stored
    weights before each update, as `clip` does. Call it if weights should be able to leave the bound again: the gradient
    of a stored weight beyond the bound is zero.

    `weight_dropout` of a `Stack` is an error, since there is no matrix U. Scaling up the kept weights would exceed the
    bound.

    Args:
      max_u: the bound of |u|, e.g. 2 ** (1 / T). If None, u is not clipped.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`.
      u_init: "uniform" (from 0 to max_u, or to 1 if that is None, as in the paper) or an initializer. Ones suit the
        last layer of a task that reads the last output only.
      b_init: "zeros", "uniform" (within 1 / sqrt(H)) or an initializer.

    Example:
      >>> cell = IndRNN(max_u=2 ** (1 / 100))
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)))
      >>> params = cell.clip(params)  # E.g. after `optax.apply_updates`.

    Reference: Li et al., 2018.
    """

    max_u: float | None = 1.0
    W_init: str | Initializer = "glorot"
    u_init: str | Initializer = "uniform"
    b_init: str | Initializer = "zeros"

    def __post_init__(self):
        if self.max_u is not None:
            arguments.finite_number("IndRNN: max_u", self.max_u)
            if self.max_u <= 0:
                raise ValueError(f"IndRNN: max_u: expected a number above 0 or None, got {self.max_u!r}")
        if callable(self.u_init):
            arguments.instance("IndRNN: u_init", self.u_init, (object,), "a name or an initializer")
        else:
            arguments.one_of("IndRNN: u_init", self.u_init, ("uniform",))
        initializers.check("IndRNN", self.W_init, "orthogonal", self.b_init, None, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> IndRNNParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          IndRNNParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_u, key_b = jax.random.split(key, 3)
        if callable(self.u_init):
            u = initializers.bias(self.u_init, key_u, hidden_size, hidden_size, dtype)
        else:
            bound = 1.0 if self.max_u is None else self.max_u
            u = jax.random.uniform(key_u, (hidden_size,), dtype, 0.0, bound)
        return IndRNNParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 1, dtype),
            u=u,
            b=initializers.bias(self.b_init, key_b, hidden_size, hidden_size, dtype),
        )

    def clip(self, params: IndRNNParams) -> IndRNNParams:
        """Returns the parameters with u (H,) clipped to the bound, which is rounded down to the dtype of u."""
        if self.max_u is None:
            return params
        bound = np.asarray(self.max_u, params.u.dtype)
        if float(bound) > self.max_u:
            bound = np.nextafter(bound, np.zeros_like(bound))
        return params._replace(u=_clip(params.u, float(bound)))

    def _clip(self, u: Array) -> Array:
        return u if self.max_u is None else _clip(u, self.max_u)

    def infer_sizes(self, params: IndRNNParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        arguments.named_tuple("params", params, IndRNNParams)
        W, u, b = (arguments.floating(f"params.{name}", getattr(params, name)) for name in IndRNNParams._fields)
        arguments.shape("params.u", u, ("H",))
        arguments.shape("params.W", W, ("I", u.shape[0]))
        arguments.shape("params.b", b, u.shape)
        arguments.same_dtype("params.u", u, W.dtype, "params.W")
        arguments.same_dtype("params.b", b, W.dtype, "params.W")
        return W.shape[0], u.shape[0], W.dtype

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: IndRNNParams, xs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns `W x`: (..., I) -> (..., H)."""
        return matmul(xs, params.W, matmul_dtype)

    def step(self, params: IndRNNParams, state: Array, gate_inputs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns h' (..., H), given h (..., H) and the projected inputs."""
        return self.step_with_residuals(params, (), state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h'. The cotangent a of the pre-activation is g where h' > 0, and zero
    # elsewhere. The cotangent of h is a u, and the gradient of the clipped u is the sum of a h.

    def recurrent_matrices(self, params: IndRNNParams) -> tuple[()]:
        """Returns an empty tuple: the recurrence is elementwise."""
        return ()

    def step_with_residuals(
        self, params: IndRNNParams, products: tuple[Product, ...], state: Array, gate_inputs: Array
    ) -> tuple[Array, None]:
        """Returns h' (..., H), and None: its derivative needs no residuals."""
        u, b = (jnp.broadcast_to(a, state.shape) for a in (self._clip(params.u), params.b))
        return jax.nn.relu(gate_inputs + b + u * state), None

    def linearize(
        self, params: IndRNNParams, before: Array, after: Array, gate_inputs: Array, residuals: None
    ) -> Array:
        """Returns the derivative of the ReLU, (..., H)."""
        return (after > 0).astype(after.dtype)

    def pullback(
        self, params: IndRNNParams, transposed_products: tuple[Product, ...], coefficients: Array, cotangent: Array
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of the pre-activation, each (..., H)."""
        a = cotangent * coefficients
        return a * jnp.broadcast_to(self._clip(params.u), a.shape), a

    def gradients(
        self,
        params: IndRNNParams,
        xs: Array,
        before: Array,
        coefficients: Array,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[IndRNNParams, Array]:
        """Returns the gradients of the parameters and of the inputs (..., I)."""
        a, rows = step_cotangents, tuple(range(step_cotangents.ndim - 1))
        gradient = IndRNNParams(
            W=matmul_weight_gradient(xs, a, matmul_dtype),
            u=jax.vjp(self._clip, params.u)[1]((a * before).sum(rows))[0],
            b=a.sum(rows),
        )
        return gradient, matmul_input_gradient(a, params.W, matmul_dtype)


def _clip(u: Array, bound: float) -> Array:
    """Returns u, clipped to the bound. Unlike jnp.clip, it has the whole gradient there, where clipped weights are.

    Rounding to 16 bits, as by the `dtype` of a layer, moves them by up to 2**-9, which is still at the bound.
    """
    size = jnp.abs(u)
    rounded = jnp.where(size <= bound * (1 + 2**-9), u - lax.stop_gradient(u), 0)
    return jnp.where(size > bound, jnp.sign(u) * bound + rounded, u)
