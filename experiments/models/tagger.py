"""Recurrent layers and a linear readout: one answer at every step."""

import dataclasses

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

    def __call__(self, xs: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps sequences (B, T, I) to answers (B, T, O); `key` is for dropout, consumed, None for none."""
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(xs, self.config.input_dropout, keys[0])
        ys, _ = self.recurrent(xs, deterministic=keys[1] is None, rngs=keys[1])
        return self.readout(gru_jax.dropout(ys, self.config.dropout, keys[2]))
