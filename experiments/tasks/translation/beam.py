"""Greedy search and beam search for the most likely sequence of symbols, inside `jit`.

A model is a function `(symbols (B,), state) -> (logits (B, V), state)`, where the state is a pytree of arrays (B, ...).
A sequence ends with the symbol `end` or after `length` symbols. Axes: B rows, W hypotheses, T symbols, V vocabulary.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Step: TypeAlias = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class Hypotheses(NamedTuple):
    """The hypotheses of a search.

    Attributes:
      symbols: (B, W, T) int32, best hypothesis first, padded with `end`.
      lengths: (B, W) int32, including `end`.
      log_probabilities: (B, W) float32, of the sequences; -inf for missing hypotheses.
    """

    symbols: jax.Array
    lengths: jax.Array
    log_probabilities: jax.Array


def greedy_search(step: Step, state: Any, *, begin: int, end: int, length: int) -> Hypotheses:
    """Selects the most likely symbol at every step.

    Args:
      step: the model.
      state: the initial state, arrays (B, ...).
      begin: the first input symbol.
      end: the symbol that ends a sequence.
      length: T, the most symbols.

    Returns:
      one hypothesis per row: W = 1.
    """
    B = jax.tree.leaves(state)[0].shape[0]

    def proceed(carry: Any) -> jax.Array:
        t, _, _, _, _, _, finished = carry
        return (t < length) & ~finished.all()

    def extend(carry: Any) -> Any:
        t, last, state, symbols, lengths, total, finished = carry
        logits, state = step(last, state)
        symbol = jnp.where(finished, end, jnp.argmax(logits, axis=-1)).astype(last.dtype)
        gain = jnp.take_along_axis(jax.nn.log_softmax(logits), symbol[:, None], axis=-1)[:, 0]
        total = total + jnp.where(finished, 0, gain)
        symbols = symbols.at[:, t].set(symbol)
        return t + 1, symbol, state, symbols, lengths + ~finished, total, finished | (symbol == end)

    first, zeros = jnp.full((B,), begin, jnp.int32), jnp.zeros((B,), jnp.int32)
    symbols = jnp.full((B, length), end, jnp.int32)
    start = (0, first, state, symbols, zeros, jnp.zeros((B,)), jnp.zeros((B,), bool))
    _, _, _, symbols, lengths, total, _ = jax.lax.while_loop(proceed, extend, start)
    return Hypotheses(symbols[:, None], lengths[:, None], total[:, None])


def beam_search(
    step: Step, state: Any, *, begin: int, end: int, length: int, width: int, length_penalty: float = 0.0
) -> Hypotheses:
    """Extends the W most likely hypotheses of each row at every step. Finished ones stay in the beam.

    Args:
      step: the model.
      state: the initial state, arrays (B, ...).
      begin: the first input symbol.
      end: the symbol that ends a sequence.
      length: T, the most symbols.
      width: W.
      length_penalty: the final ranking is by log-probability / length ** length_penalty. 0 ranks by the
        log-probability, 1 by its mean over symbols.

    Returns:
      W hypotheses per row, best first.

    Reference: Graves, "Sequence Transduction with Recurrent Neural Networks", 2012; Wu et al., "Google's Neural
    Machine Translation System", 2016 (length penalty, here without the constant 5).
    """
    B = jax.tree.leaves(state)[0].shape[0]
    steps = jax.vmap(step, in_axes=1, out_axes=1)

    def proceed(carry: Any) -> jax.Array:
        t, _, _, found, finished = carry
        return (t < length) & ~(finished | jnp.isneginf(found.log_probabilities)).all()

    def extend(carry: Any) -> Any:
        t, last, state, found, finished = carry
        logits, state = steps(last, state)
        V = logits.shape[-1]
        ended = jnp.where(jnp.arange(V) == end, 0.0, -jnp.inf)  # a finished hypothesis has one extension
        gains = jnp.where(finished[..., None], ended[None, None], jax.nn.log_softmax(logits))
        totals = found.log_probabilities[..., None] + gains
        best, place = jax.lax.top_k(totals.reshape(B, width * V), width)
        parent, symbol = place // V, place % V
        found, state, finished = jax.tree.map(lambda leaf: _rows(leaf, parent), (found, state, finished))
        found = Hypotheses(found.symbols.at[:, :, t].set(symbol), found.lengths + ~finished, best)
        return t + 1, symbol, state, found, finished | (symbol == end)

    first = jnp.where(jnp.arange(width) == 0, 0.0, -jnp.inf)  # start from one empty hypothesis
    found = Hypotheses(
        jnp.full((B, width, length), end, jnp.int32),
        jnp.zeros((B, width), jnp.int32),
        jnp.broadcast_to(first, (B, width)),
    )
    state = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], width, axis=1), state)
    start = (0, jnp.full((B, width), begin, jnp.int32), state, found, jnp.zeros((B, width), bool))
    _, _, _, found, _ = jax.lax.while_loop(proceed, extend, start)
    ranks = found.log_probabilities / jnp.maximum(found.lengths, 1) ** length_penalty
    order = jnp.argsort(ranks, axis=1, descending=True)
    return jax.tree.map(lambda leaf: _rows(leaf, order), found)


def _rows(leaf: jax.Array, choice: jax.Array) -> jax.Array:
    """Selects hypotheses: leaf (B, W, ...), choice (B, W) -> (B, W, ...)."""
    return jnp.take_along_axis(leaf, choice.reshape(choice.shape + (1,) * (leaf.ndim - 2)), axis=1)
