"""The cells: their steps, gradients and initializers. `gru_jax.unroll` runs a cell over time."""

from gru_jax.cells.base import Adjoint, Cell, Network, step
from gru_jax.cells.elman import Elman, ElmanParams, elman_step
from gru_jax.cells.gru import GRU, GRUParams, gru_step
from gru_jax.cells.lstm import LSTM, LSTMParams, LSTMState, lstm_step

__all__ = [
    "GRU",
    "LSTM",
    "Adjoint",
    "Cell",
    "Elman",
    "ElmanParams",
    "GRUParams",
    "LSTMParams",
    "LSTMState",
    "Network",
    "elman_step",
    "gru_step",
    "lstm_step",
    "step",
]
