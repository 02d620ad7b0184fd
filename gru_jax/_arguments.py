"""Checks of arguments. Every error message is `name: expected X, got Y`."""

import numbers
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gru_jax._types import Array, DType


def as_array(name: str, value: Any) -> Array:
    """Returns `value` as a JAX array; raises TypeError if it is not an array."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    if not (jnp.issubdtype(value.dtype, jnp.number) or value.dtype == np.bool_):
        raise TypeError(f"{name}: expected an array of numbers, got an array of {value.dtype}")
    return jnp.asarray(native(value))


def native(array: Any) -> Any:
    """Returns a NumPy array in the byte order of the machine, which JAX requires; other values unchanged."""
    swapped = isinstance(array, (np.ndarray, np.generic)) and not array.dtype.isnative
    return array.astype(array.dtype.newbyteorder("=")) if swapped else array


def from_lists(name: str, value: Any, dtype: DType) -> Any:
    """Returns a list or tuple of numbers, nested or not, as an array, of `dtype` where it is empty; else `value`."""
    if not isinstance(value, (list, tuple)):
        return value
    try:
        known = not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value))
        array = np.asarray(value) if known else jnp.asarray(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected an array, or lists that make one, got {value!r}") from None
    return array if array.size else array.astype(dtype)


def floating(name: str, value: Any) -> Array:
    """Returns `value` as a floating-point array; raises TypeError otherwise."""
    array = as_array(name, value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, got {array.dtype}")
    return array


def same_dtype(name: str, array: Array, dtype: DType, owner: str) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected dtype {jnp.dtype(dtype)}, as {owner}, got {array.dtype}")


def concrete(name: str, tree: Any) -> None:
    """Raises TypeError if an array of a pytree has no values, inside a JAX transformation."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if isinstance(leaf, Tracer):
            where = f"{name}{jax.tree_util.keystr(path)}"
            raise TypeError(f"{where}: expected a concrete array, got a tracer inside a JAX transformation")


def shape(name: str, array: Array, expected: tuple[int | str, ...]) -> None:
    """Checks a shape. A string in `expected` is an axis of any size."""
    ok = array.ndim == len(expected)
    ok = ok and all(isinstance(e, str) or e == a for e, a in zip(expected, array.shape, strict=True))
    if not ok:
        raise ValueError(f"{name}: expected shape ({_comma(expected)}), got ({_comma(array.shape)})")


def matching(name: str, array: Array, expected: tuple[int, ...], why: str) -> None:
    """Checks a shape that follows from another argument, which `why` names."""
    if array.shape != expected:
        raise ValueError(f"{name}: expected shape ({_comma(expected)}), {why}, got ({_comma(array.shape)})")


def one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    known = list(known)
    if not any(value is k or (isinstance(value, type(k)) and value == k) for k in known):
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, known))}, got {value!r}")


def boolean(name: str, value: Any) -> None:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")


def positive_int(name: str, value: Any) -> None:
    if isinstance(value, Tracer):
        way = "bind it with functools.partial or name it in jit's static_argnames"
        raise TypeError(f"{name}: expected a positive integer, got a traced {value.dtype}: {way}")
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value}")


def finite_number(name: str, value: Any) -> None:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not np.isfinite(float(value)):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def positive_number(name: str, value: Any) -> None:
    finite_number(name, value)
    if not float(value) > 0.0:
        raise ValueError(f"{name}: expected a positive number, got {value}")


def fraction(name: str, value: Any) -> None:
    finite_number(name, value)
    if not 0.0 <= float(value) < 1.0:
        raise ValueError(f"{name}: expected a number in [0, 1), got {value}")


def float_dtype(name: str, value: Any) -> jnp.dtype:
    """Returns a floating-point dtype of 16 bits or more, as of parameters, states and products; raises otherwise."""
    if isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected a floating-point dtype, got an array")
    try:
        dtype = None if value is None else jnp.dtype(value)
    except TypeError:
        dtype = None
    if dtype is None:
        raise TypeError(f"{name}: expected a floating-point dtype, got {value!r}")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, got {dtype}")
    if dtype.itemsize < 2:
        raise TypeError(f"{name}: expected a floating-point dtype of 16 bits or more, got {dtype}")
    if dtype == np.float64 and not jax.config.read("jax_enable_x64"):
        raise ValueError(f"{name}: expected at most float32 while jax_enable_x64 is off, got {dtype}")
    return dtype


def prng_key(name: str, value: Any) -> None:
    """Accepts one typed key (`jax.random.key`) or one raw uint32 key (`jax.random.PRNGKey`)."""
    if not isinstance(value, jax.Array):
        raise TypeError(f"{name}: expected a PRNG key from jax.random.key, got {type(value).__name__}")
    typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    if not typed and value.dtype != jnp.uint32:
        raise TypeError(f"{name}: expected a PRNG key from jax.random.key, got an array of {value.dtype}")
    if value.ndim != (0 if typed else 1):
        raise ValueError(f"{name}: expected one PRNG key, got keys of shape ({_comma(value.shape)})")
    expected = value.shape if typed else jax.eval_shape(jax.random.PRNGKey, 0).shape
    matching(name, value, expected, "as raw PRNG keys have")


def instance(name: str, value: Any, kinds: tuple[type, ...], expected: str) -> None:
    """Checks that `value` is an instance of one of `kinds` and hashable, as `jit` requires."""
    if isinstance(value, type) or not isinstance(value, kinds):
        got = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{name}: expected {expected}, got {got}")
    try:
        hash(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"{name}: expected a hashable object such as a frozen dataclass, got {kind}") from None


def named_tuple(name: str, value: Any, expected: type) -> None:
    if not isinstance(value, expected):
        raise TypeError(f"{name}: expected {expected.__name__}, got {type(value).__name__}")


def in_range(name: str, array: Any, low: int, high: int) -> None:
    """Checks the values of an integer array, unless it is a tracer or on devices of another process."""
    if isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True) or array.size == 0:
        return
    known = np.asarray(array)  # Under `jit`, methods of JAX arrays return tracers.
    smallest, largest = int(known.min()), int(known.max())
    if smallest < low or largest > high:
        raise ValueError(f"{name}: expected values from {low} to {high}, got values from {smallest} to {largest}")


def outline(state: Any) -> str:
    """Describes the structure of a state: `an array`, `LSTMState(h, c)`, `a tuple of (an array, an array)`."""
    fields = getattr(state, "_fields", None)
    if fields:
        return f"{type(state).__name__}({', '.join(fields)})"
    if isinstance(state, tuple):
        parts = [outline(part) for part in state[:4]] + ["..."] * (len(state) > 4)
        return f"a tuple of ({', '.join(parts)})"
    if isinstance(state, (jax.Array, jax.ShapeDtypeStruct, np.ndarray)):
        return "an array"
    return type(state).__name__


def _comma(shape: tuple[int | str, ...]) -> str:
    return ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
