"""Lengths and resets, for any state: choosing between two states, sequence by sequence."""

import jax
import jax.numpy as jnp

from gru_jax.types import Array, PyTree, State


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


def enter(reset: Array | None, h0: State, state: State) -> State:
    """The state that a step starts from: `h0` where the sequence is reset."""
    return state if reset is None else select(reset, h0, state)


def leave(live: Array | None, after: State, before: State) -> State:
    """The state that a step leaves: the one before it where the sequence has ended."""
    return after if live is None else select(live, after, before)
