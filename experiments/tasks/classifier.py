"""Recurrent layers with a linear readout, for whole sequences (`Classifier`) or for every step (`Tagger`).

The cross-entropy and accuracy of classification follow them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gru_jax
from experiments.schema import Rate
from experiments.tasks.base import Sums, mean
from experiments.tasks.recurrent import RecurrentConfig, recurrent


@dataclasses.dataclass(frozen=True)
class ClassifierConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      bidirectional: whether to read the sequence in both directions.
      readout: the input of the readout: the "last" output of each direction, or the "mean" of all outputs.
    """

    bidirectional: bool = False
    readout: Literal["last", "mean"] = "last"


class Classifier(nnx.Module):
    """Maps sequences (B, T, I) to class logits or regression outputs (B, O)."""

    def __init__(self, config: ClassifierConfig, in_features: int, out_features: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs, config.bidirectional)
        directions = 2 if config.bidirectional else 1
        self.readout = nnx.Linear(directions * config.hidden_size, out_features, rngs=rngs)

    def __call__(self, xs: jax.Array, *, lengths: jax.Array | None = None, key: jax.Array | None = None) -> jax.Array:
        """Applies the layers to whole sequences.

        Args:
          xs: (B, T, I) float.
          lengths: (B,) int, the steps of each sequence; None for T.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          (B, O).
        """
        key_layers, key_readout = (None, None) if key is None else jax.random.split(key)
        ys, _ = self.recurrent(xs, lengths=lengths, deterministic=key_layers is None, rngs=key_layers)
        return self.readout(gru_jax.dropout(self._summary(ys, lengths), self.config.dropout, key_readout))

    def _summary(self, ys: jax.Array, lengths: jax.Array | None) -> jax.Array:
        """Pools outputs (B, T, D), which are zero past a length, to (B, D)."""
        steps = jnp.full(ys.shape[:1], ys.shape[1]) if lengths is None else lengths
        if self.config.readout == "mean":
            return ys.sum(axis=1) / jnp.maximum(steps, 1)[:, None]
        last = jnp.take_along_axis(ys, jnp.maximum(steps - 1, 0)[:, None, None], axis=1)[:, 0]
        if not self.config.bidirectional:
            return last
        H = self.config.hidden_size
        return jnp.concatenate([last[:, :H], ys[:, 0, H:]], axis=-1)


@dataclasses.dataclass(frozen=True)
class TaggerConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      input_dropout: dropout rate of the inputs.
    """

    input_dropout: Rate = 0.0


class Tagger(nnx.Module):
    """Maps sequences (B, T, I) causally to logits (B, T, O)."""

    def __init__(self, config: TaggerConfig, in_features: int, out_features: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs)
        self.readout = nnx.Linear(config.hidden_size, out_features, rngs=rngs)

    def __call__(self, xs: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Maps xs (B, T, I) to logits (B, T, O). `key` is consumed for dropout; None for no dropout."""
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(xs, self.config.input_dropout, keys[0])
        ys, _ = self.recurrent(xs, deterministic=keys[1] is None, rngs=keys[1])
        return self.readout(gru_jax.dropout(ys, self.config.dropout, keys[2]))


def class_sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> Sums:
    """Returns the sums "loss", of cross-entropies in nats, and "accuracy", of correct predictions.

    Args:
      logits: (B, V).
      labels: (B,) int.
      weights: (B,) float, 0 for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = jnp.argmax(logits, axis=-1) == labels
    count = weights.sum()
    return {"loss": ((losses * weights).sum(), count), "accuracy": ((hits * weights).sum(), count)}


def class_metrics(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns the mean cross-entropy in nats and the accuracy in percent."""
    return {"loss": mean(sums, "loss"), "accuracy": 100 * mean(sums, "accuracy")}
