"""Meshes with explicit axes, those of `jax.make_mesh`, where every operation must say how its result is sharded.

A loop over time, and its gradient, are left to the compiler: inside, the axes are automatic.
"""

from collections.abc import Callable

import jax
from jax.sharding import AbstractMesh, PartitionSpec, auto_axes, use_abstract_mesh

from gru_jax.types import Array, PyTree


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
