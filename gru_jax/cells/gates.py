"""The arithmetic of cells: matrix products, the sigmoid, and arrays with several gates.

Matrix products cast their operands to `matmul_dtype`, if given, and accumulate in the dtype of the activations. So
bfloat16 products combine with a float32 state.
"""

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax.numpy as jnp
from jax import lax

from gru_jax._types import Array, DType

FEW_ROWS = 32
"""Up to this number of rows, one product with the weights of all gates is faster than one product per gate, since
splitting copies the weights. On a CPU, a single split step took 2.1 times as long for B=1, H=1024, and 1.6 times as
long for B=32, H=512."""


def few_rows(x: Array) -> bool:
    """Returns whether x (..., K) has at most `FEW_ROWS` rows; false for symbolic sizes of exported programs."""
    rows = math.prod(x.shape[:-1])
    return isinstance(rows, int) and rows <= FEW_ROWS


def project_gates(xs: Array, W: Array, gates: int, matmul_dtype: DType | None = None) -> tuple[Array, ...]:
    """Returns `W x` for each gate: xs (..., I), W (I, gates * H) -> `gates` arrays (..., H)."""
    if few_rows(xs):
        return split_gates(matmul(xs, W, matmul_dtype), gates)
    return tuple(matmul(xs, w, matmul_dtype) for w in split_gates(W, gates))


def sigmoid(x: Array) -> Array:
    """Computes `1 / (1 + exp(-x))`: (..., H) -> (..., H).

    It is accurate for large negative x, for which `0.5 * tanh(0.5 * x) + 0.5` rounds to zero (below -17 in float32). It
    is as fast: on a CPU a layer took 0.94 to 1.03 times as long.
    """
    return lax.logistic(x)


def positive(a: Array) -> Array:
    """Computes `a + 0.5` for a >= 0, and `sigmoid(a)` for a < 0: (..., H) -> (..., H), positive and continuous.

    Reference: Feng et al., "Were RNNs All We Needed?", 2024.
    """
    return jnp.where(a >= 0, a + 0.5, sigmoid(a))


def positive_slope(a: Array) -> Array:
    """Returns the derivative of `positive`: (..., H) -> (..., H)."""
    s = sigmoid(a)
    return jnp.where(a >= 0, 1, s * (1 - s))


def split_gates(array: Array, gates: int) -> tuple[Array, ...]:
    """Splits the last axis, (..., gates * H), into `gates` arrays (..., H)."""
    size = array.shape[-1] // gates
    return tuple(array[..., k * size : (k + 1) * size] for k in range(gates))


def concatenate_gates(arrays: Sequence[Array]) -> Array:
    """Inverts `split_gates`."""
    return jnp.concatenate(arrays, axis=-1)


def split_bias(b: Array, gates: int, like: Array) -> tuple[Array, ...]:
    """Splits b (gates * H,) into `gates` biases, each with the shape of `like` (..., H)."""
    return tuple(jnp.broadcast_to(gate, like.shape) for gate in split_gates(b, gates))


def matmul(x: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns `x w`: x (..., K), w (K, N) -> (..., N), in x's dtype."""
    return _dot(x, w, (((x.ndim - 1,), (0,)), ((), ())), matmul_dtype)


def matmul_input_gradient(g: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns `g wᵀ`: g (..., N), w (K, N) -> (..., K), the cotangent of x in `x w`."""
    return _dot(g, w, (((g.ndim - 1,), (1,)), ((), ())), matmul_dtype)


def project_gates_input_gradient(gates: Sequence[Array], W: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns the cotangent (..., I) of xs in `project_gates`, given those of the gates (..., H) and W (I, G H)."""
    weights = zip(gates, split_gates(W, len(gates)), strict=True)
    return reduce(operator.add, (matmul_input_gradient(gate, w, matmul_dtype) for gate, w in weights))


def matmul_weight_gradient(x: Array, g: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns `xᵀ g` summed over all leading axes: x (..., K), g (..., N) -> (K, N), the cotangent of w in `x w`.

    The leading axes are contracted without a reshape to rows, which would require a transposed copy on a CPU.
    """
    leading = tuple(range(x.ndim - 1))
    return _dot(x, g, ((leading, leading), ((), ())), matmul_dtype)


def block_matmul(x: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns `x w` for a block-diagonal w: x (..., G K), w (G, K, N) -> (..., G N), as one batched product."""
    x = split_blocks(x, w.shape[0])
    return _join_blocks(_dot(x, w, (((x.ndim - 1,), (1,)), ((x.ndim - 2,), (0,))), matmul_dtype))


def block_matmul_input_gradient(g: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """Returns `g wᵀ` for a block-diagonal w: g (..., G N), w (G, K, N) -> (..., G K)."""
    g = split_blocks(g, w.shape[0])
    return _join_blocks(_dot(g, w, (((g.ndim - 1,), (2,)), ((g.ndim - 2,), (0,))), matmul_dtype))


def block_matmul_weight_gradient(x: Array, g: Array, blocks: int, matmul_dtype: DType | None = None) -> Array:
    """Returns the blocks of `xᵀ g` summed over all leading axes: x (..., G K), g (..., G N) -> (G, K, N)."""
    x, g = split_blocks(x, blocks), split_blocks(g, blocks)
    leading, block = tuple(range(x.ndim - 2)), (x.ndim - 2,)
    return _dot(x, g, ((leading, leading), (block, block)), matmul_dtype)


def split_blocks(array: Array, blocks: int) -> Array:
    """Splits the last axis: (..., G K) -> (..., G, K)."""
    return array.reshape((*array.shape[:-1], blocks, array.shape[-1] // blocks))


def _join_blocks(array: Array) -> Array:
    """Merges the blocks of a batched product: (G, ..., N) -> (..., G N)."""
    array = jnp.moveaxis(array, 0, -2)
    return array.reshape((*array.shape[:-2], array.shape[-2] * array.shape[-1]))


def _dot(a: Array, b: Array, dimensions: Any, matmul_dtype: DType | None) -> Array:
    result = a.dtype
    dtype = b.dtype if matmul_dtype is None else jnp.dtype(matmul_dtype)
    return lax.dot_general(a.astype(dtype), b.astype(dtype), dimensions, preferred_element_type=result)


def products(matrices: Sequence[Array], matmul_dtype: DType | None = None) -> tuple[Callable[[Array], Array], ...]:
    """Returns a function `x -> x w` for each matrix w (K, N), or block-diagonal matrix w (G, K, N)."""
    return tuple(partial(matmul if w.ndim == 2 else block_matmul, w=w, matmul_dtype=matmul_dtype) for w in matrices)
