"""Gated recurrent networks in JAX: a cell says what the equations are, a backend how they run through time."""

import importlib
from types import ModuleType

from gru_jax.cells import (
    GRU,
    LSTM,
    Elman,
    ElmanParams,
    GRUParams,
    LSTMParams,
    LSTMState,
    elman_step,
    gru_step,
    lstm_step,
)
from gru_jax.dropout import dropout
from gru_jax.layers import Stack
from gru_jax.unroll import unroll
from gru_jax.version import __version__

__all__ = [
    "GRU",
    "LSTM",
    "Elman",
    "ElmanParams",
    "GRUParams",
    "LSTMParams",
    "LSTMState",
    "Stack",
    "__version__",
    "dropout",
    "elman_step",
    "gru_step",
    "lstm_step",
    "unroll",
]


def __getattr__(name: str) -> ModuleType:
    """Imports `gru_jax.nnx`, `gru_jax.linen`, `gru_jax.interop` and `gru_jax.export` when they are first named."""
    if name in ("nnx", "linen", "interop", "export"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
