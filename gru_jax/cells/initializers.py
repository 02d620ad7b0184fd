"""Weight initializers, by name or as functions such as `jax.nn.initializers.glorot_uniform()`.

Each gate is initialized separately. For a concatenated `(I, 3H)` matrix, Glorot's variance would be too small, since
fan_out would be 3H. An orthogonal `(H, 3H)` matrix does not consist of orthogonal `(H, H)` matrices.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp

from gru_jax import _arguments as arguments
from gru_jax._types import Array, DType, Initializer

W_INITIALIZERS = ("glorot", "orthogonal", "uniform")
U_INITIALIZERS = ("orthogonal", "glorot", "uniform")


def matrix(name: str | Initializer, hidden_size: int) -> Initializer:
    """Returns the initializer of a gate's matrix.

    Args:
      name: "glorot" (uniform with variance 2 / (fan_in + fan_out); Glorot and Bengio 2010), "orthogonal" (Saxe et
        al. 2014), "uniform" (within 1 / sqrt(H), as in PyTorch), or an initializer.
      hidden_size: H.
    """
    if callable(name):
        return partial(_drawn, name)
    bound = 1 / math.sqrt(hidden_size)
    known: dict[str, Initializer] = {
        "glorot": jax.nn.initializers.glorot_uniform(),
        "orthogonal": jax.nn.initializers.orthogonal(),
        "uniform": lambda key, shape, dtype: jax.random.uniform(key, shape, dtype, -bound, bound),
    }
    return known[name]


def gates(name: str | Initializer, key: Array, rows: int, hidden_size: int, count: int, dtype: DType) -> Array:
    """Returns the initial matrices of `count` gates, concatenated: (rows, count * H)."""
    draw = matrix(name, hidden_size)
    keys = jax.random.split(key, count)
    # The QR decomposition of "orthogonal" does not support 16 bits.
    wide = jnp.promote_types(dtype, jnp.float32)
    return jnp.concatenate([draw(k, (rows, hidden_size), wide) for k in keys], axis=1).astype(dtype)


def bias(name: str | Initializer, key: Array, size: int, hidden_size: int, dtype: DType) -> Array:
    """Returns initial biases (size,): "zeros", "uniform" (within 1 / sqrt(H), as in PyTorch) or from an initializer."""
    if callable(name):
        keys = jax.random.split(key, size // hidden_size)
        wide = jnp.promote_types(dtype, jnp.float32)
        return jnp.concatenate([_drawn(name, k, (hidden_size,), wide) for k in keys]).astype(dtype)
    if name == "uniform":
        bound = 1 / math.sqrt(hidden_size)
        return jax.random.uniform(key, (size,), dtype, -bound, bound)
    return jnp.zeros((size,), dtype)


def chrono(key: Array, longest_delay: int, hidden_size: int, dtype: DType) -> Array:
    """Returns `log(u)` with `u ~ Uniform(1, longest_delay - 1)`: (H,), the bias of a forget gate.

    The time scales of the units then range up to the longest delay. For the update gate of a GRU and the input gate of
    an LSTM, which write to the state, use the negative.

    Reference: Tallec and Ollivier, "Can recurrent neural networks warp time?", 2018.
    """
    wide = jnp.promote_types(dtype, jnp.float32)  # The largest float16 is 65504.
    return jnp.log(jax.random.uniform(key, (hidden_size,), wide, 1.0, max(longest_delay - 1.0, 1.0))).astype(dtype)


def _drawn(draw: Initializer, key: Array, shape: tuple[int, ...], dtype: DType) -> Array:
    """Calls an initializer and checks the shape of its result."""
    drawn = draw(key, shape, dtype)
    if getattr(drawn, "shape", None) != shape:
        got = f"shape {drawn.shape}" if hasattr(drawn, "shape") else type(drawn).__name__
        raise ValueError(f"initializer: expected a function (key, shape, dtype) -> array {shape}, got one of {got}")
    return jnp.asarray(drawn, dtype)


def check(
    cell: str,
    W_init: str | Initializer,
    U_init: str | Initializer | None,
    b_init: str | Initializer,
    longest_delay: int | None,
    b_names: tuple[str, ...],
) -> None:
    """Checks the initializers of a cell. U_init is None for a cell without recurrent weights."""
    check_one(f"{cell}: W_init", W_init, W_INITIALIZERS)
    if U_init is not None:
        check_one(f"{cell}: U_init", U_init, U_INITIALIZERS)
    check_one(f"{cell}: b_init", b_init, b_names)
    if b_init == "chrono":
        if longest_delay is None:
            raise ValueError(
                f'{cell}: longest_delay: expected the longest delay in steps with b_init="chrono", got None'
            )
        arguments.positive_int(f"{cell}: longest_delay", longest_delay)
    elif longest_delay is not None:
        raise ValueError(f'{cell}: longest_delay: expected None unless b_init="chrono", got {longest_delay!r}')


def check_one(argument: str, value: str | Initializer, names: tuple[str, ...]) -> None:
    """Checks one initializer, a function or one of `names`."""
    if callable(value):
        arguments.instance(argument, value, (object,), "a name or an initializer")  # and hashable
    else:
        arguments.one_of(argument, value, names)
