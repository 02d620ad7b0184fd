"""The reference backend: plain `lax.scan`, any cell, any transformation."""

from functools import partial

import jax
from jax import lax

from gru_jax._precision import widen
from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.masking import Resets, enter, keep, leave
from gru_jax._unroll.rows import in_rows
from gru_jax.cells.base import Cell


def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    h0: State,
    live: Array | None,
    resets: Resets | None,
    fresh: State | None,
    *,
    reverse: bool,
    matmul_dtype: DType | None,
) -> tuple[Array, State]:
    """Runs `cell` through time.

    Args:
      cell: a cell.
      params: its parameters.
      xs: (T, B, I), in the parameters' dtype or in 16 bits.
      h0: arrays (B, H).
      live: (T, B) booleans, false past a sequence's length; None where all are true.
      resets: in the direction of the run; None for none.
      fresh: arrays (B, H), the state after a reset without one of its own; None for zeros.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands; None for the parameters' dtype.

    Returns:
      ys (T, B, H) and the final state, in the dtype of h0.
    """

    def step(state, inputs):
        drive, live, reset = inputs
        after = cell.step(params, enter(reset, fresh, state), drive, matmul_dtype)
        return leave(live, after, state), keep(live, cell.output(after))

    project = partial(cell.project, params, matmul_dtype=matmul_dtype)
    drive = in_rows(project, jax.default_backend(), widen(xs))
    state, ys = lax.scan(step, h0, (drive, live, resets), reverse=reverse)
    return ys, state
