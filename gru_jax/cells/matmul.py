"""The matrix products of a recurrent layer, forward and backward, with operands in a dtype of their own.

With `matmul_dtype` the operands are cast to it and the products summed in the dtype of the activations,
so that bfloat16 products go with a float32 state.
"""

import jax.numpy as jnp
from jax import lax

from gru_jax.types import Array, DType


def matmul(x: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """`x w`: x (..., K), w (K, N) -> (..., N), in x's dtype."""
    return _dot(x, w, (((x.ndim - 1,), (0,)), ((), ())), matmul_dtype)


def matmul_input_gradient(g: Array, w: Array, matmul_dtype: DType | None = None) -> Array:
    """`g wᵀ`: g (..., N), w (K, N) -> (..., K), the cotangent of x in `x w`."""
    return _dot(g, w, (((g.ndim - 1,), (1,)), ((), ())), matmul_dtype)


def matmul_weight_gradient(x: Array, g: Array, matmul_dtype: DType | None = None) -> Array:
    """`xᵀ g` summed over all leading axes: x (..., K), g (..., N) -> (K, N), the cotangent of w in `x w`.

    The leading axes are contracted as they are: a reshape to rows first costs a transposed copy on CPU.
    """
    leading = tuple(range(x.ndim - 1))
    return _dot(x, g, ((leading, leading), ((), ())), matmul_dtype)


def _dot(a: Array, b: Array, dimensions, matmul_dtype: DType | None) -> Array:
    result = a.dtype
    dtype = b.dtype if matmul_dtype is None else jnp.dtype(matmul_dtype)
    return lax.dot_general(a.astype(dtype), b.astype(dtype), dimensions, preferred_element_type=result)
