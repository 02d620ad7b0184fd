"""The recurrent layers of every model, with the cell chosen by name, and the bounds of their weights."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax.nnx
from experiments.schema import Checked, Count, Natural, Rate, UserError, check_keys, nearest, require

OPTIONS = {"reset": "before", "forget_bias": 1.0, "longest_delay": 0}
"""The options of cells that are keys of the model themselves, and their defaults. `cell_options` has the others."""


@dataclasses.dataclass(frozen=True)
class RecurrentConfig(Checked):
    """Recurrent layers.

    Attributes:
      cell: a cell of `gru_jax.CELLS`: "gru", "lstm", "elman", ...
      hidden_size: H.
      num_layers: L.
      dropout: dropout rate between layers.
      weight_dropout: dropout rate of the recurrent weights, with one mask for all steps.
      zoneout: the rate at which a unit keeps its value for a step in training; its expectation in evaluation.
      reset: of the GRU, whether the reset gate acts "before" or "after" the recurrent product.
      forget_bias: of the LSTM, the initial bias of the forget gate.
      longest_delay: of the gated cells, the longest time dependency in steps, for chrono initialization of the biases;
        0 for the cell's default biases.
      cell_options: other hyperparameters of the cell, e.g. `--config.model.cell_options.norm=layer`.
      backend: the backend of `gru_jax.unroll`; "associative" for cells that are linear in their state.
      matmul_dtype: dtype of the operands of the recurrent layers' matmuls; everything else is float32.
    """

    cell: str = "gru"
    hidden_size: Count = 128
    num_layers: Count = 1
    dropout: Rate = 0.0
    weight_dropout: Rate = 0.0
    zoneout: Rate = 0.0
    reset: Literal["before", "after"] = "before"
    forget_bias: float = 1.0
    longest_delay: Natural = 0
    cell_options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)  # a dict has no hash
    backend: Literal["auto", "scan", "fused", "associative"] = "auto"
    matmul_dtype: Literal["float32", "bfloat16"] = "float32"

    def check(self):
        names = list(gru_jax.CELLS)
        known = ", ".join(map(repr, names)) + nearest(self.cell, names)
        require("cell", self.cell in names, f"one of {known}", self.cell)
        fields = [field.name for field in dataclasses.fields(gru_jax.CELLS[self.cell])]
        for name, default in OPTIONS.items():
            value = getattr(self, name)
            require(name, name in fields or value == default, f'the default for cell="{self.cell}"', value)
        check_keys(self.cell_options, [name for name in fields if name not in OPTIONS], "cell_options")
        try:
            cell = make_cell(self)
        except (TypeError, ValueError) as error:  # "BlockGRU: blocks: expected ..."
            raise UserError(f"cell_options.{str(error).partition(': ')[2]}") from None
        try:
            params = jax.eval_shape(lambda: cell.init(jax.random.key(0), 1, self.hidden_size))
        except (TypeError, ValueError) as error:  # "init: hidden_size: expected ..."
            raise UserError(str(error).partition(": ")[2]) from None
        parallel = self.backend != "associative" or gru_jax.Stack(cell).linear
        require("backend", parallel, f'"auto", "scan" or "fused" for cell="{self.cell}"', self.backend)
        dropped = self.weight_dropout == 0 or hasattr(params, "U")
        require("weight_dropout", dropped, f'0 for cell="{self.cell}", which has no matrix U', self.weight_dropout)


def recurrent(
    config: RecurrentConfig, in_features: int, rngs: nnx.Rngs, bidirectional: bool = False
) -> gru_jax.nnx.Recurrent:
    """Returns freshly initialized layers, called as `layers(xs, h0=None, lengths=None, rngs=None) -> (ys, h_last)`.

    Dropout is active, and zoneout random, only in calls with `deterministic=False` and a key as `rngs`.

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
        zoneout=config.zoneout,
        backend=config.backend,
        matmul_dtype=jnp.bfloat16 if config.matmul_dtype == "bfloat16" else None,
        deterministic=True,
        rngs=rngs,
    )


def make_cell(config: RecurrentConfig) -> gru_jax.Cell:
    """Returns the cell that `config` names."""
    options = {name: getattr(config, name) for name, default in OPTIONS.items() if getattr(config, name) != default}
    if config.longest_delay:
        options["b_init"] = "chrono"
    return gru_jax.CELLS[config.cell](**options, **config.cell_options)


def weight_bounds(config: RecurrentConfig) -> Callable[[Any], Any] | None:
    """Returns a function that clips the recurrent weights of a model to the bounds of its cell; None without bounds.

    Its argument are the parameters of the model, nested dicts of arrays. Li et al. (2018) clip the weights of an
    `IndRNN` at every update, since a weight outside of its bound has no gradient.
    """
    cell = make_cell(config)
    if not isinstance(cell, gru_jax.IndRNN):
        return None
    fields = gru_jax.IndRNNParams._fields

    def clip(params: Any) -> Any:
        if not isinstance(params, dict):
            return params
        if set(params) == set(fields):
            return cell.clip(gru_jax.IndRNNParams(**params))._asdict()
        return {name: clip(value) for name, value in params.items()}

    return clip
