"""The reference backend: a plain `lax.scan`. It supports every cell and every transformation."""

from functools import partial
from typing import Any

from jax import lax

from gru_jax._precision import widen
from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.modifiers import Modifiers, apply_decay, apply_reset, hold_state
from gru_jax._unroll.tuning import in_rows
from gru_jax.cells.base import Cell


def scan(
    cell: Cell,
    params: Params,
    xs: Array,
    h0: State,
    modifiers: Modifiers,
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
      modifiers: what changes the state beside the cell, in the direction of the run.
      reset_state: arrays (B, H), the initial state of episodes if the modifiers have none. If None, zeros are used.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.
      platform: "cpu", "gpu" or "tpu".

    Returns:
      ys (T, B, H) and the final state, in the dtype of h0.
    """

    def step(state: State, inputs: Any):
        gate_inputs, now = inputs
        before = apply_decay(now, apply_reset(now, reset_state, state))
        after = hold_state(now, before, cell.step(params, before, gate_inputs, matmul_dtype))
        return after, cell.output(after)

    gate_inputs = in_rows(partial(cell.project, params, matmul_dtype=matmul_dtype), platform, widen(xs))
    state, ys = lax.scan(step, h0, (gate_inputs, modifiers), reverse=reverse)
    return ys, state
