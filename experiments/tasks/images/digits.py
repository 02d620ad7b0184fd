"""Handwritten digits, one pixel or one row of pixels at a time.

The data are the 1,797 images of 8 x 8 pixels with values from 0 to 16 in scikit-learn, the test part of the UCI set
"Optical Recognition of Handwritten Digits". The splits are drawn here, stratified by digit and the same for every run:
360 images for testing, 180 for validation, 1,257 for training.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import epoch_batch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import Dataset
from experiments.schema import Checked, Count, require
from experiments.tasks.base import Batch, Carry, Scoring, Split, Sums, Task, padded_batches
from experiments.tasks.classifier import Classifier, ClassifierConfig, class_metrics, class_sums

CLASSES = 10
SPLIT_SEED = 0
TEST_COUNT, VALIDATION_COUNT = 360, 180
TRAIN_COUNT = 1797 - TEST_COUNT - VALIDATION_COUNT
BUNDLED = Dataset(
    "digits",
    {},
    license="none stated for the images in scikit-learn, which is BSD-3-Clause",
    citation='Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998',
)


@dataclasses.dataclass(frozen=True)
class DigitsConfig(Checked):
    """The digits task.

    Attributes:
      layout: "pixels", 64 steps of one pixel, or "rows", 8 steps of eight pixels.
      batch_size: images in a training batch.
      shift: augmentation, the largest random shift along each axis in pixels.
    """

    name: Literal["digits"] = "digits"
    layout: Literal["pixels", "rows"] = "pixels"
    batch_size: Count = 64
    shift: Literal[0, 1, 2] = 0

    def check(self):
        require("batch_size", self.batch_size <= TRAIN_COUNT, f"at most {TRAIN_COUNT} images", self.batch_size)


class Digits(Task):
    """Classification of a digit by its pixels in reading order."""

    Config, ModelConfig = DigitsConfig, ClassifierConfig
    not_for = "Photos and larger images: it knows one centered digit of 8 x 8 pixels, from printed forms."

    @classmethod
    def scoring_for(cls, config: DigitsConfig) -> Scoring:
        del config
        return Scoring("accuracy", "max", ("accuracy",))

    @property
    def dataset(self) -> Dataset:
        return BUNDLED

    def fingerprint(self) -> Fingerprint:
        """Returns the fingerprint of the images in the order of their splits."""
        arrays = (array for part in load_splits().values() for array in part)
        return fingerprint.of_arrays("scikit-learn's digits in their splits", arrays)

    @functools.cached_property
    def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The images and the labels of each split."""
        return load_splits()

    @property
    def features(self) -> int:
        """The pixels per step."""
        return 1 if self.config.layout == "pixels" else 8

    @property
    def result_name(self) -> str:
        return "digits" if self.config.layout == "pixels" else "digits_rows"

    def model(self, config: ClassifierConfig, rngs: nnx.Rngs) -> Classifier:
        return Classifier(config, self.features, CLASSES, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        images, labels = self.splits["train"]
        rows = self.batch_indices(seed, step)
        moved = shifted(images[rows], self.config.shift, np.random.default_rng((seed, 1, step)))
        return {"xs": self._sequences(moved), "labels": labels[rows], "weights": np.ones(len(rows), np.float32)}

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return epoch_batch(len(self.splits["train"][0]), self.batch_size, seed, step)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        images, labels = self.splits[split]
        return padded_batches({"xs": self._sequences(images), "labels": labels}, VALIDATION_COUNT)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits = model(batch["xs"], key=key)
        return class_sums(logits, batch["labels"], batch["weights"]), carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return class_metrics(sums)

    def _sequences(self, images: np.ndarray) -> np.ndarray:
        """Reshapes images (B, 8, 8) to sequences (B, T, I)."""
        return images.reshape(len(images), -1, self.features)


@functools.cache
def load_splits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns images (N, 8, 8) in [0, 1] and labels (N,) of each split."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits: Any = load_digits()
    images, labels = digits.data, digits.target
    images, labels = (images / 16).astype(np.float32).reshape(-1, 8, 8), labels.astype(np.int32)
    rest, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_COUNT, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = train_test_split(
        rest, test_size=VALIDATION_COUNT, stratify=labels[rest], random_state=SPLIT_SEED
    )
    return {
        name: (images[rows], labels[rows])
        for name, rows in {"train": train, "validation": validation, "test": test}.items()
    }


def shifted(images: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Shifts images (B, 8, 8) by up to `most` pixels along each axis and fills with black."""
    if most == 0:
        return images
    frame = np.pad(images, ((0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(frame, images.shape[1:], axis=(1, 2))
    down, right = rng.integers(0, 2 * most + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right]
