"""ONNX: reads the `GRU`, `LSTM` and `RNN` nodes of a model, and writes a cell or a `Stack` as a model.

`from_model` reads the chain of recurrent nodes. Nodes before and after it (an embedding, a classifier) are ignored;
nodes between two recurrent ones must compute what a `Stack` computes. Lengths and initial states that the graph has as
inputs are arguments of `gru_jax.unroll`. `read_nodes` reads every recurrent node by itself.
"""

from gru_jax.interop.onnx._node import RecurrentNode
from gru_jax.interop.onnx._peephole_lstm import PeepholeLSTM, PeepholeLSTMParams
from gru_jax.interop.onnx._reader import from_model, read_nodes
from gru_jax.interop.onnx._writer import to_file, to_model

__all__ = [
    "PeepholeLSTM",
    "PeepholeLSTMParams",
    "RecurrentNode",
    "from_model",
    "read_nodes",
    "to_file",
    "to_model",
]
