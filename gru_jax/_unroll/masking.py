"""Lengths and resets for any state: a choice between two states for each sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax._types import Array, PyTree, State


class Resets(NamedTuple):
    """Where episodes begin.

    Attributes:
      marks: (T, B) booleans, whether a step, in the direction of the run, is the first of an episode.
      states: arrays (T, B, H), the state that each episode starts from; None if all start from the same.
    """

    marks: Array
    states: State | None


def select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Selects one of two states for each sequence and step: where (...,), arrays (..., H); leading axes broadcast."""

    def choose(a, b):
        shape = where.shape + a.shape[-1:]
        return jnp.where(where[..., None], jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))

    return jax.tree.map(choose, on_true, on_false)


def mask_out(where: Array | None, tree: PyTree) -> PyTree:
    """Sets arrays (..., H) to zero where the mask (...,) is false. A mask of None is true everywhere."""
    if where is None:
        return tree
    return jax.tree.map(lambda a: jnp.where(where[..., None], a, jnp.zeros((), a.dtype)), tree)


def reverse_resets(resets: Resets) -> Resets:
    """Returns the resets between the same steps for the opposite direction: a mark at t moves to t - 1."""

    def shift(a):
        return jnp.concatenate((a[1:], jnp.zeros_like(a[:1])))

    return jax.tree.map(shift, resets)


def apply_reset(reset: Resets | None, reset_state: State | None, state: State) -> State:
    """Returns the state before a step: at the first step of an episode the state that the episode starts from.

    Args:
      reset: the marks of the step, or of several with a leading axis; None for no resets.
      reset_state: arrays (B, H), what episodes without a state of their own start from; None for zeros.
      state: the state before any other step.
    """
    if reset is None:
        return state
    if reset.states is not None:
        return select(reset.marks, reset.states, state)
    return mask_out(~reset.marks, state) if reset_state is None else select(reset.marks, reset_state, state)


def hold_state(mask: Array | None, after: State, before: State) -> State:
    """Returns the state after a step, or the state before it where the sequence has ended (the mask is false)."""
    return after if mask is None else select(mask, after, before)
