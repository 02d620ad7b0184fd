"""The parameters of an exported model, in a safetensors file.

Arrays are named by their path in the model, such as "readout.kernel", and stored in float32 or bfloat16. Metadata has
the training step, the names of the files beside it, and a digest of the arrays. Reading runs no code.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from experiments.schema import UserError

KEY = "experiments"
"""The key of the metadata."""

DType = Literal["float32", "bfloat16"]


class Origin(NamedTuple):
    """What a weights file says about itself.

    Attributes:
      step: the training step of the parameters.
      files: the names of the files that belong to it, in the same folder.
    """

    step: int
    files: tuple[str, ...]


def to_bytes(params: Any, dtype: DType, origin: Origin) -> bytes:
    """Returns the content of a weights file.

    Args:
      params: nested dicts of float32 arrays.
      dtype: the dtype to store; values are rounded to it.
      origin: the metadata.
    """
    arrays = {name: np.ascontiguousarray(leaf, jnp.dtype(dtype)) for name, leaf in _named(params).items()}
    metadata = {"step": origin.step, "files": list(origin.files), "sha256": digest(arrays)}
    return save(arrays, {KEY: json.dumps(metadata)})


def rounded(params: Any, dtype: DType) -> Any:
    """Returns parameters as they are after a weights file of a dtype is written and read."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype).astype(leaf.dtype), params)


def read_origin(path: pathlib.Path) -> Origin:
    """Returns the metadata of a weights file, without its arrays.

    Raises:
      UserError: the file is damaged or of another kind.
      OSError: it cannot be read.
    """
    with _opened(path) as file:
        return _origin(path, _metadata(path, file))


def read(path: pathlib.Path, shapes: Any) -> tuple[Any, Origin]:
    """Reads a weights file.

    Args:
      path: the file.
      shapes: the nested dicts to return, with the shape and dtype of each array.

    Returns:
      the parameters, NumPy arrays in the dtypes of `shapes`, and the metadata.

    Raises:
      UserError: the file is damaged, or its arrays do not match `shapes`.
      OSError: it cannot be read.
    """
    with _opened(path) as file:
        metadata = _metadata(path, file)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    origin = _origin(path, metadata)
    if digest(arrays) != metadata.get("sha256"):
        raise UserError(f"{path} is damaged: its arrays have another sha256 than recorded")
    expected = _named(shapes)
    for name, array in arrays.items():
        if name not in expected:
            raise UserError(f"{path}: {name}: expected no such array in this model, got one")
        if array.dtype.name not in ("float32", "bfloat16"):
            raise UserError(f"{path}: {name}: expected float32 or bfloat16, got {array.dtype.name}")
    for name, like in expected.items():
        found = arrays[name].shape if name in arrays else "nothing"
        if found != like.shape:
            raise UserError(f"{path}: {name}: expected an array {like.shape}, got {found}")
    leaves = [np.asarray(arrays[name], like.dtype) for name, like in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves), origin


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of arrays with their names, dtypes and shapes, in the order of names."""
    sha256 = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        sha256.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        sha256.update(array.tobytes())
    return sha256.hexdigest()


def _named(tree: Any) -> dict[str, Any]:
    """Returns the leaves by their path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


@contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
    with open(path, "rb"):  # an OSError that names the file; the library raises others
        pass
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except SafetensorError as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _metadata(path: pathlib.Path, file: Any) -> Mapping[str, Any]:
    text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UserError(f"{path}: expected the weights of an exported model, got another safetensors file")
    try:
        metadata = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    return metadata if isinstance(metadata, Mapping) else {}


def _origin(path: pathlib.Path, metadata: Mapping[str, Any]) -> Origin:
    step, names = metadata.get("step"), metadata.get("files")
    if not isinstance(step, int) or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} is damaged: expected a step and the names of files, got {step!r:.40}, {names!r:.40}")
    return Origin(step, tuple(names))
