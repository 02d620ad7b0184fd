"""Reads and writes arrays from outside the library: checked by name, with errors that name the file or the package."""

import errno
import json
import os
import secrets
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments

MAX_LISTED_NAMES = 8
"""How many names an error lists."""

MAX_MESSAGE_LENGTH = 600
"""How many characters of an error follow the name of the file."""


class NamedArrays:
    """Arrays by name that share one floating-point dtype. Each is taken once, and none may be left over.

    Args:
      source: the name in errors: "state_dict", "params", "model.onnx".
      arrays: a mapping from names to NumPy, JAX or PyTorch arrays.

    Example:
      >>> arrays = NamedArrays("state_dict", {"weight_hh_l0": np.ones((12, 4), np.float32)})
      >>> U = arrays.take("weight_hh_l0", (12, 4))
      >>> arrays.check_all_taken()
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
        """Returns all names, taken or not."""
        return list(self._arrays)

    def shape(self, key: str) -> tuple[int, ...]:
        """Returns the shape of an array; () if it has none."""
        return tuple(getattr(self._arrays[key], "shape", ()))

    def take(self, key: str, shape: tuple[int | str, ...] | None = None) -> np.ndarray:
        """Returns an array as NumPy array.

        Args:
          key: its name.
          shape: its expected shape; a string stands for an axis of any size, named so in errors. If None, it has any.

        Raises:
          TypeError, ValueError: the array is missing, empty, or of another shape or dtype.
        """
        if key not in self._arrays:
            dims = "" if shape is None else f" ({', '.join(map(str, shape))})"
            raise ValueError(f"{self.source}: {key}: expected an array{dims}, got none; there is {self._listed()}")
        array: Any = as_numpy(f"{self.source}: {key}", self._arrays[key])
        if shape is not None:
            arguments.shape(f"{self.source}: {key}", array, shape)
        if array.size == 0:
            raise ValueError(f"{self.source}: {key}: expected numbers, got an empty array {array.shape}")
        self._dtype = self._dtype or (key, array.dtype)
        arguments.same_dtype(f"{self.source}: {key}", array, self._dtype[1], self._dtype[0])
        self._taken.add(key)
        warn_nonfinite(f"{self.source}: {key}", array)
        return array

    def check_all_taken(self) -> None:
        """Raises ValueError if an array was not taken."""
        extra = [key for key in self._arrays if key not in self._taken]
        if extra:
            raise ValueError(
                f"{self.source}: {extra[0]}: expected no such array beside {_list_names(sorted(self._taken))}, got one"
                + (f" ({len(extra)} in all)" if len(extra) > 1 else "")
            )

    def _listed(self) -> str:
        return _list_names(self.names()) if self._arrays else "nothing"


def as_numpy(name: str, value: Any) -> np.ndarray:
    """Converts a NumPy, JAX or PyTorch array to NumPy.

    Raises:
      TypeError: if it is not an array, not floating-point, or float64 while jax_enable_x64 is off.
    """
    arguments.concrete(name, value)
    if hasattr(value, "detach"):
        value = _from_torch(name, value)
    if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        raise TypeError(f"{name}: expected an array, got {type(value).__name__}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating-point dtype, got {value.dtype}")
    if value.dtype.itemsize not in (2, 4, 8):
        raise TypeError(f"{name}: expected a floating-point dtype of 16 to 64 bits, got {value.dtype}")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected an array without a mask, got a masked one")
    array = arguments.native(np.asarray(value))
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        expected = f"{jax.dtypes.canonicalize_dtype(array.dtype)} while jax_enable_x64 is off"
        raise TypeError(f"{name}: expected {expected}, got {array.dtype}")
    return array


def _from_torch(name: str, tensor: Any) -> np.ndarray:
    try:
        tensor = tensor.detach().cpu()
        # PyTorch cannot convert bfloat16 to NumPy; bfloat16 to float32 and back is exact.
        return np.asarray(tensor.float()).astype(jnp.bfloat16) if "bfloat16" in str(tensor.dtype) else tensor.numpy()
    except Exception as error:  # Sparse, quantized, meta and fake tensors each raise another class.
        got = f"{tensor.dtype}, layout {tensor.layout}, on {tensor.device}: {summarize_error(error)}"
        raise TypeError(f"{name}: expected a dense tensor, got {got}") from None


def warn_nonfinite(name: str, array: np.ndarray) -> None:
    """Warns if an array has NaN or infinite values."""
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        warnings.warn(f"{name}: {bad} of {array.size} weights are NaN or infinite", UserWarning, stacklevel=2)


def flatten(tree: Mapping[Any, Any], separator: str = "/") -> dict[str, Any]:
    """Flattens nested mappings and joins their keys: `{"cell": {"i": x}}` to `{"cell/i": x}`. None is left out."""

    def walk(node: Any, path: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, Mapping):
            for key, child in node.items():
                yield from walk(child, f"{path}{separator}{key}" if path else str(key))
        elif node is not None:
            yield path, node

    return dict(walk(tree, ""))


@contextmanager
def prefix_errors(source: Any) -> Generator[None]:
    """Puts the name of a file before the messages of TypeError and ValueError raised inside."""
    try:
        yield
    except (TypeError, ValueError) as error:
        # A subclass such as UnicodeDecodeError takes other arguments than a message.
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{source}: {printable(str(error))}") from None


@contextmanager
def require_package(package: str, purpose: str) -> Generator[None]:
    """Turns a failed import into an error of one line with the pip command.

    Args:
      package: the package imported inside.
      purpose: what needs it, e.g. "to read .pt files".

    Raises:
      ImportError: the package is not installed.

    Example:
      >>> with require_package("torch", "to read .pt files"):
      ...     import torch
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(
            f"{package}: expected this package {purpose}, got none installed: pip install {package}", name=package
        ) from None


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yields a temporary path to write to, and renames it to `path` at the end. After an error `path` is unchanged."""
    path = Path(path)
    if path.is_dir():  # Before anything is written; renaming would say of some folders that they are busy.
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # with the name that the user knows
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the arrays of a safetensors file by name, and its metadata."""
    with require_package("safetensors", "to read weights"):
        from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # Raises an OSError that names the file; safetensors does not.
        try:
            with safe_open(path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, TypeError, AttributeError) as error:  # The last two for dtypes that NumPy lacks.
            raise ValueError(f"expected a safetensors file, got {summarize_error(error)}") from None


