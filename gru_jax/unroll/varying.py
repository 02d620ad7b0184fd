"""Which devices of a `shard_map` an array differs on, where that matters to a scan and its gradient."""

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax.types import Array, PyTree


def vary_alike(tree: PyTree) -> PyTree:
    """Inside `shard_map`, makes all arrays vary over the axes that any of them varies over.

    The state that a scan carries must vary as its inputs do from the start; and the cotangent of a parameter that
    is the same on all devices is then summed over them once, after the loop.
    """
    axes = frozenset().union(*map(_axes, jax.tree.leaves(tree)))

    def vary(leaf):
        missing = tuple(axes - _axes(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree) if axes else tree


def zeros_like(like: Array | jax.ShapeDtypeStruct) -> Array:
    """Zeros of an array's shape and dtype that vary as it does."""
    zeros, axes = jnp.zeros(like.shape, like.dtype), tuple(_axes(like))
    return lax.pcast(zeros, axes, to="varying") if axes else zeros


def _axes(leaf: Array | jax.ShapeDtypeStruct) -> frozenset:
    kind = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    return kind.manual_axis_type.varying if kind.manual_axis_type is not None else frozenset()
