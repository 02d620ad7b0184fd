"""One step from the input to the next state, for streams that arrive a step at a time."""

from typing import Any

import jax
import jax.numpy as jnp

from gru_jax import arguments
from gru_jax.cells.base import Cell, Recurrence
from gru_jax.types import Array, DType, Params, State


def streaming_step(cell: Cell, params: Params, state: State, x: Array, matmul_dtype: DType | None = None) -> State:
    """Runs any cell for one step, checked.

    Args:
      cell: a cell.
      params: its parameters.
      state: arrays (..., H), the state before.
      x: (..., I), the input.
      matmul_dtype: the dtype of the matrix products' operands; None for that of the parameters.

    Returns:
      arrays (..., H), the state after.

    Raises:
      ValueError, TypeError: where shapes or dtypes do not fit; the line names the argument.
    """
    input_size, hidden_size, dtype = cell.check(params)
    x = arguments.floating("x", x)
    arguments.same_dtype("x", x, dtype, "the parameters")
    if x.ndim < 1 or x.shape[-1] != input_size:
        raise ValueError(f"x: expected shape (..., {input_size}), got {x.shape}")
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    return cell.step(
        params,
        check_state("h", cell, state, hidden_size, x.shape[:-1], dtype),
        cell.project(params, x, matmul_dtype),
        matmul_dtype,
    )


def check_state(
    name: str, cell: Recurrence, state: State, hidden_size: int, batch_shape: tuple[int, ...], dtype: DType
) -> State:
    """Returns `state` as arrays (*batch_shape, H) of the cell's own structure; raises where it is none."""
    expected = jax.eval_shape(lambda: cell.initial_state(hidden_size, batch_shape, dtype))
    leaves, structure = jax.tree.flatten(expected)
    if jax.tree.structure(state) != structure:
        raise TypeError(f"{name}: expected {_outline(structure)}, got {_outline(jax.tree.structure(state))}")
    paths = [name + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    arrays = []
    for path, leaf, value in zip(paths, leaves, jax.tree.leaves(state), strict=True):
        array = arguments.floating(path, value)
        arguments.matching(path, array, leaf.shape, "the batch axes of the input and H")
        arguments.same_dtype(path, array, dtype, "the parameters")
        arrays.append(jnp.asarray(array))
    return jax.tree.unflatten(structure, arrays)


def _outline(structure: Any) -> str:
    """`PyTreeDef((*, *))` as `(array, array)`."""
    return str(structure).removeprefix("PyTreeDef(").removesuffix(")").replace("*", "array")
