"""The precision of a cell's arithmetic: gates, states and sums in float32 at least, whatever the parameters' dtype.

In 16 bits a gate near zero does not exist: `0.5 * tanh(-3.5) + 0.5` is 0 in bfloat16, and so is its gradient. So 16-bit
parameters, inputs and states are widened first and results rounded once, last; products take 16-bit operands.
"""

import jax
import jax.numpy as jnp

from gru_jax._types import Array, DType, PyTree


def computing_dtype(dtype: DType) -> jnp.dtype:
    """The dtype of gates, states and sums beside parameters of a dtype."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def operand_dtype(matmul_dtype: DType | None, dtype: DType) -> DType | None:
    """The dtype of the products' operands, None for the arithmetic's own: 16-bit parameters are multiplied as such."""
    return jnp.dtype(dtype) if matmul_dtype is None and jnp.dtype(dtype).itemsize < 4 else matmul_dtype


def widen(tree: PyTree) -> PyTree:
    """Casts 16-bit floating-point arrays to float32 and leaves all others."""
    return jax.tree.map(lambda a: a.astype(computing_dtype(a.dtype)) if _is_floating(a) else a, tree)


def round_like(tree: PyTree, like: PyTree) -> PyTree:
    """Casts arrays to the dtypes of others."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, like)


def _is_floating(a: Array) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)
