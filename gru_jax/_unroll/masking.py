"""Lengths and resets, for any state: choosing between two states, sequence by sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gru_jax._types import Array, PyTree, State


def select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Chooses for each sequence and step: where (...,), arrays (..., H); leading axes that one lacks are broadcast."""

    def choose(a, b):
        shape = where.shape + a.shape[-1:]
        return jnp.where(where[..., None], jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))

    return jax.tree.map(choose, on_true, on_false)


def keep(where: Array | None, tree: PyTree) -> PyTree:
    """`tree` where true, zeros elsewhere; `tree` itself where there is no mask."""
    if where is None:
        return tree
    return jax.tree.map(lambda a: jnp.where(where[..., None], a, jnp.zeros((), a.dtype)), tree)


class Resets(NamedTuple):
    """Where a run begins anew.

    Attributes:
      marks: (T, B) booleans, whether the state before a step, in the direction of the run, is a fresh one.
      states: arrays (T, B, H), a fresh state for each mark; None where all are the same.
    """

    marks: Array
    states: State | None


def turn(resets: Resets) -> Resets:
    """The same cuts between steps for the opposite direction: what began step t forward begins step t - 1 backward."""

    def shift(a):
        return jnp.concatenate((a[1:], jnp.zeros_like(a[:1])))

    return jax.tree.map(shift, resets)


def enter(reset: Resets | None, fresh: State | None, state: State) -> State:
    """The state that a step starts from: where it is reset the mark's own, else `fresh`, or zeros where that is None.

    Args:
      reset: of the step, or of several with a leading axis; None for none.
      fresh: arrays (B, H), the fresh state of all marks without one of their own.
      state: what a step starts from that is not reset.
    """
    if reset is None:
        return state
    if reset.states is not None:
        return select(reset.marks, reset.states, state)
    return keep(~reset.marks, state) if fresh is None else select(reset.marks, fresh, state)


def leave(live: Array | None, after: State, before: State) -> State:
    """The state that a step leaves: the one before it where the sequence has ended."""
    return after if live is None else select(live, after, before)
