"""Recurrent layers and a linear readout: one answer at every step."""

import dataclasses
from typing import Any

import jax
from flax import nnx

import gru_jax
from experiments.models.recurrent import RecurrentConfig, recurrent
from experiments.schema import Rate


@dataclasses.dataclass(frozen=True)
class TaggerConfig(RecurrentConfig):
    """As `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      input_dropout: the rate at which inputs are dropped in training.
    """

    input_dropout: Rate = 0.0


class Tagger(nnx.Module):
    """Sequences (B, T, I) -> (B, T, O), the answer at a step from the inputs up to it."""

    def __init__(self, config: TaggerConfig, in_features: int, out_features: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs)
        self.readout = nnx.Linear(config.hidden_size, out_features, rngs=rngs)

    def __call__(
        self, xs: jax.Array, h0: Any = None, *, lengths: jax.Array | None = None, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Reads sequences.

        Args:
          xs: (B, T, I).
          h0: the state before; None for zeros.
          lengths: (B,), steps of each sequence; None for T.
          key: for dropout, consumed; None for none.

        Returns:
          (B, T, O), of which steps past a length mean nothing, and the state after.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(xs, self.config.input_dropout, keys[0])
        ys, h_last = self.recurrent(xs, h0, lengths=lengths, rngs=keys[1])
        return self.readout(gru_jax.dropout(ys, self.config.dropout, keys[2])), h_last

    def initial_state(self, rows: int) -> Any:
        """Returns the zero state of all layers for `rows` sequences."""
        return self.recurrent.initial_state((rows,))
