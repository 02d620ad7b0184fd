"""The cells: their steps, gradients and initializers. `gru_jax.unroll` runs a cell over time.

A new cell is a module here, its import and its names in `__all__`. Flax modules, safetensors files and the names in
configurations of experiments follow from `CELLS`.
"""

import dataclasses
from typing import Any

from gru_jax.cells.base import Adjoint, Cell, LinearCell, Network, Readout, ReadoutAdjoint, step
from gru_jax.cells.block_gru import BlockGRU, BlockGRUParams
from gru_jax.cells.elman import Elman, ElmanParams, elman_step
from gru_jax.cells.gru import GRU, GRUParams, gru_step
from gru_jax.cells.ind_rnn import IndRNN, IndRNNParams
from gru_jax.cells.layer_norm_gru import LayerNormGRU, LayerNormGRUParams
from gru_jax.cells.layer_norm_lstm import LayerNormLSTM, LayerNormLSTMParams
from gru_jax.cells.lem import LEM, LEMParams, LEMState
from gru_jax.cells.li_gru import LiGRU, LiGRUParams
from gru_jax.cells.lru import LRU, LRUParams, LRUState
from gru_jax.cells.lstm import LSTM, LSTMParams, LSTMState, lstm_step
from gru_jax.cells.mgu import MGU, MGUParams
from gru_jax.cells.min_gru import MinGRU, MinGRUParams
from gru_jax.cells.min_lstm import MinLSTM, MinLSTMParams

__all__ = [
    "CELLS",
    "GRU",
    "LEM",
    "LRU",
    "LSTM",
    "MGU",
    "Adjoint",
    "BlockGRU",
    "BlockGRUParams",
    "Cell",
    "Elman",
    "ElmanParams",
    "GRUParams",
    "IndRNN",
    "IndRNNParams",
    "LEMParams",
    "LEMState",
    "LRUParams",
    "LRUState",
    "LSTMParams",
    "LSTMState",
    "LayerNormGRU",
    "LayerNormGRUParams",
    "LayerNormLSTM",
    "LayerNormLSTMParams",
    "LiGRU",
    "LiGRUParams",
    "LinearCell",
    "MGUParams",
    "MinGRU",
    "MinGRUParams",
    "MinLSTM",
    "MinLSTMParams",
    "Network",
    "Readout",
    "ReadoutAdjoint",
    "elman_step",
    "gru_step",
    "lstm_step",
    "step",
]

CELLS: dict[str, type[Any]] = {
    name.lower(): globals()[name] for name in __all__ if dataclasses.is_dataclass(globals().get(name))
}
"""The classes of all cells, by lower-case name: "gru", "lstm", "elman", ..."""
