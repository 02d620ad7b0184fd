"""The recurrent layers of every model, with the cell chosen by name."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
from flax import nnx

import gru_jax.nnx
from experiments.schema import Checked, Count, Natural, Rate, require


@dataclasses.dataclass(frozen=True)
class RecurrentConfig(Checked):
    """Recurrent layers.

    Attributes:
      cell: "gru", "lstm" or "elman".
      hidden_size: H.
      num_layers: L.
      dropout: dropout rate between layers.
      weight_dropout: dropout rate of the recurrent weights, with one mask for all steps.
      reset: of the GRU, whether the reset gate acts "before" or "after" the recurrent product.
      forget_bias: of the LSTM, the initial bias of the forget gate.
      longest_delay: of the gated cells, the longest time dependency in steps, for chrono initialization of the biases;
        0 for the cell's default biases.
      backend: the backend of `gru_jax.unroll`.
      matmul_dtype: dtype of the operands of the recurrent layers' matmuls; everything else is float32.
    """

    cell: Literal["gru", "lstm", "elman"] = "gru"
    hidden_size: Count = 128
    num_layers: Count = 1
    dropout: Rate = 0.0
    weight_dropout: Rate = 0.0
    reset: Literal["before", "after"] = "before"
    forget_bias: float = 1.0
    longest_delay: Natural = 0
    backend: Literal["auto", "scan", "fused"] = "auto"
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"

    def check(self):
        require("reset", self.cell == "gru" or self.reset == "before", 'the default unless cell="gru"', self.reset)
        known = self.cell == "lstm" or self.forget_bias == 1.0
        require("forget_bias", known, 'the default unless cell="lstm"', self.forget_bias)
        known = self.cell != "elman" or self.longest_delay == 0
        require("longest_delay", known, 'the default for cell="elman"', self.longest_delay)


def recurrent(
    config: RecurrentConfig, in_features: int, rngs: nnx.Rngs, bidirectional: bool = False
) -> gru_jax.nnx.Recurrent:
    """Returns freshly initialized layers, called as `layers(xs, h0=None, lengths=None, rngs=None) -> (ys, h_last)`.

    Dropout is active only in calls with `deterministic=False` and a key as `rngs`.

    Args:
      config: the layers' configuration.
      in_features: I.
      rngs: the "params" stream initializes the parameters.
      bidirectional: whether every layer reads the sequence in both directions.
    """
    return gru_jax.nnx.Recurrent(
        make_cell(config),
        in_features,
        config.hidden_size,
        num_layers=config.num_layers,
        bidirectional=bidirectional,
        dropout=config.dropout,
        weight_dropout=config.weight_dropout,
        backend=config.backend,
        matmul_dtype=jnp.bfloat16 if config.matmul_dtype == "bfloat16" else None,
        deterministic=True,
        rngs=rngs,
    )


def make_cell(config: RecurrentConfig) -> gru_jax.GRU | gru_jax.LSTM | gru_jax.Elman:
    """Returns the cell that `config` names."""
    chrono = {"b_init": "chrono", "longest_delay": config.longest_delay} if config.longest_delay else {}
    if config.cell == "gru":
        return gru_jax.GRU(reset=config.reset, **chrono)
    if config.cell == "lstm":
        return gru_jax.LSTM(forget_bias=config.forget_bias, **chrono)
    return gru_jax.Elman()
