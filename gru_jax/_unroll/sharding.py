"""Arrays on several devices: meshes with explicit axes, and arrays that vary inside `shard_map`.

With explicit axes (the default of `jax.make_mesh`), the sharding of every result must be known during tracing. The loop
over time and its gradient run with automatic axes, so that the compiler chooses their shardings.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AbstractMesh, PartitionSpec, auto_axes, use_abstract_mesh

from gru_jax._types import Array, PyTree


def explicit_mesh(tree: PyTree) -> AbstractMesh | None:
    """Returns the mesh with explicit axes that arrays of `tree` are sharded over, or None if there is none."""
    for leaf in jax.tree.leaves(tree):
        mesh = jax.typeof(leaf).sharding.mesh
        if mesh.explicit_axes:
            return mesh
    return None


def spec(array: Array) -> PartitionSpec:
    """Returns the PartitionSpec of an array."""
    return jax.typeof(array).sharding.spec


def in_automatic_axes(
    function: Callable[..., PyTree], mesh: AbstractMesh, arguments: tuple[PyTree, ...], out_specs: PyTree
) -> PyTree:
    """Calls a function with the axes of a mesh set to automatic.

    Args:
      function: a function of arrays.
      mesh: the mesh, from `explicit_mesh`.
      arguments: the arguments of the function.
      out_specs: the sharding of the results, a PartitionSpec for each result or for each subtree.

    Returns:
      The results of the function.
    """
    with use_abstract_mesh(mesh):
        return auto_axes(function, out_sharding=out_specs)(*arguments)


def vary_alike(tree: PyTree) -> PyTree:
    """Makes all arrays vary over the union of their varying axes, inside `shard_map`.

    The initial carry of a scan must vary over the same axes as its inputs. The cotangents of replicated parameters are
    then summed over the devices once, after the loop.
    """
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(tree)))

    def vary(leaf: Any):
        missing = tuple(axes - varying_axes(leaf))
        return lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(vary, tree) if axes else tree


def zeros_like(like: Array | jax.ShapeDtypeStruct) -> Array:
    """Returns zeros with the shape, dtype and varying axes of an array."""
    zeros, axes = jnp.zeros(like.shape, like.dtype), tuple(varying_axes(like))
    return lax.pcast(zeros, axes, to="varying") if axes else zeros


def varying_axes(leaf: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """Returns the axes of a mesh that an array varies over, inside `shard_map`."""
    kind = leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jax.typeof(leaf)
    return kind.manual_axis_type.varying if kind.manual_axis_type is not None else frozenset()
