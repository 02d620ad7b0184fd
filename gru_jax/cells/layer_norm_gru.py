"""The GRU with layer normalization: its step and its gradient, derived by hand.

Reference: Ba et al., "Layer Normalization", 2016.

As in the paper and its code (https://github.com/ryankiros/layer-norm), the gates r and z are normalized together, and
the candidate alone. Haste normalizes all three together.
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
from gru_jax.cells.gru import GRU
from gru_jax.cells.normalization import Normalized, layer_norm, layer_norm_pullback


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.LayerNormGRUParams")
class LayerNormGRUParams(NamedTuple):
    """The parameters of a GRU with layer normalization. Columns are `[r | z | n]`.

    Attributes:
      W: (I, 3H), input weights.
      U: (H, 3H), recurrent weights.
      b: (3H,), biases.
      b_hn: (H,), the candidate's recurrent bias.
      gain_x: (3H,), the gains of the normalized `W x`.
      gain_h: (3H,), the gains of the normalized `U h`.
    """

    W: Any
    U: Any
    b: Any
    b_hn: Any
    gain_x: Any
    gain_h: Any


class NormalizedGates(NamedTuple):
    """`W x` or `U h` after normalization."""

    rz: Normalized
    n: Normalized


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H), and the normalized products."""

    keep: Array  # 1 - z, the weight of h in h'
    c_r: Array
    c_z: Array
    c_n: Array
    c_hn: Array  # r c_n
    of_x: NormalizedGates
    of_h: NormalizedGates


