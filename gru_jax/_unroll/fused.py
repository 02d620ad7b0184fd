"""The fast backend: `lax.scan` with a gradient of its own, in blocks of time.

Differentiating a plain scan adds a weight gradient at every step and keeps every intermediate. Here the reverse
loop carries the state's cotangent alone; the coefficients that it needs come in bulk before it, the gradients of
weights and inputs in bulk after it, as in cuDNN (Appleyard et al., "Optimizing Performance of Recurrent Neural
Networks on GPUs", 2016). What is kept between the passes is a choice:

    memory          kept for the backward pass, in numbers per sequence and step (G gates)      worked out again
    "save"          states and recurrent products: (G + 1) H (the LSTM: G + 2)                  the projection, in bulk
    "recompute"     states: H (the LSTM's two: 2H)                                              both, in bulk
    "checkpoint"    states at block boundaries: H / block_length                                the whole block

Where one block holds all of T, its projection is at hand too, and "save" keeps it: G H more.

The outputs, (T, B, H), are the caller's, and shared with the states that the GRU keeps.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax._precision import widen
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax._unroll.blocks import INFERENCE_ARRAYS, TRAINING_ARRAYS, Blocks, choose_length, cut, join, scan_blocks
from gru_jax._unroll.generic_adjoint import Derived
from gru_jax._unroll.linearization import call
from gru_jax._unroll.masking import Resets, enter, keep, leave, select
from gru_jax._unroll.rows import in_rows, to_rows
from gru_jax._unroll.sharding import zeros_like
from gru_jax.cells.base import Adjoint, Cell

MEMORY = ("auto", "save", "recompute", "checkpoint")

SHORT_PRODUCT = 128
"""Up to this H, in float32 and blocks of time, products that are worked out again cost less than those that are kept:
a gradient took 0.75 to 0.96 of the time at H from 32 to 128, as long at 256, 1.06 of it at 512."""


@dataclass(frozen=True)
class Plan:
    """All that is decided before a number is touched.

    `block_length` is for a forward pass with a backward pass to follow, `inference_length` for one without.
    """

    cell: Cell
    adjoint: Adjoint
    reverse: bool
    matmul_dtype: DType | None
    memory: str
    block_length: int
    inference_length: int
    platform: str

    def weights(self, params: Params, h0: State) -> "Weights":
        """Prepares the parameters, once for all steps."""
        if self.matmul_dtype is not None and not isinstance(self.adjoint, Derived):
            params = jax.tree.map(lambda a: a.astype(self.matmul_dtype) if a.ndim > 1 else a, params)
        return Weights(params, self.adjoint.arrange(params, rows_of(h0), self.platform))


class Weights(NamedTuple):
    """The parameters with their matrices in the dtype of the products.

    Attributes:
      bulk: for the work on many steps at once.
      loop: laid out for the steps.
    """

    bulk: Params
    loop: PyTree


def fused(
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
    memory: str,
    block_length: int | None,
) -> tuple[Array, State]:
    """Runs `cell` through time.

    Args:
      cell: a cell; the gradient is its own if it is an `Adjoint`, else a derived one.
      params: its parameters.
      xs: (T, B, I), in the parameters' dtype or in 16 bits.
      h0: arrays (B, H).
      live: (T, B) booleans, false past a sequence's length; None where all are true.
      resets: in the direction of the run; None for none.
      fresh: arrays (B, H), the state after a reset without one of its own; None for zeros.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands; None for the parameters' dtype.
      memory: what is kept for the backward pass, see above.
      block_length: the number of steps in a block; None to choose it by size.

    Returns:
      ys (T, B, H) and the final state, in the dtype of h0.
    """
    adjoint = cell if isinstance(cell, Adjoint) else Derived(cell)
    T, platform, states = xs.shape[0], jax.default_backend(), jax.tree.leaves(h0)
    state_bytes = sum(a.nbytes for a in states)

    def length(arrays: int) -> int:
        return min(block_length or choose_length(T, state_bytes, platform, arrays), T)

    lengths = length(TRAINING_ARRAYS), length(INFERENCE_ARRAYS)
    if memory == "auto":
        # Narrow products, or short ones, cost less to work out again than their float32 results to fetch from memory.
        short = platform == "cpu" and lengths[0] < T and all(a.shape[-1] <= SHORT_PRODUCT for a in states)
        memory = "save" if matmul_dtype is None and not short else "recompute"
    plan = Plan(cell, adjoint, reverse, matmul_dtype, memory, *lengths, platform)
    return call(Unrolled(plan), params, xs, h0, live, resets, fresh)


@dataclass(frozen=True)
class Unrolled:
    """`fused`, planned, as a function of its arrays: see `linearization.Function`."""

    plan: Plan

    def outline(self, params, xs, h0, live, resets, fresh):
        y = self.plan.cell.output(h0)
        return jnp.broadcast_to(y, xs.shape[:1] + y.shape), h0

    def evaluate(self, *arguments):
        ys, h_last, _ = _forward(self.plan, *arguments, kept="nothing")
        return ys, h_last

    def forward(self, *arguments):
        ys, h_last, kept = _forward(self.plan, *arguments, kept=self.plan.memory)
        return (ys, h_last), kept

    def backward(self, arguments, kept, cotangents):
        _, _, h0, _, resets, _ = arguments
        ys_cotangent, h_cotangent = cotangents
        h_cotangent = jax.tree.map(
            lambda a, g: zeros_like(a) if g is None else g, h0, h_cotangent, is_leaf=lambda g: g is None
        )
        g_params, g_xs, g_h0, g_states, g_fresh = _backward(self.plan, *arguments, kept, ys_cotangent, h_cotangent)
        g_resets = None if resets is None else resets._replace(marks=None, states=g_states)
        return g_params, g_xs, g_h0, None, g_resets, g_fresh


def _block_forward(plan: Plan, weights: Weights, fresh: State | None, state: State, x, live, resets, *, record: bool):
    """Runs one block: returns the state that it leaves, the states after its steps (zeros past a sequence's end), the
    inputs' projection and the record of the steps."""
    drive = _project(plan, weights, x)

    def step(state, inputs):
        drive, live, reset = inputs
        after, kept = plan.adjoint.record(weights.loop, enter(reset, fresh, state), drive, plan.matmul_dtype)
        return leave(live, after, state), (keep(live, after), kept if record else None)

    state, (states, records) = lax.scan(step, state, (drive, live, resets), reverse=plan.reverse)
    return state, states, drive, records


def _project(plan: Plan, weights: Weights, x: Array) -> PyTree:
    """The inputs' projection (S, B, ...) of a block."""
    return in_rows(partial(plan.cell.project, weights.bulk, matmul_dtype=plan.matmul_dtype), plan.platform, widen(x))


def _forward(plan: Plan, params, xs, h0, live, resets, fresh, *, kept: str):
    """Returns ys, h_last and what the backward pass needs: Blocks of (state on entry, states, drive, record)."""
    weights = plan.weights(params, h0)

    length = plan.inference_length if kept == "nothing" else plan.block_length

    def over_block(state, block):
        end, states, drive, records = _block_forward(plan, weights, fresh, state, *block, record=kept == "save")
        if length < xs.shape[0]:  # To collect the blocks' projections costs more than to project again.
            drive = None
        ys = plan.cell.output(states)
        keeping = {
            "nothing": None,
            "save": (state, states, drive, records),
            "recompute": (state, states, None, None),
            "checkpoint": (state, None, None, None),
        }
        return end, (ys, keeping[kept])

    h_last, out = scan_blocks(over_block, h0, cut((xs, live, resets), length), reverse=plan.reverse)
    main, tail = out
    ys = join(Blocks(main[0], None if tail is None else tail[0]))
    return ys, h_last, Blocks(main[1], None if tail is None else tail[1])


@partial(jax.jit, static_argnums=(0,), inline=True)
def _backward(plan: Plan, params, xs, h0, live, resets, fresh, kept: Blocks, ys_cotangent, h_cotangent):
    """The cotangents of params, xs, h0, the marks' own states and `fresh`.

    Compiled once per shape, so that `grad` outside `jit` is fast too.
    """
    weights = plan.weights(params, h0)
    adjoint, matmul_dtype = plan.adjoint, plan.matmul_dtype
    transposed = adjoint.transpose(weights.bulk, rows_of(h0), plan.platform)
    to_state = jax.linear_transpose(plan.cell.output, h0)

    def block_gradients(carry, block):
        (x, live, resets, g_ys), (entry, states, drive, records) = block
        if states is None:
            _, states, drive, records = _block_forward(plan, weights, fresh, entry, x, live, resets, record=True)
        elif drive is None:
            drive = _project(plan, weights, x)
        before = _before(plan, states, entry, live, resets, fresh)
        if records is None:
            replay = partial(adjoint.replay, weights.bulk, matmul_dtype=matmul_dtype)
            records = in_rows(replay, plan.platform, before, drive)
        coefficients = adjoint.linearize(weights.bulk, before, states, drive, records)

        def step(carry, inputs):
            g_state, g_fresh = carry
            coefficients, g_y, live, reset = inputs
            g_after = g_state if g_y is None else jax.tree.map(jnp.add, g_state, to_state(g_y)[0])
            g_before, trace = adjoint.pullback(transposed, coefficients, keep(live, g_after), matmul_dtype)
            g_own = None
            if reset is not None:
                if reset.states is not None:
                    g_own = keep(reset.marks, g_before)
                elif g_fresh is not None:
                    g_fresh = jax.tree.map(jnp.add, g_fresh, keep(reset.marks, g_before))
                g_before = keep(~reset.marks, g_before)
            return (leave(live, g_before, g_state), g_fresh), (trace, g_own)

        carry, (trace, g_own) = lax.scan(step, carry, (coefficients, g_ys, live, resets), reverse=not plan.reverse)
        x_rows, before, coefficients, trace = to_rows(plan.platform, (widen(x), before, coefficients, trace))
        gradient, g_x = adjoint.gradients(weights.bulk, x_rows, before, coefficients, trace, matmul_dtype)
        return carry, gradient, (g_x.reshape(x.shape).astype(x.dtype), g_own)

    def over_block(carry, block):
        states_carry, total = carry
        states_carry, gradient, out = block_gradients(states_carry, block)
        return (states_carry, jax.tree.map(jnp.add, total, gradient)), out

    inputs = cut((xs, live, resets, ys_cotangent), plan.block_length)
    blocks = Blocks((inputs.main, kept.main), None if inputs.tail is None else (inputs.tail, kept.tail))
    states_carry = (h_cotangent, jax.tree.map(zeros_like, fresh))
    one_block = jax.tree.map(lambda a: a[0], blocks.main)
    total = jax.tree.map(zeros_like, jax.eval_shape(block_gradients, states_carry, one_block)[1])
    carry, out = scan_blocks(over_block, (states_carry, total), blocks, reverse=not plan.reverse)
    ((g_h0, g_fresh), total), (g_xs, g_states) = carry, join(out)
    return adjoint.assemble(total), g_xs, g_h0, g_states, g_fresh


def rows_of(h0: State) -> int:
    """B."""
    return jax.tree.leaves(h0)[0].shape[0]


def _before(
    plan: Plan, states: State, entry: State, live: Array | None, resets: Resets | None, fresh: State | None
) -> State:
    """The state that each step of a block started from, of the states after its steps and the one on entry."""

    def shift(first, rest):
        parts = (rest[1:], first[None]) if plan.reverse else (first[None], rest[:-1])
        return jnp.concatenate(parts)

    before = jax.tree.map(shift, entry, states)
    if live is not None:  # A sequence that runs in reverse from its own last step enters it with the state on entry.
        before = select(shift(jnp.ones_like(live[0]), live), before, entry)
    return enter(resets, fresh, before)
