"""The fast backend: `lax.scan` over blocks of time, with a gradient derived by hand.

Differentiating a plain scan accumulates a weight gradient at every step and stores every intermediate. Here the reverse
loop carries only the cotangent of the state. Its coefficients are computed in bulk before the loop. The gradients of
weights and inputs are computed in bulk after it, as in cuDNN (Appleyard et al., "Optimizing Performance of Recurrent
Neural Networks on GPUs", 2016). `memory` sets what is stored between the passes:

    memory          stored, in elements per sequence and step (G gates)                recomputed
    "save"          states and recurrent products: (G + 1) H (LSTM: (G + 2) H)         the projection, in bulk
    "recompute"     states: H (LSTM: 2H)                                               both, in bulk
    "checkpoint"    states at block boundaries: H / block_length                       the whole block

If one block covers all T steps, "save" also stores its projection: G H more. The outputs (T, B, H) are returned to the
caller in any case. For a GRU they are the stored states.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax._precision import widen
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax._unroll.blocks import Blocks, join, scan_blocks, split
from gru_jax._unroll.generic_adjoint import GenericAdjoint, whole_gradient
from gru_jax._unroll.linearization import call, fill_zeros
from gru_jax._unroll.modifiers import (
    Modifiers,
    apply_decay,
    apply_reset,
    decay_gradient,
    hold_state,
    mask_out,
    split_cotangent,
)
from gru_jax._unroll.sharding import zeros_like
from gru_jax._unroll.tuning import (
    Core,
    choose_block_length,
    choose_memory,
    in_rows,
    pack,
    pack_transpose,
    to_rows,
)
from gru_jax.cells.base import Adjoint, Cell, Product, Readout
from gru_jax.cells.gates import products

MEMORY = ("auto", "save", "recompute", "checkpoint")


@dataclass(frozen=True)
class Plan:
    """The static options of a run.

    `block_length` is used if a backward pass follows the forward pass, `inference_length` if none follows.
    """

    cell: Cell
    adjoint: Adjoint
    reverse: bool
    matmul_dtype: DType | None
    memory: str
    block_length: int
    inference_length: int
    platform: str
    core: Core | None = None

    def scan(
        self,
        step: Callable[..., tuple[PyTree, PyTree]],
        shared: PyTree,
        rows: PyTree,
        carry: PyTree,
        xs: PyTree,
        *,
        reverse: bool,
    ) -> tuple[PyTree, PyTree]:
        """Runs `lax.scan` of `step(shared, rows, carry, x) -> (carry, y)`, as a kernel if the plan has a core.

        The step closes over no arrays: `rows` are its arrays (B, ...), and `shared` those that all rows share.
        """
        if self.core is None:
            return lax.scan(lambda carry, x: step(shared, rows, carry, x), carry, xs, reverse=reverse)
        from gru_jax._unroll import kernel  # Pallas takes a while to import, and no other backend needs it.

        return kernel.scan(self.core, step, shared, rows, carry, xs, reverse=reverse)

    def cast(self, params: Params) -> Params:
        """Casts the matrices to the dtype of the products, once for all steps."""
        if self.matmul_dtype is None or isinstance(self.adjoint, GenericAdjoint):
            return params
        return jax.tree.map(lambda a: a.astype(self.matmul_dtype) if a.ndim > 1 else a, params)

    def pack(self, params: Params, h0: State, *, transpose: bool = False) -> tuple[Product, ...]:
        """Packs the recurrent matrices for the products in a loop: `x -> x U`, or `x -> x Uᵀ` if `transpose`."""
        rows, matrices = jax.tree.leaves(h0)[0].shape[0], self.adjoint.recurrent_matrices(params)
        packing = pack_transpose if transpose else pack
        return tuple(packing(matrix, rows, self.platform, self.matmul_dtype) for matrix in matrices)


def fused(
    cell: Cell,
    params: Params,
    xs: Array,
    h0: State,
    modifiers: Modifiers,
    reset_state: State | None,
    *,
    reverse: bool,
    matmul_dtype: DType | None,
    memory: str,
    block_length: int | None,
    platform: str,
    core: Core | None = None,
) -> tuple[Array, State]:
    """Runs a cell over time.

    Args:
      cell: a cell. Its `Adjoint` methods compute the gradient; without them it is derived from the step.
      params: its parameters.
      xs: (T, B, I), in the parameters' dtype or in 16 bits.
      h0: arrays (B, H), the initial state.
      modifiers: what changes the state beside the cell, in the direction of the run.
      reset_state: arrays (B, H), the initial state of episodes if the modifiers have none. If None, zeros are used.
      reverse: whether to run from the last step to the first.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.
      memory: what is stored for the backward pass; see the module docstring.
      block_length: the number of steps in a block. If None, it is chosen by size.
      platform: "cpu", "gpu" or "tpu".
      core: the core of a TPU on which the loops over time run as kernels. If None, they are plain scans.

    Returns:
      ys (T, B, H) and the final state, in the dtype of h0.
    """
    adjoint = cell if isinstance(cell, Adjoint) else GenericAdjoint(cell, matmul_dtype)
    T = xs.shape[0]
    if block_length is None:
        training, inference = _step_bytes(cell, adjoint, params, xs, h0, matmul_dtype)
        lengths = choose_block_length(T, training, platform), choose_block_length(T, inference, platform)
    else:
        lengths = min(block_length, T), min(block_length, T)
    if memory == "auto":
        memory = choose_memory(h0, T, platform, matmul_dtype, several_blocks=lengths[0] < T)
    if modifiers.blend and memory == "save":
        memory = "recompute"  # The states after the cell, which `linearize` needs, are recomputed with the residuals.
    plan = Plan(cell, adjoint, reverse, matmul_dtype, memory, *lengths, platform, core)
    return call(Unrolled(plan), params, xs, h0, modifiers, reset_state)


def _step_bytes(
    cell: Cell, adjoint: Adjoint, params: Params, xs: Array, h0: State, matmul_dtype: DType | None
) -> tuple[int, int]:
    """Returns the bytes of the arrays of a block, per step: with a backward pass, and without."""

    def step(params: Params, xs: Array, before: State):
        x = widen(xs[0])
        gate_inputs = cell.project(params, x, matmul_dtype=matmul_dtype)
        unpacked = products(adjoint.recurrent_matrices(params), matmul_dtype)
        after, residuals = adjoint.step_with_residuals(params, unpacked, before, gate_inputs)
        coefficients = adjoint.linearize(params, before, after, gate_inputs, residuals)
        outputs = cell.output(after)
        if isinstance(cell, Readout):
            outputs = outputs, cell.readout(params, outputs, x, matmul_dtype)
        return (gate_inputs, after, outputs), (residuals, coefficients), outputs

    def size(tree: PyTree) -> int:
        return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))

    forward, backward, outputs = map(size, jax.eval_shape(step, params, xs, h0))
    return forward + backward + outputs, forward + outputs


@dataclass(frozen=True)
class Unrolled:
    """`fused` as a function of its arrays, for `linearization.call`."""

    plan: Plan

    def outline(self, params: Params, xs: Array, h0: State, modifiers: Modifiers, reset_state: State | None):
        y = self.plan.cell.output(h0)
        return jax.tree.map(lambda a: jnp.broadcast_to(a, xs.shape[:1] + a.shape), y), h0

    def evaluate(self, *arguments: Any):
        ys, h_last, _ = _forward(self.plan, *arguments, kept="nothing")
        return ys, h_last

    def forward(self, *arguments: Any):
        ys, h_last, kept = _forward(self.plan, *arguments, kept=self.plan.memory)
        return (ys, h_last), kept

    def backward(self, arguments: Any, kept: Any, cotangents: Any):
        h0 = arguments[2]
        ys_cotangent, h_cotangent = cotangents
        if jax.tree.leaves(ys_cotangent):
            ys_cotangent = fill_zeros(self.outline(*arguments)[0], ys_cotangent)
        return _backward(self.plan, *arguments, kept, ys_cotangent, fill_zeros(h0, h_cotangent))


def _block_forward(
    plan: Plan,
    params: Params,
    packed: Any,
    reset_state: State | None,
    state: State,
    x: Array,
    modifiers: Modifiers,
    *,
    save: bool,
):
    """Runs one block.

    Returns:
      The state after the block, the states after its steps, the gate inputs and, if `save` is true, the residuals.
    """
    gate_inputs = _project(plan, params, x)

    def step(shared: Any, reset_state: State | None, state: State, inputs: Any):
        (params, packed), (gate_inputs, now) = shared, inputs
        before = apply_decay(now, apply_reset(now, reset_state, state))
        after, residuals = plan.adjoint.step_with_residuals(params, packed, before, gate_inputs)
        after = hold_state(now, before, after)
        return after, (after, residuals if save else None)

    state, (states, residuals) = plan.scan(
        step, (params, packed), reset_state, state, (gate_inputs, modifiers), reverse=plan.reverse
    )
    return state, states, gate_inputs, residuals


def _project(plan: Plan, params: Params, x: Array) -> PyTree:
    """Returns the gate inputs (S, B, ...) of a block."""
    return in_rows(partial(plan.cell.project, params, matmul_dtype=plan.matmul_dtype), plan.platform, widen(x))


def _recompute(plan: Plan, params: Params, before: State, gate_inputs: PyTree) -> tuple[State, PyTree]:
    """Returns the states after the cell and the residuals of all steps of a block at once."""
    unpacked = products(plan.adjoint.recurrent_matrices(params), plan.matmul_dtype)

    def steps(before: State, gate_inputs: PyTree):
        return plan.adjoint.step_with_residuals(params, unpacked, before, gate_inputs)

    return in_rows(steps, plan.platform, before, gate_inputs)


def _forward(
    plan: Plan, params: Params, xs: Array, h0: State, modifiers: Modifiers, reset_state: State | None, *, kept: str
):
    """Returns ys, h_last and Blocks of (first state, states, gate inputs, residuals) for the backward pass."""
    params = plan.cast(params)
    packed = plan.pack(params, h0)
    length = plan.inference_length if kept == "nothing" else plan.block_length

    def over_block(state: State, block: Any):
        end, states, gate_inputs, residuals = _block_forward(
            plan, params, packed, reset_state, state, *block, save=kept == "save"
        )
        if length < xs.shape[0]:  # Storing the projections of all blocks costs more than recomputing them.
            gate_inputs = None
        ys = plan.cell.output(states)
        keeping = {
            "nothing": None,
            "save": (state, states, gate_inputs, residuals),
            "recompute": (state, states, None, None),
            "checkpoint": (state, None, None, None),
        }
        return end, (ys, keeping[kept])

    h_last, out = scan_blocks(over_block, h0, split((xs, modifiers), length), reverse=plan.reverse)
    main, tail = out
    ys = join(Blocks(main[0], None if tail is None else tail[0]))
    return ys, h_last, Blocks(main[1], None if tail is None else tail[1])


@partial(jax.jit, static_argnums=(0,), inline=True)
def _backward(
    plan: Plan,
    params: Params,
    xs: Array,
    h0: State,
    modifiers: Modifiers,
    reset_state: State | None,
    kept: Blocks,
    ys_cotangent: Any,
    h_cotangent: Any,
):
    """Returns the cotangents of params, xs, h0, the modifiers and `reset_state`.

    Compiled once per shape, so that `grad` outside `jit` is fast.
    """
    adjoint, given, params = plan.adjoint, params, plan.cast(params)
    packed, packed_transposes = plan.pack(params, h0), plan.pack(params, h0, transpose=True)

    def block_gradients(carry: Any, block: Any):
        (x, now, g_ys), (entry, states, gate_inputs, residuals) = block
        if states is None:
            _, states, gate_inputs, residuals = _block_forward(
                plan, params, packed, reset_state, entry, x, now, save=True
            )
        elif gate_inputs is None:
            gate_inputs = _project(plan, params, x)
        undecayed = apply_reset(now, reset_state, _previous(plan, states, entry))
        before = apply_decay(now, undecayed)
        if residuals is None or now.blend:
            own, residuals = _recompute(plan, params, before, gate_inputs)
            states = own if now.blend else states
        coefficients = adjoint.linearize(params, before, states, gate_inputs, residuals)

        def step(shared: Any, _, carry: Any, inputs: Any):
            (params, packed_transposes), (g_state, g_reset_state) = shared, carry
            coefficients, g_y, now = inputs
            g_after = g_state
            if g_y is not None:
                (g_output,) = jax.linear_transpose(plan.cell.output, g_state)(g_y)
                g_after = jax.tree.map(jnp.add, g_state, g_output)
            g_kept, g_after = split_cotangent(now, g_after)
            g_before, step_cotangents = adjoint.pullback(params, packed_transposes, coefficients, g_after)
            if g_kept is not None:
                g_before = jax.tree.map(jnp.add, g_before, g_kept)
            g_state, g_own = apply_decay(now, g_before), None
            if now.resets is not None:
                if now.reset_states is not None:
                    g_own = mask_out(now.resets, g_state)
                elif g_reset_state is not None:
                    g_reset_state = jax.tree.map(jnp.add, g_reset_state, mask_out(now.resets, g_state))
                g_state = mask_out(~now.resets, g_state)
            g_decayed = None if now.decay is None else g_before
            return (g_state, g_reset_state), (step_cotangents, g_decayed, g_own)

        shared, inputs = (params, packed_transposes), (coefficients, g_ys, now)
        carry, out = plan.scan(step, shared, None, carry, inputs, reverse=not plan.reverse)
        step_cotangents, g_decayed, g_own = out
        g_decay = None if now.decay is None else decay_gradient(now, undecayed, g_decayed)
        x_rows, before, coefficients, step_cotangents = to_rows(
            plan.platform, (widen(x), before, coefficients, step_cotangents)
        )
        gradient, g_x = adjoint.gradients(params, x_rows, before, coefficients, step_cotangents, plan.matmul_dtype)
        return carry, gradient, (g_x.reshape(x.shape).astype(x.dtype), g_own, g_decay)

    def over_block(carry: Any, block: Any):
        states_carry, total = carry
        states_carry, gradient, out = block_gradients(states_carry, block)
        return (states_carry, jax.tree.map(jnp.add, total, gradient)), out

    inputs = split((xs, modifiers, ys_cotangent), plan.block_length)
    blocks = Blocks((inputs.main, kept.main), None if inputs.tail is None else (inputs.tail, kept.tail))
    states_carry = (h_cotangent, jax.tree.map(zeros_like, reset_state))
    one_block = jax.tree.map(lambda a: a[0], blocks.main)
    total = jax.tree.map(zeros_like, jax.eval_shape(block_gradients, states_carry, one_block)[1])
    carry, out = scan_blocks(over_block, (states_carry, total), blocks, reverse=not plan.reverse)
    ((g_h0, g_reset_state), total), (g_xs, g_states, g_decay) = carry, join(out)
    g_keep = jax.tree.map(lambda a: None if a.dtype == jnp.bool_ else zeros_like(a), modifiers.keep)
    g_modifiers = Modifiers(None, g_states, g_decay, g_keep)
    return jax.tree.map(whole_gradient, given, total), g_xs, g_h0, g_modifiers, g_reset_state


def _previous(plan: Plan, states: State, entry: State) -> State:
    """Returns the state before each step of a block, given the states after its steps and the one before the block."""

    def shift(first: Array, rest: Array):
        parts = (rest[1:], first[None]) if plan.reverse else (first[None], rest[:-1])
        return jnp.concatenate(parts)

    return jax.tree.map(shift, entry, states)
