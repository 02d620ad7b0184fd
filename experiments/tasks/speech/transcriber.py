"""Recurrent layers and a softmax for every frame, and the loss of connectionist temporal classification."""

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
    """As `RecurrentConfig`; `dropout` also acts before the softmax.

    Attributes:
      bidirectional: whether each frame is judged by what follows it too.
      input_dropout: the rate at which features are dropped in training.
    """

    bidirectional: bool = True
    input_dropout: Rate = 0.0


class Transcriber(nnx.Module):
    """Frames (B, T, I) -> log-probabilities (B, T, V) of the labels, the blank among them.

    Reference: Graves et al., "Speech Recognition with Deep Recurrent Neural Networks", 2013.
    """

    def __init__(self, config: TranscriberConfig, in_features: int, labels: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        self.config = config
        self.recurrent = recurrent(config, in_features, rngs, config.bidirectional)
        self.softmax = nnx.Linear(self.recurrent.out_features, labels, rngs=rngs)

    def __call__(self, xs: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Judges every frame.

        Args:
          xs: (B, T, I).
          lengths: (B,), frames of each utterance; what xs holds past them has no effect.
          key: for dropout, consumed; None for none.

        Returns:
          (B, T, V); past a length, the same for all utterances.
        """
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(jnp.asarray(xs), self.config.input_dropout, keys[0])
        ys, _ = self.recurrent(xs, lengths=lengths, deterministic=keys[1] is None, rngs=keys[1])
        return jax.nn.log_softmax(self.softmax(gru_jax.dropout(ys, self.config.dropout, keys[2])))


def ctc_losses(
    log_probs: jax.Array, lengths: jax.Array, labels: jax.Array, label_counts: jax.Array, least: float = -1e5
) -> jax.Array:
    """Returns the negative log probability of each labelling, over all its paths: (B,).

    Args:
      log_probs: (B, T, V); class 0 is the blank.
      lengths: (B,) frames; what log_probs holds past them has no effect.
      labels: (B, N), from 1.
      label_counts: (B,), how many of the labels count.
      least: stands for the logarithm of 0.
    """
    live = jnp.arange(log_probs.shape[1])[None] < lengths[:, None]
    padding = jnp.arange(labels.shape[1])[None] >= label_counts[:, None]
    return optax.ctc_loss(
        jnp.where(live[..., None], log_probs, 0.0),
        1.0 - live.astype(log_probs.dtype),
        jnp.where(padding, 0, labels),
        padding.astype(log_probs.dtype),
        # An array that differs from device to device as the batch does, for optax begins its scan with it.
        log_epsilon=least + 0.0 * lengths[0],
    )
