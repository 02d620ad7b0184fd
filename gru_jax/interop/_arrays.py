"""Arrays by name, as they come from outside: each is asked for once, checked, and none may be left over."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gru_jax import _arguments as arguments

SHOWN, LONGEST = 8, 600
"""How many names an error lists, and how many characters it has after the file's name."""


class Leaves:
    """Arrays of one floating-point dtype by name.

    Args:
      source: what errors call them: "state_dict", "params", "model.onnx".
      arrays: a mapping from names to arrays: NumPy's, JAX's or PyTorch's.

    Example:
      >>> leaves = Leaves("state_dict", {"weight_hh_l0": np.ones((12, 4), np.float32)})
      >>> U = leaves.take("weight_hh_l0", (12, 4))
      >>> leaves.finish()
    """

    def __init__(self, source: str, arrays: Mapping[str, Any]):
        if not isinstance(arrays, Mapping):
            raise TypeError(f"{source}: expected a mapping from names to arrays, got {type(arrays).__name__}")
        self.source = source
        self._arrays = {str(key): value for key, value in arrays.items()}
        self._taken: set[str] = set()
        self._dtype: tuple[str, Any] | None = None

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def names(self) -> list[str]:
        return list(self._arrays)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of an array."""
        return tuple(getattr(self._arrays[key], "shape", ()))

    def take(self, key: str, shape: tuple[int | str, ...]) -> np.ndarray:
        """Returns an array as NumPy's; a string in `shape` is an axis of any size, shown by its letter."""
        if key not in self._arrays:
            dims = ", ".join(map(str, shape))
            raise ValueError(f"{self.source}: {key}: expected an array ({dims}), got none; there is {self._listed()}")
        array: Any = as_numpy(f"{self.source}: {key}", self._arrays[key])
        arguments.shape(f"{self.source}: {key}", array, shape)
        if array.size == 0:
            raise ValueError(f"{self.source}: {key}: expected numbers, got an empty array {array.shape}")
        self._dtype = self._dtype or (key, array.dtype)
        arguments.same_dtype(f"{self.source}: {key}", array, self._dtype[1], self._dtype[0])
        self._taken.add(key)
        warn_of_nan(f"{self.source}: {key}", array)
        return array

    def finish(self) -> None:
        """Raises if an array was not asked for."""
        extra = [key for key in self._arrays if key not in self._taken]
        if extra:
            raise ValueError(
                f"{self.source}: {extra[0]}: expected no such array beside {_some(sorted(self._taken))}, got one"
                + (f" ({len(extra)} in all)" if len(extra) > 1 else "")
            )

    def _listed(self) -> str:
        return _some(self.names()) if self._arrays else "nothing"


def as_numpy(name: str, value: Any) -> np.ndarray:
    """Returns an array of NumPy's, JAX's or PyTorch's as NumPy's; its dtype must be one that JAX has as it runs."""
    if isinstance(value, Tracer):
        raise TypeError(f"{name}: expected an array with values, got one inside a JAX transformation")
    if hasattr(value, "detach"):
        value = _from_torch(name, value)
    if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    array = np.asarray(value)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, got {array.dtype}")
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        raise TypeError(
            f"{name}: expected {jax.dtypes.canonicalize_dtype(array.dtype)}, for JAX runs without jax_enable_x64, "
            f"got {array.dtype}"
        )
    return array


def _from_torch(name: str, tensor: Any) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu()
        # NumPy knows no bfloat16 of PyTorch's; the way over float32 is exact.
        return np.asarray(tensor.float()).astype(jnp.bfloat16) if "bfloat16" in str(tensor.dtype) else tensor.numpy()
    except Exception as error:  # PyTorch has a different one for each kind of tensor without plain numbers in memory.
        got = f"one of {tensor.dtype}, layout {tensor.layout}, on {tensor.device}: {in_short(error)}"
        raise TypeError(f"{name}: expected a plain tensor of numbers, got {got}") from None


def warn_of_nan(name: str, array: np.ndarray) -> None:
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        warnings.warn(f"{name}: {bad} of {array.size} weights are NaN or infinite", UserWarning, stacklevel=2)


def flatten(tree: Mapping[Any, Any], separator: str = "/") -> dict[str, Any]:
    """Nested mappings as one, keys joined: `{"cell": {"i": x}}` as `{"cell/i": x}`. None stands for no array."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, Mapping):
            for key, child in node.items():
                yield from walk(child, f"{path}{separator}{key}" if path else str(key))
        elif node is not None:
            yield path, node

    return dict(walk(tree, ""))


@contextmanager
def naming(source: Any) -> Iterator[None]:
    """Puts the name of a file before what goes wrong inside."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # Not the error's own type, which may take other arguments than a message.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{source}: {printable(str(error))}") from None


def in_short(error: Exception) -> str:
    """The kind of another library's error, and the first line of what it has to say."""
    line = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def printable(text: str) -> str:
    """One line of a terminal, whatever names a damaged file has: control characters are shown, not sent."""
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return f"{shown}, and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
