"""What the gated cells share: the sigmoid and the way several gates lie in one array."""

from collections.abc import Sequence

import jax.numpy as jnp

from gru_jax.types import Array


def sigmoid(x: Array) -> Array:
    """`1 / (1 + exp(-x))`, written with tanh, which vectorises better and cannot overflow."""
    return 0.5 * jnp.tanh(0.5 * x) + 0.5


def split_gates(array: Array, gates: int) -> tuple[Array, ...]:
    """Cuts the last axis, (..., gates * H), into `gates` arrays (..., H)."""
    size = array.shape[-1] // gates
    return tuple(array[..., k * size : (k + 1) * size] for k in range(gates))


def join_gates(arrays: Sequence[Array]) -> Array:
    """Undoes `split_gates`."""
    return jnp.concatenate(arrays, axis=-1)


def split_bias(b: Array, gates: int, like: Array) -> tuple[Array, ...]:
    """Cuts b (gates * H,) into `gates` biases, each of the shape of `like` (..., H)."""
    return tuple(jnp.broadcast_to(gate, like.shape) for gate in split_gates(b, gates))
