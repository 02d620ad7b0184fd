"""Time cut into blocks: a scan over blocks, inside which all that is not recurrent happens in bulk.

One mechanism serves speed, for a block's arrays stay in the cache, and memory, for nothing bulky outlives its block.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax._types import PyTree


class Blocks(NamedTuple):
    """Arrays (T, ...) cut along time.

    Attributes:
      main: arrays (N, S, ...), the N blocks of S steps.
      tail: arrays (T - N S, ...), the shorter block at the end of time; None where S divides T.
    """

    main: PyTree
    tail: PyTree | None


def cut(tree: PyTree, length: int) -> Blocks:
    """Cuts arrays (T, ...) into blocks of `length` steps."""
    T = jax.tree.leaves(tree)[0].shape[0]
    number, rest = divmod(T, length)

    def main(a):
        return a[: number * length].reshape((number, length) + a.shape[1:])

    return Blocks(jax.tree.map(main, tree), jax.tree.map(lambda a: a[number * length :], tree) if rest else None)


def join(blocks: Blocks) -> PyTree:
    """Undoes `cut`."""
    main = jax.tree.map(lambda a: a.reshape((a.shape[0] * a.shape[1],) + a.shape[2:]), blocks.main)
    if blocks.tail is None:
        return main
    return jax.tree.map(lambda a, b: jnp.concatenate((a, b)), main, blocks.tail)


def scan_blocks(
    body: Callable[[Any, Any], tuple[Any, Any]], carry: Any, blocks: Blocks, *, reverse: bool
) -> tuple[Any, Blocks]:
    """`lax.scan` over blocks; the tail runs last, or first in reverse.

    Args:
      body: `(carry, block) -> (carry, out)`.
      carry: what the first block starts from.
      blocks: the inputs.
      reverse: whether to run from the end of time.

    Returns:
      The carry that the last block leaves, and the blocks' `out`.
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


TRAINING_ARRAYS, INFERENCE_ARRAYS = 16, 5
"""How many arrays of the state's size a block passes through a step: with a backward pass to follow, and without."""


def choose_length(T: int, state_bytes: int, platform: str, arrays: int = TRAINING_ARRAYS) -> int:
    """The number of steps in a block.

    On a CPU one block over all of T is best while its arrays fit in memory that the allocator keeps mapped between
    calls; beyond that, blocks that stay in the cache. On accelerators larger blocks fill the device.

    Args:
      T: the number of time steps.
      state_bytes: the bytes of one state of the whole batch.
      platform: "cpu", "gpu" or "tpu".
      arrays: how many arrays of that size a step's bulk work passes through.

    Returns:
      A block length from 1 to T; a divisor of T where one is near.
    """
    whole, block = (28e6, 10e6) if platform == "cpu" else (1e9, 2.5e8)
    step_bytes = arrays * max(state_bytes, 1)
    return T if T * step_bytes <= whole else _nearest_divisor(T, max(16, int(block // step_bytes)))


def _nearest_divisor(T: int, target: int) -> int:
    """The divisor of T nearest to `target` within a factor of two; `target` itself where there is none."""
    if target >= T:
        return T
    near = [d for d in range((target + 1) // 2, min(2 * target, T) + 1) if T % d == 0]
    return min(near, key=lambda d: max(d / target, target / d)) if near else target
