"""The parity of a random bit stream, read from its changes only: how long a run of equal bits is matters.

A stream has 2 to 31 uniform bits. The input is a list of events: the first bit, every bit that differs from the one
before, and the last bit. Each event has the bit, as -1 or 1, and the steps since the event before. The target is the
parity of the ones. A model has to use the elapsed time, which counts the bits that are not shown. Always guessing one
class is right half of the time.

100,000 training streams, 10,000 for validation and 10,000 for testing are drawn once, the same for every seed.

Reference: Lechner and Hasani, "Learning Long-Term Dependencies in Irregularly-Sampled Time Series", 2020.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gru_jax
from experiments.data.batching import epoch_batch
from experiments.schema import Checked, Count, require
from experiments.tasks.base import Batch, Carry, Scoring, Split, Sums, Task, padded_batches
from experiments.tasks.classifier import class_metrics, class_sums
from experiments.tasks.recurrent import RecurrentConfig, recurrent

LONGEST = 32
"""The steps of a padded list of events; a stream has fewer bits."""
SEEDS = {"train": 0, "validation": 1, "test": 2}
EVAL_BATCH_SIZE = 1000


@dataclasses.dataclass(frozen=True)
class EventXorConfig(Checked):
    """The event XOR task.

    Attributes:
      batch_size: streams in a training batch.
      train_count: training streams.
      eval_count: streams in each of the validation and test sets.
    """

    name: Literal["event_xor"] = "event_xor"
    batch_size: Count = 256
    train_count: Count = 100_000
    eval_count: Count = 10_000

    def check(self):
        require("batch_size", self.batch_size <= self.train_count, "at most train_count streams", self.batch_size)


@dataclasses.dataclass(frozen=True)
class EventXorModelConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      elapsed: how the model sees the elapsed time d. "input": as a second input. "decay": as a second input, and the
        state decays by exp(-max(0, w d / 32 + b)) before each step, with a learned w and b per unit. "gru_d": GRU-D of
        d / 32, whose decay is the only way in which d enters.
    """

    elapsed: Literal["input", "decay", "gru_d"] = "input"

    def check(self):
        super().check()
        plain = RecurrentConfig(hidden_size=self.hidden_size, dropout=self.dropout)
        keys = [field.name for field in dataclasses.fields(RecurrentConfig)]
        fits = self.elapsed != "gru_d" or all(getattr(self, key) == getattr(plain, key) for key in keys)
        require("elapsed", fits, '"input" or "decay", or no other key than hidden_size and dropout', self.elapsed)


class EventClassifier(nnx.Module):
    """Maps lists of events to two logits."""

    def __init__(self, config: EventXorModelConfig, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config, H = config, config.hidden_size
        if config.elapsed == "gru_d":
            self.gru_d = gru_jax.nnx.GRUD(1, H, return_state=False, rngs=rngs)
        else:
            self.recurrent = recurrent(config, 2, rngs)
        if config.elapsed == "decay":
            self.decay_w = nnx.Param(jax.random.uniform(rngs.params(), (H,)))
            self.decay_b = nnx.Param(jnp.zeros(H))
        self.readout = nnx.Linear(H, 2, rngs=rngs)

    def __call__(
        self, events: jax.Array, elapsed: jax.Array, lengths: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Applies the layers.

        Args:
          events: (B, T), the bits as -1 or 1.
          elapsed: (B, T), the steps since the event before.
          lengths: (B,), the number of events.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          (B, 2) logits.
        """
        key_layers, key_readout = (None, None) if key is None else jax.random.split(key)
        if self.config.elapsed == "gru_d":
            observed = jnp.ones_like(events, bool)[..., None]
            ys = self.gru_d(events[..., None], observed, elapsed[..., None] / LONGEST, lengths=lengths)
        else:
            decay = None
            if self.config.elapsed == "decay":
                rate = elapsed[..., None] / LONGEST * self.decay_w[...][None, None] + self.decay_b[...][None, None]
                decay = jnp.exp(-jax.nn.relu(rate))
            xs = jnp.stack([events, elapsed], axis=-1)
            options = {"lengths": lengths, "decay": decay, "deterministic": key_layers is None, "rngs": key_layers}
            ys, _ = self.recurrent(xs, **options)
        last = jnp.take_along_axis(ys, (lengths - 1)[:, None, None], axis=1)[:, 0]
        return self.readout(gru_jax.dropout(last, self.config.dropout, key_readout))


class EventXor(Task):
    """Classification of the parity."""

    Config, ModelConfig = EventXorConfig, EventXorModelConfig
    not_for = "Anything else: the streams are generated to test the use of elapsed time."

    @classmethod
    def scoring_for(cls, config: EventXorConfig) -> Scoring:
        del config
        return Scoring("accuracy", "max", ("accuracy",))

    @functools.cached_property
    def splits(self) -> dict[str, Batch]:
        """The streams of each split."""
        counts = {
            "train": self.config.train_count,
            "validation": self.config.eval_count,
            "test": self.config.eval_count,
        }
        return {split: draw(np.random.default_rng(SEEDS[split]), count) for split, count in counts.items()}

    def model(self, config: EventXorModelConfig, rngs: nnx.Rngs) -> EventClassifier:
        return EventClassifier(config, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = self.batch_indices(seed, step)
        chosen = {name: array[rows] for name, array in self.splits["train"].items()}
        return chosen | {"weights": np.ones(len(rows), np.float32)}

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return epoch_batch(self.config.train_count, self.batch_size, seed, step)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        return padded_batches(self.splits[split], min(EVAL_BATCH_SIZE, len(self.splits[split]["labels"])))

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits = model(batch["events"], batch["elapsed"], batch["lengths"], key=key)
        return class_sums(logits, batch["labels"], batch["weights"]), carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return class_metrics(sums)


def draw(rng: np.random.Generator, count: int) -> Batch:
    """Draws streams.

    Args:
      rng: the generator.
      count: N, the number of streams.

    Returns:
      events, -1 or 1, and elapsed (N, 32) float32, zero past the end; lengths and labels (N,) int32.
    """
    sizes = rng.integers(2, LONGEST, count)
    bits = rng.integers(0, 2, (count, LONGEST), np.int32)
    return encode(bits, sizes)


def encode(bits: np.ndarray, sizes: np.ndarray) -> Batch:
    """Encodes streams of bits (N, 32), of which `sizes` (N,) count, as events; see `draw`."""
    steps = np.arange(LONGEST)[None]
    inside = steps < sizes[:, None]
    changed = np.diff(bits, axis=1, prepend=-1) != 0
    is_event = inside & (changed | (steps == sizes[:, None] - 1))
    lengths = is_event.sum(axis=1)
    places = np.argsort(~is_event, axis=1, kind="stable")  # The places of the events come first, in order.
    shown = steps < lengths[:, None]
    elapsed = np.diff(places, axis=1, prepend=-1)
    return {
        "events": np.where(shown, 2 * np.take_along_axis(bits, places, axis=1) - 1, 0).astype(np.float32),
        "elapsed": np.where(shown, elapsed, 0).astype(np.float32),
        "lengths": lengths.astype(np.int32),
        "labels": ((bits * inside).sum(axis=1) % 2).astype(np.int32),
    }
