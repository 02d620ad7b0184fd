"""The precision of a cell's arithmetic: gates, states and sums are float32, or wider if the parameters are.

In 16 bits a gate cannot be close to zero: `0.5 * tanh(-3.5) + 0.5` is 0 in bfloat16, and so is its gradient. So 16-bit
parameters, inputs and states are cast to float32 first, and results are rounded once at the end. The operands of
matrix products remain 16-bit.
"""

import jax
import jax.numpy as jnp

from gru_jax._types import Array, DType, PyTree


def computing_dtype(dtype: DType) -> jnp.dtype:
    """Returns the dtype of gates, states and sums for parameters of a dtype."""
    return jnp.dtype(jnp.float32) if jnp.dtype(dtype).itemsize < 4 else jnp.dtype(dtype)


def operand_dtype(matmul_dtype: DType | None, dtype: DType) -> DType | None:
    """Returns the dtype of the operands of products: 16 bits for 16-bit parameters, None for the dtype of the gates."""
    return jnp.dtype(dtype) if matmul_dtype is None and jnp.dtype(dtype).itemsize < 4 else matmul_dtype


def widen(tree: PyTree) -> PyTree:
    """Casts 16-bit floating-point arrays to float32; others are unchanged."""
    return jax.tree.map(lambda a: a.astype(computing_dtype(a.dtype)) if _is_floating(a) else a, tree)


def round_like(tree: PyTree, like: PyTree) -> PyTree:
    """Casts the arrays of `tree` to the dtypes of `like`."""
    return jax.tree.map(lambda a, b: a.astype(b.dtype), tree, like)


def _is_floating(a: Array) -> bool:
    return jnp.issubdtype(a.dtype, jnp.floating)
