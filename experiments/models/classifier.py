"""A recurrent layer and a linear readout: one answer for a whole sequence."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax
from experiments.models.recurrent import RecurrentConfig, recurrent


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(RecurrentConfig):
    """As `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      bidirectional: whether to read the sequence in both directions.
      readout: what the answer is read from: the outputs' "last" (each direction's final one) or their "mean".
    """

    bidirectional: bool = False
    readout: Literal["last", "mean"] = "last"


class Classifier(nnx.Module):
    """Sequences (B, T, I) -> (B, O): class logits, or the numbers of a regression."""

    def __init__(self, config: ClassifierConfig, in_features: int, out_features: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs, config.bidirectional)
        directions = 2 if config.bidirectional else 1
        self.readout = nnx.Linear(directions * config.hidden_size, out_features, rngs=rngs)

    def __call__(self, xs: jax.Array, *, lengths: jax.Array | None = None, key: jax.Array | None = None) -> jax.Array:
        """Reads whole sequences.

        Args:
          xs: (B, T, I).
          lengths: (B,), steps of each sequence; None for T.
          key: for dropout, consumed; None for none.

        Returns:
          (B, O).
        """
        key_layers, key_readout = (None, None) if key is None else jax.random.split(key)
        ys, _ = self.recurrent(xs, lengths=lengths, deterministic=key_layers is None, rngs=key_layers)
        return self.readout(gru_jax.dropout(self._summary(ys, lengths), self.config.dropout, key_readout))

    def _summary(self, ys: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """What is read from the outputs (B, T, D): (B, D). Outputs past a length are zero."""
        steps = jnp.full(ys.shape[:1], ys.shape[1]) if lengths is None else lengths
        if self.config.readout == "mean":
            return ys.sum(axis=1) / jnp.maximum(steps, 1)[:, None]
        last = jnp.take_along_axis(ys, jnp.maximum(steps - 1, 0)[:, None, None], axis=1)[:, 0]
        if not self.config.bidirectional:
            return last
        H = self.config.hidden_size
        return jnp.concatenate([last[:, :H], ys[:, 0, H:]], axis=-1)
