"""Tasks whose sequences are drawn by a program: afresh at every training step, once for validation and test."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from experiments.tasks.base import Batch, Split, Task, padded_batches

STREAMS = {"validation": 1, "test": 2}
"""Random streams of the evaluation sets, which no seed touches."""


class Generated(Task):
    """A task that draws its sequences.

    Attributes:
      config: with a `batch_size`, and an `eval_count` for each of the validation and test sets.
      eval_batch_size: rows in a batch of evaluation, where there are so many sequences.
    """

    config: Any
    eval_batch_size: ClassVar[int]

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Draws `count` sequences with their targets."""

    def train_batch(self, seed: int, step: int) -> Batch:
        sequences = self.draw(np.random.default_rng((0, seed, step)), self.batch_size)
        return sequences | {"weights": np.ones(self.batch_size, np.float32)}

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields the fixed validation or test set; for "train", as many batches of the training stream of seed 0."""
        count = self.config.eval_count
        if split == "train":
            return (self.train_batch(0, step) for step in range(-(-count // self.batch_size)))
        sequences = self.draw(np.random.default_rng(STREAMS[split]), count)
        return padded_batches(sequences, min(self.eval_batch_size, count))
