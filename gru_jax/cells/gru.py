"""The Gated Recurrent Unit (GRU): its step and its gradient, derived by hand.

References:
  Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation", 2014.
  Chung et al., "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling", 2014.
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
    few_rows,
    matmul_weight_gradient,
    products,
    project_gates,
    project_gates_input_gradient,
    sigmoid,
    split_bias,
    split_gates,
)


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.GRUParams")
class GRUParams(NamedTuple):
    """The parameters of a GRU. Columns are `[r | z | n]`.

    Attributes:
      W: (I, 3H), input weights.
      U: (H, 3H), recurrent weights.
      b: (3H,), biases.
      b_hn: (H,), the candidate's recurrent bias, for reset="after"; None for reset="before".
    """

    W: Any
    U: Any
    b: Any
    b_hn: Any = None


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H)."""

    keep: Array  # 1 - z, the weight of h in h'
    c_r: Array
    c_z: Array
    c_n: Array
    c_hn: Any  # r c_n, for reset="after"
    r: Any  # for reset="before"


@register_static
@dataclass(frozen=True)
class GRU:
    """A GRU cell. With input x and state h, a step is

        r  = sigmoid(W_r x + U_r h + b_r)
        z  = sigmoid(W_z x + U_z h + b_z)
        n  = tanh(W_n x + U_n (r * h) + b_n)                reset="before"
        n  = tanh(W_n x + r * (U_n h + b_hn) + b_n)         reset="after"
        h' = (1 - z) * h + z * n

    The gates are concatenated along the columns, `[r | z | n]`: `W = [W_r | W_z | W_n]`, likewise U and b.

    The default, reset="before", is the GRU of the paper (Cho et al., 2014). PyTorch, Flax and Keras compute
    reset="after", the variant of cuDNN. Use it for weights from these libraries.

    The update gate z weights the candidate n, as in Chung et al. (2014). In Cho et al., PyTorch, Flax and Keras, z
    weights the old state. Since `1 - sigmoid(a) = sigmoid(-a)`, negating W_z, U_z and b_z is an exact conversion.

    Args:
      reset: whether the reset gate is applied "before" or "after" the product with U_n.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform" (one of PyTorch's two biases), "chrono" or an initializer.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = GRU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> h = gru_step(params, jnp.zeros((32, 128)), jnp.ones((32, 64)))
    """

    reset: str = "before"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        arguments.one_of("GRU: reset", self.reset, ("before", "after"))
        initializers.check(
            "GRU", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> GRUParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          GRUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        key_W, key_U, key_b, key_hn = jax.random.split(key, 4)
        b = initializers.bias(self.b_init, key_b, 3 * hidden_size, hidden_size, dtype)
        if self.longest_delay is not None:
            b_z = -initializers.chrono(key_b, self.longest_delay, hidden_size, dtype)
            b = b.at[hidden_size : 2 * hidden_size].set(b_z)
        b_hn = initializers.bias(self.b_init, key_hn, hidden_size, hidden_size, dtype)
        return GRUParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 3, dtype),
            U=initializers.gates(self.U_init, key_U, hidden_size, hidden_size, 3, dtype),
            b=b,
            b_hn=b_hn if self.reset == "after" else None,
        )

    def infer_sizes(self, params: GRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match the cell."""
        input_size, hidden_size, dtype = check_weights(params, GRUParams, gates=3)
        if (params.b_hn is None) != (self.reset == "before"):
            expected = 'None for reset="before"' if self.reset == "before" else 'an array (H,) for reset="after"'
            raise ValueError(f"params.b_hn: expected {expected}, got {'None' if params.b_hn is None else 'an array'}")
        if params.b_hn is not None:
            b_hn = arguments.floating("params.b_hn", params.b_hn)
            arguments.shape("params.b_hn", b_hn, (hidden_size,))
            arguments.same_dtype("params.b_hn", b_hn, dtype, "params.W")
        return input_size, hidden_size, dtype

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: GRUParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, Array, Array]:
        """Returns `W x` for the three gates: (..., I) -> three arrays (..., H)."""
        r, z, n = project_gates(xs, params.W, 3, matmul_dtype)
        return r, z, n

    def step(
        self,
        params: GRUParams,
        state: Array,
        gate_inputs: tuple[Array, Array, Array],
        matmul_dtype: DType | None = None,
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        if self.reset == "before" and few_rows(state):
            (product,) = products((params.U,), matmul_dtype)
            H = state.shape[-1]
            each = (lambda h: product(h)[..., : 2 * H], lambda h: product(h)[..., 2 * H :])
        else:
            each = products(self.recurrent_matrices(params), matmul_dtype)
        return self.step_with_residuals(params, each, state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h', c_n = z (1 - n²) and c_z = (n - h) z (1 - z).
    #
    #   reset="after":  c_r = c_n (U_n h + b_hn) r (1 - r). The cotangents of the pre-activations are g c_r, g c_z and
    #                   g c_n. The cotangent of U_n h + b_hn is g c_n r.
    #   reset="before": c_r = h r (1 - r). The cotangent of r * h is s = (g c_n) U_nᵀ. The cotangents of the
    #                   pre-activations are s c_r, g c_z and g c_n.

    def recurrent_matrices(self, params: GRUParams) -> tuple[Array, ...]:
        """Returns ([U_r U_z], U_n) for reset="before", (U,) for reset="after"."""
        if self.reset == "after":
            return (params.U,)
        H = params.U.shape[0]
        return params.U[:, : 2 * H], params.U[:, 2 * H :]

    def step_with_residuals(
        self, params: GRUParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, Any]:
        """Returns h' (..., H), and the products of the state with U: (..., 3H), or (..., 2H) and (..., H)."""
        h, (x_r, x_z, x_n), (b_r, b_z, b_n) = state, gate_inputs, split_bias(params.b, 3, like=state)
        if self.reset == "after":
            (product,) = products
            residuals = product(h)
            a_r, a_z, a_n = split_gates(residuals, 3)
            r = sigmoid(x_r + b_r + a_r)
            candidate = r * (a_n + jnp.broadcast_to(params.b_hn, h.shape))
        else:
            product_rz, product_n = products
            a_rz = product_rz(h)
            a_r, a_z = split_gates(a_rz, 2)
            r = sigmoid(x_r + b_r + a_r)
            candidate = product_n(r * h)
            residuals = (a_rz, candidate)
        z = sigmoid(x_z + b_z + a_z)
        n = jnp.tanh(x_n + b_n + candidate)
        return h + z * (n - h), residuals

    def linearize(
        self, params: GRUParams, before: Array, after: Array, gate_inputs: tuple[Array, ...], residuals: Any
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        h, (x_r, x_z, x_n), (b_r, b_z, b_n) = before, gate_inputs, split_bias(params.b, 3, like=before)
        if self.reset == "after":
            a_r, a_z, a_n = split_gates(residuals, 3)
            r = sigmoid(x_r + b_r + a_r)
            reached = a_n + jnp.broadcast_to(params.b_hn, h.shape)
            candidate = r * reached
        else:
            a_rz, candidate = residuals
            a_r, a_z = split_gates(a_rz, 2)
            r, reached = sigmoid(x_r + b_r + a_r), h
        z = sigmoid(x_z + b_z + a_z)
        n = jnp.tanh(x_n + b_n + candidate)
        c_n = z * (1 - n * n)
        c_z = (n - h) * z * (1 - z)
        c_r = (c_n * reached if self.reset == "after" else reached) * r * (1 - r)
        if self.reset == "after":
            return Coefficients(keep=1 - z, c_r=c_r, c_z=c_z, c_n=c_n, c_hn=c_n * r, r=None)
        return Coefficients(keep=1 - z, c_r=c_r, c_z=c_z, c_n=c_n, c_hn=None, r=r)

    def pullback(
        self, params: GRUParams, transposed_products: tuple[Product, ...], coefficients: Coefficients, cotangent: Array
    ) -> tuple[Array, tuple[Array, Any]]:
        """Returns the cotangent of h (..., H), and (g, s); s is None for reset="after"."""
        g, (keep, c_r, c_z, c_n, c_hn, r) = cotangent, coefficients
        if self.reset == "after":
            (transposed_product,) = transposed_products
            return g * keep + transposed_product(concatenate_gates((g * c_r, g * c_z, g * c_hn))), (g, None)
        transposed_product_rz, transposed_product_n = transposed_products
        s = transposed_product_n(g * c_n)
        return g * keep + s * r + transposed_product_rz(concatenate_gates((s * c_r, g * c_z))), (g, s)

    def gradients(
        self,
        params: GRUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: tuple[Array, Any],
        matmul_dtype: DType | None = None,
    ) -> tuple[GRUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        _, c_r, c_z, c_n, c_hn, r = coefficients
        g, s = step_cotangents
        g_z, g_n = g * c_z, g * c_n
        g_r, g_hn = (g * c_r, g * c_hn) if self.reset == "after" else (s * c_r, g_n)
        reach = before if self.reset == "after" else r * before
        rows = tuple(range(g.ndim - 1))
        W_gradient = tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in (g_r, g_z, g_n))
        U_gradient = (
            matmul_weight_gradient(before, g_r, matmul_dtype),
            matmul_weight_gradient(before, g_z, matmul_dtype),
            matmul_weight_gradient(reach, g_hn, matmul_dtype),
        )
        b_gradient = tuple(gate.sum(rows) for gate in (g_r, g_z, g_n))
        xs_gradient = project_gates_input_gradient((g_r, g_z, g_n), params.W, matmul_dtype)
        b_hn_gradient = g_hn.sum(rows) if self.reset == "after" else None
        return GRUParams(W_gradient, U_gradient, b_gradient, b_hn_gradient), xs_gradient


def gru_step(
    params: GRUParams, h: Array, x: Array, *, reset: str | None = None, matmul_dtype: DType | None = None
) -> Array:
    """Runs one step of a GRU; see `GRU` for the equations.

    Args:
      params: the parameters. The step uses reset="after" if they have `b_hn`, and reset="before" otherwise.
      h: (..., H), the state before the step.
      x: (..., I), the input.
      reset: "before" or "after"; it must match the parameters. If None, it is inferred from them.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.

    Returns:
      (..., H), the state after the step, which is also the output.

    Raises:
      ValueError, TypeError: if shapes or dtypes do not match, or `reset` contradicts the parameters.

    Example:
      >>> params = GRU().init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> h = gru_step(params, jnp.zeros((32, 128)), jnp.ones((32, 64)))

    Reference: Cho et al., 2014.
    """
    if reset is None:
        reset = "before" if getattr(params, "b_hn", None) is None else "after"
    return run_step(GRU(reset=reset), params, h, x, matmul_dtype)[1]
