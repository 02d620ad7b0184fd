"""Tasks with generated sequences: new ones at every training step, fixed validation and test sets."""

import abc
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from experiments.tasks.base import Batch, Split, Task, padded_batches

STREAMS = {"validation": 1, "test": 2}
"""Seeds of the evaluation sets, the same for every seed of a run."""


class Generated(Task):
    """Base class of tasks that generate their sequences.

    Attributes:
      config: with a `batch_size`, and an `eval_count` for each of the validation and test sets.
      eval_batch_size: the maximum number of rows of an evaluation batch.
    """

    config: Any
    eval_batch_size: ClassVar[int]
    not_for = "Anything else: the sequences are generated to test memory."

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """Returns `count` random sequences with their targets."""

    def train_batch(self, seed: int, step: int) -> Batch:
        sequences = self.draw(np.random.default_rng((0, seed, step)), self.batch_size)
        return sequences | {"weights": np.ones(self.batch_size, np.float32)}

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields the fixed validation or test set; for "train", the first `eval_count` training sequences of seed 0."""
        count = self.config.eval_count
        if split == "train":
            B = self.batch_size
            rows, starts = np.arange(B), range(0, count, B)
            return (
                self.train_batch(0, start // B) | {"weights": (start + rows < count).astype(np.float32)}
                for start in starts
            )
        sequences = self.draw(np.random.default_rng(STREAMS[split]), count)
        return padded_batches(sequences, min(self.eval_batch_size, count))
