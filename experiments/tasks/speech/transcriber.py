"""Recurrent layers with a softmax at every frame, and the loss of connectionist temporal classification (CTC)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import gru_jax
from experiments.schema import Rate
from experiments.tasks.recurrent import RecurrentConfig, recurrent


@dataclasses.dataclass(frozen=True)
class TranscriberConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the softmax.

    Attributes:
      bidirectional: whether the layers read the utterance in both directions.
      input_dropout: dropout rate of the features.
    """

    bidirectional: bool = True
    input_dropout: Rate = 0.0


class Transcriber(nnx.Module):
    """Maps frames (B, T, I) to log-probabilities (B, T, V) of the labels and the blank.

    Reference: Graves et al., "Speech Recognition with Deep Recurrent Neural Networks", 2013.
    """

    def __init__(self, config: TranscriberConfig, in_features: int, labels: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs, config.bidirectional)
        self.softmax = nnx.Linear(self.recurrent.out_features, labels, rngs=rngs)

    def __call__(self, xs: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Classifies every frame.

        Args:
          xs: (B, T, I) float.
          lengths: (B,) int, the frames of each utterance. Frames past a length have no effect.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          (B, T, V); constant past a length.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(jnp.asarray(xs), self.config.input_dropout, keys[0])
        ys, _ = self.recurrent(xs, lengths=lengths, deterministic=keys[1] is None, rngs=keys[1])
        return jax.nn.log_softmax(self.softmax(gru_jax.dropout(ys, self.config.dropout, keys[2])))


def ctc_losses(
    log_probs: jax.Array, lengths: jax.Array, labels: jax.Array, label_counts: jax.Array, least: float = -1e5
) -> jax.Array:
    """Returns the negative log-probability of each label sequence, summed over its paths: (B,).

    Args:
      log_probs: (B, T, V); class 0 is the blank.
      lengths: (B,) int, the frames of each utterance. Frames past a length have no effect.
      labels: (B, N) int, from 1.
      label_counts: (B,) int, the number of labels in each row.
      least: a finite value in place of log 0.
    """
    mask = jnp.arange(log_probs.shape[1])[None] < lengths[:, None]
    padding = jnp.arange(labels.shape[1])[None] >= label_counts[:, None]
    return optax.ctc_loss(
        jnp.where(mask[..., None], log_probs, 0.0),
        1.0 - mask.astype(log_probs.dtype),
        jnp.where(padding, 0, labels),
        padding.astype(log_probs.dtype),
        # An array sharded like the batch, since optax starts its scan from it.
        log_epsilon=least + 0.0 * lengths[0],
    )
