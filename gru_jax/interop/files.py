"""Files are written whole or not at all; safetensors files are read as arrays."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gru_jax.interop._arrays import in_short
from gru_jax.interop.packages import needing


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Gives a temporary name beside `path` to write to, and renames it to `path` at the end."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the arrays of a safetensors file by name, and its metadata."""
    with needing("safetensors", "to read weights"):
        from safetensors import SafetensorError, safe_open

    with open(path, "rb"):  # which says why and of what, where safetensors does not
        try:
            with safe_open(path, framework="np") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except (SafetensorError, TypeError, AttributeError) as error:  # the last two for dtypes that NumPy lacks
            raise ValueError(f"expected a safetensors file, got {in_short(error)}") from None