@register_static
@dataclass(frozen=True)
class LayerNormGRU:
    """A GRU cell with layer normalization. With input x and state h, a step is

        r, z = sigmoid(gain_x * norm([W_r x, W_z x]) + gain_h * norm([U_r h, U_z h]) + b)
        n    = tanh(gain_x * norm(W_n x) + r * (gain_h * norm(U_n h) + b_hn) + b_n)
        h'   = (1 - z) * h + z * n

    where `norm(a) = (a - mean(a)) / sqrt(var(a) + epsilon)`, over both gates in the first line. It is the GRU with
    reset="after" if both norms are left out. `norm(W x)` does not depend on the state and is computed for all steps at
    once.

    Args:
      epsilon: added to the variances.
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately.
      U_init: "orthogonal", "glorot", "uniform" or an initializer.
      b_init: "zeros", "uniform", "chrono" or an initializer. Gains are ones.
      longest_delay: the longest delay of the task in steps; only for b_init="chrono".

    Example:
      >>> cell = LayerNormGRU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)))

    Reference: Ba et al., 2016.
    """

    epsilon: float = 1e-5
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        arguments.positive_number("LayerNormGRU: epsilon", self.epsilon)
        initializers.check(
            "LayerNormGRU", self.W_init, self.U_init, self.b_init, self.longest_delay, ("zeros", "uniform", "chrono")
        )

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> LayerNormGRUParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          LayerNormGRUParams.
        """
        plain = GRU("after", self.W_init, self.U_init, self.b_init, self.longest_delay)
        weights = plain.init(key, input_size, hidden_size, dtype)
        gain_x, gain_h = (jnp.ones((3 * hidden_size,), dtype) for _ in range(2))  # One array cannot be donated twice.
        return LayerNormGRUParams(*weights, gain_x=gain_x, gain_h=gain_h)

    def infer_sizes(self, params: LayerNormGRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match each other."""
        matrices, gains = {"U": ("H", "3H"), "W": ("I", "3H")}, {"gain_x": ("3H",), "gain_h": ("3H",)}
        return check_shapes(params, LayerNormGRUParams, matrices | {"b": ("3H",), "b_hn": ("H",)} | gains)

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: LayerNormGRUParams, xs: Array, matmul_dtype: DType | None = None) -> NormalizedGates:
        """Returns the normalized `W x` for the three gates: (..., I) -> three arrays (..., H), and their scales."""
        return self._normalize(project_gates(xs, params.W, 3, matmul_dtype))

    def step(
        self,
        params: LayerNormGRUParams,
        state: Array,
        gate_inputs: NormalizedGates,
        matmul_dtype: DType | None = None,
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    def _normalize(self, gates: tuple[Array, ...]) -> NormalizedGates:
        r, z, n = gates
        return NormalizedGates(layer_norm((r, z), self.epsilon), layer_norm((n,), self.epsilon))

    # The gradient. Let g be the cotangent of h', and reached = gain_h * norm(U_n h) + b_hn. The cotangents of the
    # pre-activations are g c_r, g c_z and g c_n, with c_n = z (1 - n²), c_z = (n - h) z (1 - z) and
    # c_r = c_n reached r (1 - r). The cotangent of `reached` is g c_n r.

    def recurrent_matrices(self, params: LayerNormGRUParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self,
        params: LayerNormGRUParams,
        products: tuple[Product, ...],
        state: Array,
        gate_inputs: NormalizedGates,
    ) -> tuple[Array, Array]:
        """Returns h' (..., H), and `U h` (..., 3H)."""
        (product,) = products
        recurrent = product(state)
        _, z, n, _ = _gates(params, gate_inputs, self._normalize(split_gates(recurrent, 3)))
        return state + z * (n - state), recurrent

    def linearize(
        self,
        params: LayerNormGRUParams,
        before: Array,
        after: Array,
        gate_inputs: NormalizedGates,
        residuals: Array,
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        of_h = self._normalize(split_gates(residuals, 3))
        r, z, n, reached = _gates(params, gate_inputs, of_h)
        c_n = z * (1 - n * n)
        return Coefficients(
            keep=1 - z,
            c_r=c_n * reached * r * (1 - r),
            c_z=(n - before) * z * (1 - z),
            c_n=c_n,
            c_hn=c_n * r,
            of_x=gate_inputs,
            of_h=of_h,
        )

    def pullback(
        self,
        params: LayerNormGRUParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: Array,
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of h', each (..., H)."""
        (transposed_product,) = transposed_products
        g, c = cotangent, coefficients
        g_recurrent = _pull_back_norm(params.gain_h, c.of_h, (g * c.c_r, g * c.c_z, g * c.c_hn))
        return g * c.keep + transposed_product(concatenate_gates(g_recurrent)), g

    def gradients(
        self,
        params: LayerNormGRUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[LayerNormGRUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        g, c = step_cotangents, coefficients
        of_x, of_h = (*c.of_x.rz.gates, *c.of_x.n.gates), (*c.of_h.rz.gates, *c.of_h.n.gates)
        g_r, g_z, g_n, g_hn = g * c.c_r, g * c.c_z, g * c.c_n, g * c.c_hn
        g_projected = _pull_back_norm(params.gain_x, c.of_x, (g_r, g_z, g_n))
        g_recurrent = _pull_back_norm(params.gain_h, c.of_h, (g_r, g_z, g_hn))
        rows = tuple(range(g.ndim - 1))
        gradient = LayerNormGRUParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in g_projected),
            U=tuple(matmul_weight_gradient(before, gate, matmul_dtype) for gate in g_recurrent),
            b=tuple(gate.sum(rows) for gate in (g_r, g_z, g_n)),
            b_hn=g_hn.sum(rows),
            gain_x=tuple((gate * a).sum(rows) for gate, a in zip((g_r, g_z, g_n), of_x, strict=True)),
            gain_h=tuple((gate * a).sum(rows) for gate, a in zip((g_r, g_z, g_hn), of_h, strict=True)),
        )
        return gradient, project_gates_input_gradient(g_projected, params.W, matmul_dtype)


def _gates(
    params: LayerNormGRUParams, of_x: NormalizedGates, of_h: NormalizedGates
) -> tuple[Array, Array, Array, Array]:
    """Returns r, z, n, and what r multiplies."""
    (x_r, x_z), (x_n,), (h_r, h_z), (h_n,) = of_x.rz.gates, of_x.n.gates, of_h.rz.gates, of_h.n.gates
    b_r, b_z, b_n = split_bias(params.b, 3, like=x_n)
    s_r, s_z, s_n = split_bias(params.gain_x, 3, like=x_n)
    v_r, v_z, v_n = split_bias(params.gain_h, 3, like=x_n)
    r = sigmoid(s_r * x_r + v_r * h_r + b_r)
    z = sigmoid(s_z * x_z + v_z * h_z + b_z)
    reached = v_n * h_n + jnp.broadcast_to(params.b_hn, h_n.shape)
    return r, z, jnp.tanh(s_n * x_n + b_n + r * reached), reached


def _pull_back_norm(gain: Array, normalized: NormalizedGates, cotangents: tuple[Array, ...]) -> tuple[Array, ...]:
    """Returns the cotangents of three gates before their norm, given those after the gain."""
    gains = split_bias(gain, 3, like=cotangents[0])
    g_r, g_z, g_n = (g * s for g, s in zip(cotangents, gains, strict=True))
    return (*layer_norm_pullback(normalized.rz, (g_r, g_z)), *layer_norm_pullback(normalized.n, (g_n,)))
