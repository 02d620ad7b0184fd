"""The checks that every cell makes of its sizes and of its weights `W`, `U` and `b`."""

from typing import Any

from gru_jax import arguments
from gru_jax.types import Array, DType


def check_init(key: Array, input_size: int, hidden_size: int, dtype: DType) -> Any:
    """Checks what `init` was given; returns the dtype."""
    arguments.prng_key("init: key", key)
    arguments.positive_int("init: input_size", input_size)
    arguments.positive_int("init: hidden_size", hidden_size)
    dtype = arguments.float_dtype("init: dtype", dtype)
    if dtype.itemsize < 2:
        raise TypeError(f"init: dtype: expected a floating-point dtype of 16 bits or more, got {dtype}")
    return dtype


def check_weights(params: Any, expected: type, gates: int) -> tuple[int, int, Any]:
    """Checks W (I, gates * H), U (H, gates * H) and b (gates * H,) against each other.

    Returns:
      I, H and the dtype.
    """
    arguments.named_tuple("params", params, expected)
    W, U, b = (arguments.floating(f"params.{name}", getattr(params, name)) for name in ("W", "U", "b"))
    columns = f"{gates}H" if gates > 1 else "H"
    arguments.shape("params.U", U, ("H", columns))
    hidden_size = U.shape[0]
    arguments.shape("params.U", U, (hidden_size, gates * hidden_size))
    arguments.shape("params.W", W, ("I", gates * hidden_size))
    arguments.shape("params.b", b, (gates * hidden_size,))
    arguments.same_dtype("params.U", U, W.dtype, "params.W")
    arguments.same_dtype("params.b", b, W.dtype, "params.W")
    return W.shape[0], hidden_size, W.dtype
