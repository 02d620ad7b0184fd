"""Masks and resets for states of any structure."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax._types import Array, PyTree, State


class Resets(NamedTuple):
    """Where episodes begin.

    Attributes:
      marks: (T, B) booleans, true at the first step of an episode in the direction of the run.
      states: arrays (T, B, H), the initial state of each episode; None if all episodes of a sequence share one.
    """

    marks: Array
    states: State | None


def select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Selects one of two states by a mask `where` (...,): arrays (..., H). Leading axes are broadcast."""

    def choose(a, b):
        shape = where.shape + a.shape[-1:]
        return jnp.where(where[..., None], jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))

    return jax.tree.map(choose, on_true, on_false)


def mask_out(where: Array | None, tree: PyTree) -> PyTree:
    """Sets arrays (..., H) to zero where the mask (...,) is false. If None, they are returned unchanged."""
    if where is None:
        return tree
    return jax.tree.map(lambda a: jnp.where(where[..., None], a, jnp.zeros((), a.dtype)), tree)


def reverse_resets(resets: Resets) -> Resets:
    """Returns the same resets for the opposite direction: a mark at step t moves to step t - 1."""

    def shift(a):
        return jnp.concatenate((a[1:], jnp.zeros_like(a[:1])))

    return jax.tree.map(shift, resets)


def apply_reset(reset: Resets | None, reset_state: State | None, state: State) -> State:
    """Replaces the state before a step by the initial state of the episode that begins there.

    Args:
      reset: the resets of a step, or of several steps with a leading axis. If None, `state` is returned.
      reset_state: arrays (B, H), the initial state of episodes if `reset.states` is None. If None, zeros are used.
      state: the state before the step.

    Returns:
      The state to run the step from.
    """
    if reset is None:
        return state
    if reset.states is not None:
        return select(reset.marks, reset.states, state)
    return mask_out(~reset.marks, state) if reset_state is None else select(reset.marks, reset_state, state)


def hold_state(mask: Array | None, after: State, before: State) -> State:
    """Returns the state after a step, or the state before it where the mask is false."""
    return after if mask is None else select(mask, after, before)
