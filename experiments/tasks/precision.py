"""Matrix products in a reduced precision, in the forward and in the backward pass."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def product(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool = False) -> jax.Array:
    """Returns `x w`, or `x wᵀ` if `transposed`, with operands in `dtype` and sums in float32.

    The matmuls of the gradient have operands in `dtype` too. (JAX alone would use float32 there.)

    Args:
      x: (..., K).
      w: (K, N), or (N, K) if `transposed`.
      dtype: of the operands.
      transposed: whether to multiply by the transpose of w.

    Returns:
      (..., N) float32.
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
    towards_x = _dot(g, w, ((g.ndim - 1,), (int(not transposed),)), dtype)
    towards_w = _dot(one, other, (rows, rows), dtype)
    return towards_x.astype(x.dtype), towards_w.astype(w.dtype)  # float64 with jax_enable_x64


_differentiable = jax.custom_vjp(_primal, nondiff_argnums=(2, 3))
_differentiable.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, contracted: Any, dtype: Any) -> jax.Array:
    operands = a.astype(dtype), b.astype(dtype)
    return lax.dot_general(*operands, (contracted, ((), ())), preferred_element_type=jnp.float32)
