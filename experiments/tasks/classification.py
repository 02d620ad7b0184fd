"""What all tasks that name one class for a sequence share: cross-entropy and accuracy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from experiments.tasks.base import Sums, mean


def class_sums(logits: jax.Array, labels: jax.Array, weights: jax.Array) -> Sums:
    """Returns the sums "loss", of cross-entropies, and "accuracy", of hits.

    Args:
      logits: (B, V).
      labels: (B,) integers.
      weights: (B,), 0 for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hits = jnp.argmax(logits, axis=-1) == labels
    count = weights.sum()
    return {"loss": ((losses * weights).sum(), count), "accuracy": ((hits * weights).sum(), count)}


def class_metrics(sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """Returns the mean cross-entropy in nats and the percentage of hits."""
    return {"loss": mean(sums, "loss"), "accuracy": 100 * mean(sums, "accuracy")}
