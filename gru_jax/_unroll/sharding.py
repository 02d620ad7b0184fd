"""Arrays on several devices: meshes with explicit axes, and arrays that vary inside `shard_map`.

With explicit axes (the default of `jax.make_mesh`), every operation must say how its result is sharded. A loop over
time and its gradient are left to the compiler: inside, the axes are automatic.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, PartitionSpec, auto_axes, use_abstract_mesh

from gru_jax._types import Array, PyTree


def explicit_mesh(tree: PyTree) -> AbstractMesh | None:
    """Returns the mesh with explicit axes on which arrays of `tree` lie; None where there is none."""
    for leaf in jax.tree.leaves(tree):
        mesh = jax.typeof(leaf).sharding.mesh
        if mesh.explicit_axes:
            return mesh
    return None


def spec(array: Array) -> PartitionSpec:
    """Returns over which axes of a mesh each of an array's axes is sharded."""
    return jax.typeof(array).sharding.spec


def in_automatic_axes(
    function: Callable[..., PyTree], mesh: AbstractMesh, arguments: tuple[PyTree, ...], out_specs: PyTree
) -> PyTree:
    """Calls a function with the mesh's axes automatic.

    Args:
      function: of arrays alone.
      mesh: from `explicit_mesh`.
      arguments: what it is called with.
      out_specs: how its results are sharded, a PartitionSpec for each or for all within one.
    """
    with use_abstract_mesh(mesh):
        return auto_axes(function, out_sharding=out_specs)(*arguments)


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
