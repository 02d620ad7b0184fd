"""Dropout, at half the price: the draw of random bits is what costs, so each 32 of them decide two entries."""

import jax
import jax.numpy as jnp

from gru_jax import arguments
from gru_jax.types import Array


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Sets entries to zero at random and scales up the rest, so that the mean stays.

    Args:
      x: an array of any shape.
      rate: the share of entries set to zero, in [0, 1), to within 2⁻¹⁷.
      key: a PRNG key, consumed; None for no dropout.

    Returns:
      an array like x.

    Raises:
      ValueError, TypeError: where an argument does not fit; the line names it.

    Reference: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """
    x = arguments.floating("dropout: x", x)
    arguments.fraction("dropout: rate", rate)
    if key is not None:
        arguments.prng_key("dropout: key", key)
    if key is None or rate == 0 or x.size == 0:
        return x
    kept = max(1, round((1 - rate) * 2**16))
    bits = jax.random.bits(key, ((x.size + 1) // 2,), jnp.uint32)
    draws = jnp.concatenate((bits & 0xFFFF, bits >> 16))[: x.size].reshape(x.shape)
    return jnp.where(draws < kept, x * (2**16 / kept), 0)
