"""The block-diagonal GRU of DreamerV3: its step and its gradient, derived by hand.

Reference: Hafner et al., "Mastering diverse control tasks through world models", 2025, and `RSSM._core` in
https://github.com/danijar/dreamerv3.
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
    block_matmul_weight_gradient,
    matmul_weight_gradient,
    products,
    project_gates,
    project_gates_input_gradient,
    sigmoid,
    split_bias,
    split_blocks,
    split_gates,
)
from gru_jax.cells.normalization import Normalized, rms_norm, rms_norm_pullback

EPSILON = 1e-4
"""Added to the mean square by the norm of DreamerV3."""


@partial(export.register_namedtuple_serialization, serialized_name="gru_jax.BlockGRUParams")
class BlockGRUParams(NamedTuple):
    """The parameters of a block-diagonal GRU. Columns are `[r | n | u]`.

    Attributes:
      W: (I, 3H), input weights.
      U: (blocks, H / blocks, 3 H / blocks), the blocks of the recurrent weights, each with columns `[r | n | u]`.
      b: (3H,), biases.
      gain: (3H,), the gains of the normalized pre-activations, for norm="rms"; None without a norm.
    """

    W: Any
    U: Any
    b: Any
    gain: Any = None


class Coefficients(NamedTuple):
    """The elementwise factors of the backward pass, arrays (..., H), and the normalized pre-activations, if any."""

    keep: Array  # 1 - u, the weight of h in h'
    c_r: Array
    c_n: Array
    c_u: Array
    normalized: Normalized | None


@register_static
@dataclass(frozen=True)
class BlockGRU:
    """A GRU cell whose recurrent matrix U is block-diagonal. With input x and state h, a step is

        a_r, a_n, a_u = W x + U h + b                            norm=None
        a_r, a_n, a_u = gain * norm(W x + U h) + b               norm="rms"
        r  = sigmoid(a_r)
        n  = tanh(r * a_n)
        u  = sigmoid(a_u - 1)
        h' = (1 - u) * h + u * n

    where `norm(a) = a / sqrt(mean(a²) + 1e-4)` over all gates. Each of the blocks connects H / blocks units, so U has
    1 / blocks of the weights and operations of a dense matrix. Blocks communicate through inputs only, e.g. those of
    the next layer. The bias of -1 keeps the memory initially.

    The published model has no norm at the gates, but one between them and its inputs. Its release of 2023 normalized
    the gates.

    Args:
      blocks: the number of blocks. It must divide H.
      norm: None or "rms".
      W_init: "glorot", "orthogonal", "uniform" or an initializer `(key, shape, dtype) -> array`, e.g. from
        `jax.nn.initializers`. Each gate is initialized separately. DreamerV3 uses `lecun_normal()`.
      U_init: "orthogonal", "glorot", "uniform" or an initializer. Each gate of each block is initialized separately,
        with the shape (H / blocks, H / blocks).
      b_init: "zeros", "uniform" or an initializer. Gains are ones.

    Example:
      >>> cell = BlockGRU(blocks=4)
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)))
      >>> params.U.shape
      (4, 32, 96)

    Reference: Hafner et al., 2025.
    """

    blocks: int = 8
    norm: str | None = None
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    def __post_init__(self):
        arguments.positive_int("BlockGRU: blocks", self.blocks)
        arguments.one_of("BlockGRU: norm", self.norm, (None, "rms"))
        initializers.check("BlockGRU", self.W_init, self.U_init, self.b_init, None, ("zeros", "uniform"))

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> BlockGRUParams:
        """Initializes the parameters.

        Args:
          key: a PRNG key, which is consumed.
          input_size: I.
          hidden_size: H.
          dtype: the floating-point dtype of the parameters and of the state.

        Returns:
          BlockGRUParams.
        """
        dtype = check_init(key, input_size, hidden_size, dtype)
        if hidden_size % self.blocks:
            raise ValueError(f"init: hidden_size: expected a multiple of blocks={self.blocks}, got {hidden_size}")
        key_W, key_U, key_b = jax.random.split(key, 3)
        size = hidden_size // self.blocks
        keys = jax.random.split(key_U, self.blocks)
        return BlockGRUParams(
            W=initializers.gates(self.W_init, key_W, input_size, hidden_size, 3, dtype),
            U=jnp.stack([initializers.gates(self.U_init, k, size, size, 3, dtype) for k in keys]),
            b=initializers.bias(self.b_init, key_b, 3 * hidden_size, hidden_size, dtype),
            gain=None if self.norm is None else jnp.ones((3 * hidden_size,), dtype),
        )

    def infer_sizes(self, params: BlockGRUParams) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`. Raises ValueError or TypeError if they do not match the cell."""
        shapes: dict[str, tuple[str, ...]] = {"W": ("I", "3H"), "b": ("3H",)}
        if self.norm is not None and getattr(params, "gain", None) is not None:
            shapes["gain"] = ("3H",)
        input_size, H, dtype = check_shapes(params, BlockGRUParams, shapes)
        if (params.gain is None) != (self.norm is None):
            expected = "None for norm=None" if self.norm is None else f'an array (3H,) for norm="{self.norm}"'
            raise ValueError(f"params.gain: expected {expected}, got {'None' if params.gain is None else 'an array'}")
        U = arguments.floating("params.U", params.U)
        size, rest = divmod(H, self.blocks)
        if rest:
            raise ValueError(f"params.W: expected shape (I, 3H), H a multiple of blocks={self.blocks}, got H={H}")
        arguments.shape("params.U", U, (self.blocks, size, 3 * size))
        arguments.same_dtype("params.U", U, dtype, "params.W")
        return input_size, H, dtype

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> Array:
        """Returns zeros (*batch_shape, H)."""
        return zeros(batch_shape, hidden_size, dtype)

    def project(self, params: BlockGRUParams, xs: Array, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
        """Returns `W x` for the three gates: (..., I) -> three arrays (..., H)."""
        return project_gates(xs, params.W, 3, matmul_dtype)

    def step(
        self, params: BlockGRUParams, state: Array, gate_inputs: tuple[Array, ...], matmul_dtype: DType | None = None
    ) -> Array:
        """Returns h' (..., H), given h (..., H) and the gate inputs."""
        return self.step_with_residuals(params, products((params.U,), matmul_dtype), state, gate_inputs)[0]

    def output(self, state: Array) -> Array:
        """Returns the state, h (..., H)."""
        return state

    # The gradient. Let g be the cotangent of h'. The cotangents of a_r, a_n and a_u are g c_r, g c_n and g c_u, with
    # c_n = u (1 - n²) r, c_r = c_n a_n (1 - r) and c_u = (n - h) u (1 - u).

    def recurrent_matrices(self, params: BlockGRUParams) -> tuple[Array, ...]:
        """Returns (U,)."""
        return (params.U,)

    def step_with_residuals(
        self, params: BlockGRUParams, products: tuple[Product, ...], state: Array, gate_inputs: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """Returns h' (..., H), and `U h` (..., 3H), block by block."""
        (product,) = products
        recurrent = product(state)
        _, _, n, u, _ = self._gates(params, gate_inputs, recurrent)
        return state + u * (n - state), recurrent

    def linearize(
        self,
        params: BlockGRUParams,
        before: Array,
        after: Array,
        gate_inputs: tuple[Array, ...],
        residuals: Array,
    ) -> Coefficients:
        """Returns the coefficients of the backward pass."""
        r, a_n, n, u, normalized = self._gates(params, gate_inputs, residuals)
        c_n = u * (1 - n * n) * r
        return Coefficients(
            keep=1 - u,
            c_r=c_n * a_n * (1 - r),
            c_n=c_n,
            c_u=(n - before) * u * (1 - u),
            normalized=normalized,
        )

    def pullback(
        self,
        params: BlockGRUParams,
        transposed_products: tuple[Product, ...],
        coefficients: Coefficients,
        cotangent: Array,
    ) -> tuple[Array, Array]:
        """Returns the cotangents of h and of h', each (..., H)."""
        (transposed_product,) = transposed_products
        gates = _before_norm(params, coefficients, _gate_cotangents(coefficients, cotangent))
        return cotangent * coefficients.keep + transposed_product(self._by_block(gates)), cotangent

    def gradients(
        self,
        params: BlockGRUParams,
        xs: Array,
        before: Array,
        coefficients: Coefficients,
        step_cotangents: Array,
        matmul_dtype: DType | None = None,
    ) -> tuple[BlockGRUParams, Array]:
        """Returns the gradients of the parameters, with a part per gate, and of the inputs (..., I)."""
        after_norm = _gate_cotangents(coefficients, step_cotangents)
        gates = _before_norm(params, coefficients, after_norm)
        rows = tuple(range(step_cotangents.ndim - 1))
        gain = None
        if coefficients.normalized is not None:
            pairs = zip(after_norm, coefficients.normalized.gates, strict=True)
            gain = tuple((gate * a).sum(rows) for gate, a in pairs)
        gradient = BlockGRUParams(
            W=tuple(matmul_weight_gradient(xs, gate, matmul_dtype) for gate in gates),
            U=tuple(block_matmul_weight_gradient(before, gate, self.blocks, matmul_dtype) for gate in gates),
            b=tuple(gate.sum(rows) for gate in after_norm),
            gain=gain,
        )
        return gradient, project_gates_input_gradient(gates, params.W, matmul_dtype)

    def _gates(
        self, params: BlockGRUParams, gate_inputs: tuple[Array, ...], recurrent: Array
    ) -> tuple[Array, Array, Array, Array, Normalized | None]:
        """Returns r, a_n, n, u and the normalized pre-activations, if any."""
        gates = tuple(x + h for x, h in zip(gate_inputs, self._by_gate(recurrent), strict=True))
        normalized = None
        if self.norm is not None:
            normalized = rms_norm(gates, EPSILON)
            gains = split_bias(params.gain, 3, like=gates[0])
            gates = tuple(gain * a for gain, a in zip(gains, normalized.gates, strict=True))
        a_r, a_n, a_u = (a + b for a, b in zip(gates, split_bias(params.b, 3, like=gates[0]), strict=True))
        r = sigmoid(a_r)
        return r, a_n, jnp.tanh(r * a_n), sigmoid(a_u - 1), normalized

    def _by_gate(self, array: Array) -> tuple[Array, ...]:
        """Converts (..., 3H) with the gates of each block to three arrays (..., H)."""
        parts = split_gates(split_blocks(array, self.blocks), 3)
        return tuple(part.reshape((*array.shape[:-1], array.shape[-1] // 3)) for part in parts)

    def _by_block(self, gates: tuple[Array, ...]) -> Array:
        """Inverts `_by_gate`."""
        blocks = jnp.concatenate([split_blocks(gate, self.blocks) for gate in gates], axis=-1)
        return blocks.reshape((*gates[0].shape[:-1], 3 * gates[0].shape[-1]))


def _gate_cotangents(coefficients: Coefficients, g: Array) -> tuple[Array, Array, Array]:
    """Returns the cotangents of a_r, a_n and a_u."""
    return g * coefficients.c_r, g * coefficients.c_n, g * coefficients.c_u


def _before_norm(params: BlockGRUParams, coefficients: Coefficients, gates: tuple[Array, ...]) -> tuple[Array, ...]:
    """Returns the cotangents of `W x + U h` for each gate, given those of a."""
    if coefficients.normalized is None:
        return gates
    gains = split_bias(params.gain, 3, like=gates[0])
    return rms_norm_pullback(coefficients.normalized, [gate * gain for gate, gain in zip(gates, gains, strict=True)])
