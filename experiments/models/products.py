"""Matrix products with operands in a dtype of their own, forward and backward; sums and results in float32.

Left to itself, the gradient of a product of bfloat16 operands is a product of float32 ones.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax


def product(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool = False) -> jax.Array:
    """`x w`: x (..., K), w (K, N) -> (..., N) float32, the operands cast to `dtype`.

    With `transposed` it is `x wᵀ`, w (N, K).
    """
    return _differentiable(x, w, dtype, transposed)


def _primal(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool) -> jax.Array:
    return _dot(x, w, ((x.ndim - 1,), (int(transposed),)), dtype)


def _forward(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool) -> tuple[jax.Array, Any]:
    return _primal(x, w, dtype, transposed), (x, w)


def _backward(dtype: Any, transposed: bool, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    rows = tuple(range(x.ndim - 1))
    one, other = (g, x) if transposed else (x, g)
    return _dot(g, w, ((g.ndim - 1,), (int(not transposed),)), dtype), _dot(one, other, (rows, rows), dtype)


_differentiable = jax.custom_vjp(_primal, nondiff_argnums=(2, 3))
_differentiable.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, contracted: Any, dtype: Any) -> jax.Array:
    operands = a.astype(dtype), b.astype(dtype)
    return lax.dot_general(*operands, (contracted, ((), ())), preferred_element_type=jnp.float32)


class Linear(nnx.Module):
    """`x W + b`, with the operands of the product in `dtype`."""

    def __init__(self, in_features: int, out_features: int, dtype: Any, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`: W by Glorot, b zero."""
        self.W = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (in_features, out_features)))
        self.b = nnx.Param(jnp.zeros((out_features,)))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., in_features) to (..., out_features)."""
        y = product(x, self.W[...], self.dtype)
        return y + jnp.broadcast_to(self.b[...], y.shape)
