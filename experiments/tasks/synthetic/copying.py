"""The copying problem: read ten symbols, wait, and repeat them.

A sequence has T + 20 steps: ten symbols, uniform in 1..8, T - 1 blanks (0), and eleven delimiters (9). The target
is the blank at the first T + 10 steps and the ten symbols, in order, at the last ten. A memoryless model that predicts
the blank and then guesses has a cross-entropy of 10 ln 8 / (T + 20) nats per step. Results are the ratio to it: 1 if
nothing is remembered, 0 if everything is.

Inputs are one-hot. Every training step generates new sequences. The validation and test sets are the same for every
seed.

Reference: Arjovsky et al., "Unitary Evolution Recurrent Neural Networks", 2016; with eleven delimiters: Bai et al.,
"An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence Modeling", 2018.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx

from experiments.schema import Checked, Count
from experiments.tasks.base import Batch, Carry, Scoring, Sums, mean
from experiments.tasks.classifier import Tagger, TaggerConfig
from experiments.tasks.synthetic.generated import Generated

MEMORY = 10
SYMBOLS = 8
BLANK, DELIMITER = 0, SYMBOLS + 1
CLASSES = SYMBOLS + 2


@dataclasses.dataclass(frozen=True)
class CopyingConfig(Checked):
    """The copying task.

    Attributes:
      length: T, the steps for which the symbols are remembered.
      batch_size: sequences in a training batch.
      eval_count: sequences in each of the validation and test sets.
    """

    name: Literal["copying"] = "copying"
    length: Count = 200
    batch_size: Count = 64
    eval_count: Count = 500


class Copying(Generated):
    """Classification of every step."""

    Config, ModelConfig = CopyingConfig, TaggerConfig
    eval_batch_size = 100

    @classmethod
    def scoring_for(cls, config: CopyingConfig) -> Scoring:
        del config
        return Scoring("loss_ratio", "min", ("loss_ratio",))

    @property
    def result_name(self) -> str:
        return f"copying_{self.config.length}"

    @property
    def memoryless_loss(self) -> float:
        """The cross-entropy, in nats per step, of predicting the blank and then guessing."""
        return MEMORY * math.log(SYMBOLS) / (self.config.length + 2 * MEMORY)

    def model(self, config: TaggerConfig, rngs: nnx.Rngs) -> Tagger:
        return Tagger(config, CLASSES, CLASSES, rngs)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        return draw(rng, count, self.config.length)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits = model(jax.nn.one_hot(batch["inputs"], CLASSES), key=key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean(axis=1)
        hits = (logits.argmax(axis=-1) == batch["targets"])[:, -MEMORY:].mean(axis=1)
        weights = batch["weights"]
        count = weights.sum()
        return {"loss": ((losses * weights).sum(), count), "recalled": ((hits * weights).sum(), count)}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Returns nats per step, their ratio to the memoryless model's, and the percentage of recalled symbols."""
        loss = mean(sums, "loss")
        return {"loss": loss, "loss_ratio": loss / self.memoryless_loss, "recalled": 100 * mean(sums, "recalled")}


def draw(rng: np.random.Generator, count: int, length: int) -> Batch:
    """Returns inputs and targets, int32 (count, T + 20)."""
    symbols = rng.integers(1, SYMBOLS + 1, (count, MEMORY), np.int32)
    inputs = np.full((count, length + 2 * MEMORY), BLANK, np.int32)
    targets = inputs.copy()
    inputs[:, :MEMORY] = targets[:, -MEMORY:] = symbols
    inputs[:, length + MEMORY - 1 :] = DELIMITER
    return {"inputs": inputs, "targets": targets}
