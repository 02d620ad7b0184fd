"""A scan over blocks of time. Within a block, everything that is not recurrent is computed in bulk.

Blocks are fast because the arrays of a block stay in the cache. They save memory because large arrays exist for one
block only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax._types import Array, PyTree


class Blocks(NamedTuple):
    """Arrays (T, ...) split along time.

    Attributes:
      main: arrays (N, S, ...), N blocks of S steps.
      tail: arrays (T - N S, ...), a shorter block with the last steps; None if S divides T.
    """

    main: PyTree
    tail: PyTree | None


def split(tree: PyTree, length: int) -> Blocks:
    """Splits arrays (T, ...) into blocks of `length` steps."""
    T = jax.tree.leaves(tree)[0].shape[0]
    number, rest = divmod(T, length)

    def main(a: Array):
        return a[: number * length].reshape((number, length) + a.shape[1:])

    return Blocks(jax.tree.map(main, tree), jax.tree.map(lambda a: a[number * length :], tree) if rest else None)


def join(blocks: Blocks) -> PyTree:
    """Inverts `split`."""
    main = jax.tree.map(lambda a: a.reshape((a.shape[0] * a.shape[1],) + a.shape[2:]), blocks.main)
    if blocks.tail is None:
        return main
    return jax.tree.map(lambda a, b: jnp.concatenate((a, b)), main, blocks.tail)


def scan_blocks(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, blocks: Blocks, *, reverse: bool
) -> tuple[Any, Blocks]:
    """Runs `lax.scan` over blocks. The tail runs last, or first if `reverse` is true.

    Args:
      body: `(carry, block) -> (carry, out)`.
      carry: the initial carry.
      blocks: the inputs.
      reverse: whether to run from the last block to the first.

    Returns:
      The final carry and the outputs of the blocks.
    """
    tail = None
    if reverse and blocks.tail is not None:
        carry, tail = body(carry, blocks.tail)
    if jax.tree.leaves(blocks.main)[0].shape[0] == 1:
        carry, out = body(carry, jax.tree.map(lambda a: a[0], blocks.main))
        main = jax.tree.map(lambda a: a[None], out)
    else:
        carry, main = lax.scan(body, carry, blocks.main, reverse=reverse)
    if not reverse and blocks.tail is not None:
        carry, tail = body(carry, blocks.tail)
    return carry, Blocks(main, tail)
