"""The reference backend: a plain `lax.scan`. It supports every cell and every transformation."""

from functools import partial

from jax import lax

from gru_jax._precision import widen
from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.masking import Resets, apply_reset, hold_state, mask_out
from gru_jax._unroll.tuning import in_rows
from gru_jax.cells.base import Cell


def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    h0: State,
    mask: Array | None,
    resets: Resets | None,
    reset_state: State | None,
    *,
    reverse: bool,
    matmul_dtype: DType | None,
    platform: str,
) -> tuple[Array, State]:
    """Runs a cell over time.

    Args:
      cell: a cell.
      params: its parameters.
      xs: (T, B, I), in the parameters' dtype or in 16 bits.
      h0: arrays (B, H), the initial state.
      mask: (T, B) booleans, false past the length of a sequence. If None, all are true.
      resets: where episodes begin, in the direction of the run. If None, there are no resets.
      reset_state: arrays (B, H), the initial state of episodes if `resets.states` is None. If None, zeros are used.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.
      platform: "cpu", "gpu" or "tpu".

    Returns:
      ys (T, B, H) and the final state, in the dtype of h0.
    """

    def step(state, inputs):
        gate_inputs, mask, reset = inputs
        after = cell.step(params, apply_reset(reset, reset_state, state), gate_inputs, matmul_dtype)
        return hold_state(mask, after, state), mask_out(mask, cell.output(after))

    gate_inputs = in_rows(partial(cell.project, params, matmul_dtype=matmul_dtype), platform, widen(xs))
    state, ys = lax.scan(step, h0, (gate_inputs, mask, resets), reverse=reverse)
    return ys, state
