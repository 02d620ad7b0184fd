"""One step from the input to the next state, for streams that arrive a step at a time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import arguments
from gru_jax.cells.base import Cell, Recurrence
from gru_jax.cells.precision import computing_dtype, operand_dtype, round_like, widen
from gru_jax.types import Array, DType, Params, State


def streaming_step(
    cell: Cell,
    params: Params,
    state: State,
    x: Array,
    matmul_dtype: DType | None = None,
    *,
    state_name: str = "h",
    input_name: str = "x",
) -> State:
    """Runs any cell for one step, checked; in float32 where the parameters have 16 bits, rounded at its end.

    Args:
      cell: a cell.
      params: its parameters.
      state: arrays (..., H), the state before, in the parameters' dtype, or in float32 beside 16-bit ones.
      x: (..., I), the input.
      matmul_dtype: the dtype of the matrix products' operands; None for that of the parameters.
      state_name: what the caller calls `state`.
      input_name: what the caller calls `x`.

    Returns:
      arrays (..., H), the state after, in the dtype of the state before.

    Raises:
      ValueError, TypeError: where shapes or dtypes do not fit; the line names the argument.
    """
    input_size, hidden_size, dtype = cell.check(params)
    x = arguments.floating(input_name, x)
    arguments.same_dtype(input_name, x, dtype, "the parameters")
    if x.ndim < 1 or x.shape[-1] != input_size:
        raise ValueError(f"{input_name}: expected shape (..., {input_size}), got {x.shape}")
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    state = check_state(state_name, cell, state, hidden_size, x.shape[:-1], dtype)
    params, before, x = widen((jax.tree.map(jnp.asarray, params), state, x))
    matmul_dtype = operand_dtype(matmul_dtype, dtype)
    after = cell.step(params, before, cell.project(params, x, matmul_dtype), matmul_dtype)
    return round_like(after, state)


def check_state(
    name: str,
    cell: Recurrence,
    state: State,
    hidden_size: int,
    batch_shape: tuple[int, ...],
    dtype: DType,
    *,
    per_step: tuple[int, ...] | None = None,
) -> State:
    """Checks a state.

    Args:
      name: what the caller calls it.
      cell: the cell whose structure it must have.
      state: arrays (*batch_shape, H), in the parameters' dtype, or in float32 beside 16-bit ones.
      hidden_size: H.
      batch_shape: the batch axes.
      dtype: the parameters' dtype.
      per_step: the axes of batch and time of arrays (*per_step, H), which are then taken too.

    Returns:
      The state as JAX arrays.

    Raises:
      ValueError, TypeError: where it does not fit; the line names the array.
    """
    expected = jax.eval_shape(lambda: cell.initial_state(hidden_size, batch_shape, dtype))
    leaves, structure = jax.tree.flatten(expected)
    if jax.tree.structure(state) != structure:
        raise TypeError(f"{name}: expected {_outline(expected)}, got {_outline(state)}")
    paths = [name + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    arrays = []
    for path, leaf, value in zip(paths, leaves, jax.tree.leaves(state), strict=True):
        array = arguments.floating(path, value)
        if per_step is None:
            arguments.matching(path, array, leaf.shape, "the batch axes of the input and H")
        elif array.shape not in (leaf.shape, (*per_step, hidden_size)):
            raise ValueError(
                f"{path}: expected shape {leaf.shape}, or {(*per_step, hidden_size)} for a state per mark, "
                f"got {array.shape}"
            )
        if array.dtype != computing_dtype(dtype):
            arguments.same_dtype(path, array, dtype, "the parameters")
        arrays.append(jnp.asarray(array))
    return jax.tree.unflatten(structure, arrays)


def _outline(state: Any) -> str:
    """The structure of a state in words: `an array`, `LSTMState(h, c)`, `a tuple of (an array, an array)`."""
    fields = getattr(state, "_fields", None)
    if fields:
        return f"{type(state).__name__}({', '.join(fields)})"
    if isinstance(state, tuple):
        parts = [_outline(part) for part in state[:4]] + ["..."] * (len(state) > 4)
        return f"a tuple of ({', '.join(parts)})"
    if isinstance(state, (jax.Array, jax.ShapeDtypeStruct, np.ndarray)):
        return "an array"
    return type(state).__name__
