"""Random booleans, for dropout and zoneout."""

import math

import jax
import jax.numpy as jnp

from gru_jax._types import Array

CHANCES = 2**16
"""Probabilities are multiples of `1 / CHANCES`."""


def draw(key: Array, chances: int, shape: tuple[int, ...]) -> Array:
    """Returns independent booleans, each true with probability `chances / CHANCES`. The key is consumed.

    Drawing random bits takes most of the time, so 32 bits decide two entries.
    """
    size = math.prod(shape)
    bits = jax.random.bits(key, ((size + 1) // 2,), jnp.uint32)
    return jnp.concatenate((bits & 0xFFFF, bits >> 16))[:size].reshape(shape) < chances
