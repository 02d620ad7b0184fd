"""Bulk work on many steps at once, in the form that the platform multiplies fastest.

A product that contracts the axes of time and batch both is fastest as it is on a CPU, where a reshape to rows makes it
transpose; on an accelerator it is the other way round.
"""

from collections.abc import Callable

import jax
from jax import lax

from gru_jax._types import Array, PyTree


def in_rows(function: Callable[..., PyTree], platform: str, *trees: PyTree) -> PyTree:
    """Applies a function of arrays (S, B, ...) that returns such arrays: on accelerators as rows (S B, ...)."""
    if platform == "cpu":
        return function(*trees)
    S, B = jax.tree.leaves(trees)[0].shape[:2]
    return jax.tree.map(lambda a: a.reshape((S, B) + a.shape[1:]), function(*to_rows(platform, trees)))


def to_rows(platform: str, tree: PyTree) -> PyTree:
    """Arrays (S, B, ...) as rows (S B, ...) on accelerators, as they are on a CPU.

    The barrier keeps the compiler from merging the reshape into a product, which would undo it.
    """
    return tree if platform == "cpu" else lax.optimization_barrier(jax.tree.map(_merge, tree))


def _merge(a: Array) -> Array:
    return a.reshape((a.shape[0] * a.shape[1],) + a.shape[2:])
