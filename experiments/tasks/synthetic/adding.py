"""The adding problem: add the two marked numbers of a long sequence.

The input at each of T steps is a number, uniform in [0, 1], and a marker. The marker is 1 at one random step in each
half of the sequence and 0 elsewhere. The target is the sum of the two marked numbers. Always predicting 1 has a mean
squared error of 1/6 ≈ 0.167. A model beats it only if it remembers a number for up to T steps.

Every training step generates new sequences. The validation and test sets are the same for every seed.

Reference: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997; in this form Arjovsky et al., "Unitary
Evolution Recurrent Neural Networks", 2016.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.schema import Checked, Count, Range
from experiments.tasks.base import Batch, Carry, Scoring, Sums, mean
from experiments.tasks.classifier import Classifier, ClassifierConfig
from experiments.tasks.synthetic.generated import Generated


@dataclasses.dataclass(frozen=True)
class AddingConfig(Checked):
    """The adding task.

    Attributes:
      length: T, the steps of a sequence.
      batch_size: sequences in a training batch.
      eval_count: sequences in each of the validation and test sets.
    """

    name: Literal["adding"] = "adding"
    length: Annotated[int, Range(2)] = 200
    batch_size: Count = 64
    eval_count: Count = 1000


class Adding(Generated):
    """Regression of the sum of two marked numbers."""

    Config, ModelConfig = AddingConfig, ClassifierConfig
    eval_batch_size = 250

    @classmethod
    def scoring_for(cls, config: AddingConfig) -> Scoring:
        del config
        return Scoring("mse", "min", ("mse",))

    @property
    def result_name(self) -> str:
        return f"adding_{self.config.length}"

    def model(self, config: ClassifierConfig, rngs: nnx.Rngs) -> Classifier:
        return Classifier(config, 2, 1, rngs)

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        return draw(rng, count, self.config.length)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        predictions = model(batch["xs"], key=key)[..., 0]
        weights = batch["weights"]
        errors = jnp.square(predictions - batch["targets"])
        return {"loss": ((errors * weights).sum(), weights.sum())}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {"loss": mean(sums, "loss"), "mse": mean(sums, "loss")}


def draw(rng: np.random.Generator, count: int, length: int) -> Batch:
    """Returns xs (count, T, 2), number and marker, and targets (count,), both float32."""
    numbers = rng.random((count, length), np.float32)
    half = length // 2
    places = np.stack([rng.integers(0, half, count), rng.integers(half, length, count)], axis=1)
    markers = np.zeros((count, length), np.float32)
    np.put_along_axis(markers, places, 1.0, axis=1)
    return {
        "xs": np.stack([numbers, markers], axis=-1),
        "targets": np.take_along_axis(numbers, places, axis=1).sum(axis=1),
    }
