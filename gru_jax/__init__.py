"""Gated recurrent networks in JAX. A cell defines the equations of a step; a backend runs it over time."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from gru_jax import cells
from gru_jax._stack import Stack, dropout
from gru_jax._unroll.unroll import unroll
from gru_jax.cells import *  # noqa: F403

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gru_jax import export as export
    from gru_jax import interop as interop
    from gru_jax import linen as linen
    from gru_jax import nnx as nnx

__all__ = ["Stack", "__version__", "dropout", "unroll"]
__all__ += cells.__all__

_LAZY = ("export", "interop", "linen", "nnx")
"""Modules that are imported on first access."""


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
