"""The reference backend: plain `lax.scan`, any cell, any transformation."""

from functools import partial

import jax
from jax import lax

from gru_jax.cells.base import Cell
from gru_jax.types import Array, DType, Params, State
from gru_jax.unroll.masking import enter, keep, leave
from gru_jax.unroll.rows import in_rows


def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    h0: State,
    live: Array | None,
    resets: Array | None,
    *,
    reverse: bool,
    matmul_dtype: DType | None,
) -> tuple[Array, State]:
    """Runs `cell` through time.

    Args:
      cell: a cell.
      params: its parameters.
      xs: (T, B, I).
      h0: arrays (B, H).
      live: (T, B) booleans, false past a sequence's length; None where all are.
      resets: (T, B) booleans; None for none.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands; None for the parameters' dtype.

    Returns:
      ys (T, B, H) and the final state.
    """

    def step(state, inputs):
        drive, live, reset = inputs
        after = cell.step(params, enter(reset, h0, state), drive, matmul_dtype)
        return leave(live, after, state), keep(live, cell.output(after))

    project = partial(cell.project, params, matmul_dtype=matmul_dtype)
    drive = in_rows(project, jax.default_backend(), xs)
    state, ys = lax.scan(step, h0, (drive, live, resets), reverse=reverse)
    return ys, state