@contextmanager
def name_other_shards(path: str | os.PathLike[str]) -> Generator[None]:
    """Adds the other shards to the message of a ValueError if the file is a shard of a safetensors checkpoint."""
    try:
        yield
    except ValueError as error:
        others = _other_shards(Path(path))
        if not others:
            raise
        raise ValueError(f"{error}; this file is one of {len(others) + 1} shards, see {_list_names(others)}") from None


def _other_shards(path: Path) -> list[str]:
    """Returns the other files of an index `*.index.json` beside a shard; [] if no index has the file."""
    for index in sorted(path.parent.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # Not an index of a checkpoint.
            continue
        if path.name in shards:
            return sorted(map(str, shards - {path.name}))
    return []


def summarize_error(error: Exception) -> str:
    """Returns the class of an error and the first line of its message."""
    line = str(error).strip().partition("\n")[0][:200]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def printable(text: str) -> str:
    """Shortens a message and escapes control characters, which names in a damaged file may have."""
    text = text if len(text) <= MAX_MESSAGE_LENGTH else f"{text[:MAX_MESSAGE_LENGTH]}..."
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _list_names(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_LISTED_NAMES])
    return f"{shown}, and {len(names) - MAX_LISTED_NAMES} more" if len(names) > MAX_LISTED_NAMES else shown
