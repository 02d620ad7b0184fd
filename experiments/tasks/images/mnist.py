"""Sequential MNIST: 784 steps of one pixel, in reading order or in a fixed random order.

The last 5,000 of the 60,000 training images are held out for validation. Pixels are standardized by the mean and
standard deviation of all training pixels. There is no standard permutation; `ORDER` is drawn by NumPy's
`default_rng(0)`.

Reference: Le, Jaitly and Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", 2015.
"""

import dataclasses
import functools
import gzip
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import epoch_batch
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Checked, Count, UserError, require
from experiments.tasks.base import Batch, Carry, Scoring, Split, Sums, Task, padded_batches
from experiments.tasks.classifier import Classifier, ClassifierConfig, class_metrics, class_sums

PIXELS, CLASSES = 784, 10
VALIDATION_COUNT = 5000
TRAIN_COUNT = 60_000 - VALIDATION_COUNT
MEAN, DEVIATION = 0.1307, 0.3081
ORDER = np.random.default_rng(0).permutation(PIXELS)
"""Step t of a permuted image is its pixel ORDER[t]."""
UNSIGNED_BYTES = 0x08


@dataclasses.dataclass(frozen=True)
class MNISTConfig(Checked):
    """The sequential MNIST task.

    Attributes:
      permuted: whether pixels are in the fixed random order.
      batch_size: images in a training batch.
      eval_batch_size: images in an evaluation batch.
      eval_count: the maximum number of validation images to score; the test split is scored completely.
    """

    name: Literal["mnist"] = "mnist"
    permuted: bool = False
    batch_size: Count = 100
    eval_batch_size: Count = 500
    eval_count: Count = VALIDATION_COUNT

    def check(self):
        require("batch_size", self.batch_size <= TRAIN_COUNT, f"at most {TRAIN_COUNT} images", self.batch_size)


class MNIST(Task):
    """Classification of a digit by its pixels."""

    Config, ModelConfig = MNISTConfig, ClassifierConfig
    not_for = "Photos and larger images: it knows one centered digit of 28 x 28 pixels."

    @classmethod
    def scoring_for(cls, config: MNISTConfig) -> Scoring:
        del config
        return Scoring("accuracy", "max", ("accuracy",))

    def learn(self) -> dict[str, Any]:
        """Loads the images. There are no artifacts."""
        assert self.splits
        return {}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["mnist"]

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("mnist", *(name for part in ("train", "t10k") for name in files_of(part)))

    @functools.cached_property
    def splits(self) -> dict[Split, tuple[np.ndarray, np.ndarray]]:
        """The images and the labels of each split."""
        count = self.config.eval_count
        images, labels = load("train", self.data_dir)
        return {
            "train": (images[:TRAIN_COUNT], labels[:TRAIN_COUNT]),
            "validation": (images[TRAIN_COUNT:][:count], labels[TRAIN_COUNT:][:count]),
            "test": load("t10k", self.data_dir),
        }

    @property
    def result_name(self) -> str:
        return "psmnist" if self.config.permuted else "smnist"

    def model(self, config: ClassifierConfig, rngs: nnx.Rngs) -> Classifier:
        return Classifier(config, 1, CLASSES, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        images, labels = self.splits["train"]
        rows = self.batch_indices(seed, step)
        weights = np.ones(self.batch_size, np.float32)
        return {"pixels": self._ordered(images[rows]), "labels": labels[rows], "weights": weights}

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return epoch_batch(TRAIN_COUNT, self.batch_size, seed, step)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        images, labels = self.splits[split]
        return padded_batches({"pixels": self._ordered(images), "labels": labels}, self.config.eval_batch_size)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        xs = (batch["pixels"][..., None] / jnp.float32(255) - MEAN) / DEVIATION
        logits = model(xs, key=key)
        return class_sums(logits, batch["labels"], batch["weights"]), carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return class_metrics(sums)

    def _ordered(self, images: np.ndarray) -> np.ndarray:
        """Orders the pixels of images (B, 784) in time."""
        return images[:, ORDER] if self.config.permuted else images


def files_of(part: str) -> tuple[str, str]:
    """Returns the file names of "train" or "t10k": images and labels."""
    return f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz"


def load(part: str, data_dir: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of "train" or "t10k", uint8 (N, 784), and their labels, int32 (N,)."""
    images, labels = (read(fetch("mnist", name, data_dir)) for name in files_of(part))
    return images.reshape(len(images), PIXELS), labels.astype(np.int32)


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a gzipped IDX file of unsigned bytes: a header of type and shape, then the numbers.

    Raises:
      UserError: the file has another type, or its size does not match its header.
    """
    content = gzip.decompress(Path(path).read_bytes())
    zero, kind, rank = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind != UNSIGNED_BYTES:
        raise UserError(f"{path}: expected an IDX file of unsigned bytes, got one that starts with {content[:4].hex()}")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if numbers.size != np.prod(shape):
        raise UserError(f"{path}: expected {np.prod(shape)} numbers of shape {shape}, got {numbers.size}")
    return numbers.reshape(shape)
