"""Other libraries are imported where they are needed, and asked for by name where they are missing."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing(package: str, purpose: str) -> Iterator[None]:
    """Makes one line of a missing package.

    Args:
      package: what is imported inside.
      purpose: what needs it, e.g. "to read .pt files".

    Raises:
      ImportError: where it is not installed; the line names it.

    Example:
      >>> with needing("torch", "to read .pt files"):
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
