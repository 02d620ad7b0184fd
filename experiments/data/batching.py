"""Selection of the examples of a batch. Every batch is a pure function of a seed and a step number.

A resumed run therefore sees the batches of an uninterrupted one. Axes: B batch, T time, N examples or symbols.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@lru_cache(maxsize=8)
def permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """Returns the order of the examples in one epoch: int64 (N,), read-only."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    order.flags.writeable = False
    return order


def epoch_batch(num_examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Returns the indices of the examples of one training step.

    Every epoch shows every example once, in a new order. A batch may begin in one epoch and end in the next.

    Args:
      num_examples: N, at least 1.
      batch_size: B; may be larger than N.
      seed: at least 0.
      step: from 0.

    Returns:
      int64 (B,).
    """
    _require("num_examples", num_examples, 1)
    _require("batch_size", batch_size, 1)
    _require("seed", seed, 0)
    _require("step", step, 0)
    position = step * batch_size
    parts, missing = [], batch_size
    while missing:
        epoch, start = divmod(position, num_examples)
        part = permutation(num_examples, seed, epoch)[start : start + missing]
        parts.append(part)
        position += len(part)
        missing -= len(part)
    return np.concatenate(parts)


def every_example_once(num_examples: int, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields evaluation batches of one shape. The last one is padded with example 0, marked False.

    Yields:
      indices int64 (B,), and bool (B,), True for an example and False for padding.
    """
    _require("num_examples", num_examples, 1)
    _require("batch_size", batch_size, 1)
    for start in range(0, num_examples, batch_size):
        indices = np.arange(start, start + batch_size)
        counts = indices < num_examples
        yield np.where(counts, indices, 0), counts


def endless_windows(
    symbols: np.ndarray, batch_size: int, num_steps: int, seed: int, step: int, rows: slice = slice(None)
) -> np.ndarray:
    """Returns the windows of one training step, for truncated backpropagation through time.

    Every row reads the sequence cyclically from its own start. Starts are evenly spaced; the seed draws the first. A
    row's window begins with the last symbol of its previous window, so that the state can be carried over.

    Args:
      symbols: (N,).
      batch_size: B.
      num_steps: T.
      seed: at least 0.
      step: from 0.
      rows: which of the B rows to return.

    Returns:
      (B, T + 1), or some of its rows: T inputs, and the symbol after each as its target.
    """
    _require("step", step, 0)
    first = np.random.default_rng(seed).integers(len(symbols))
    starts = first + np.arange(batch_size)[rows] * len(symbols) // batch_size + step * num_steps
    return symbols[(starts[:, None] + np.arange(num_steps + 1)) % len(symbols)]


@dataclass(frozen=True, eq=False)
class ParallelStreams:
    """One long sequence split into B parallel streams that are read in windows of T symbols.

    Every symbol but the first is a target once. Window k + 1 begins in every row where window k ended, so that the
    state can be carried over. The last window is padded with symbol 0, marked False.

    Attributes:
      symbols: (N,) int.
      batch_size: B. Row b reads the b-th of B equal parts; its last target is the first symbol of the next part.
      num_steps: T.
    """

    symbols: np.ndarray
    batch_size: int
    num_steps: int

    def __post_init__(self) -> None:
        if self.symbols.ndim != 1 or not np.issubdtype(self.symbols.dtype, np.integer):
            raise ValueError(f"symbols: expected integers (N,), got {self.symbols.dtype} {self.symbols.shape}")
        _require("batch_size", self.batch_size, 1)
        _require("num_steps", self.num_steps, 1)
        if len(self.symbols) < self.batch_size + 1:
            raise ValueError(
                f"symbols: expected at least {self.batch_size + 1} for one window, got {len(self.symbols)}"
            )

    @cached_property
    def _bounds(self) -> np.ndarray:
        """(B + 1,): row b reads positions bounds[b] .. bounds[b + 1] - 1."""
        return np.arange(self.batch_size + 1) * (len(self.symbols) - 1) // self.batch_size

    def __len__(self) -> int:
        """The number of windows."""
        return -(-int(np.diff(self._bounds).max()) // self.num_steps)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields inputs (B, T), targets (B, T) and bool (B, T), False for padding, of every window in order."""
        for window in range(len(self)):
            positions = self._bounds[:-1, None] + window * self.num_steps + np.arange(self.num_steps)
            counts = positions < self._bounds[1:, None]
            positions = np.where(counts, positions, 0)
            inputs = np.where(counts, self.symbols[positions], 0)
            targets = np.where(counts, self.symbols[positions + 1], 0)
            yield inputs, targets, counts


def pad(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Stacks sequences of different lengths, padded with zeros.

    Args:
      sequences: B arrays (T_b, ...) that differ only in T_b.
      length: T; the largest T_b if None.

    Returns:
      array (B, T, ...), and the lengths T_b: int32 (B,).

    Raises:
      ValueError: a sequence is longer than `length`, or differs from the first in shape or dtype.
    """
    if not sequences:
        raise ValueError("sequences: expected at least one, got none")
    first = sequences[0]
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    room = int(lengths.max()) if length is None else length
    padded = np.zeros((len(sequences), room, *first.shape[1:]), first.dtype)
    for b, sequence in enumerate(sequences):
        if sequence.shape[1:] != first.shape[1:] or sequence.dtype != first.dtype:
            raise ValueError(
                f"sequences[{b}]: expected {first.dtype} (T, {', '.join(map(str, first.shape[1:]))}) like the first, "
                f"got {sequence.dtype} {sequence.shape}"
            )
        if len(sequence) > room:
            raise ValueError(f"sequences[{b}]: expected at most length={room} steps, got {len(sequence)}")
        padded[b, : len(sequence)] = sequence
    return padded, lengths


def bucket_edges(lengths: np.ndarray, num_buckets: int, multiple: int = 1) -> np.ndarray:
    """Returns padded lengths of buckets with about equally many sequences.

    Args:
      lengths: (N,) int.
      num_buckets: the maximum number of buckets; there are fewer if quantiles coincide.
      multiple: every edge is a multiple of it, so that fewer shapes are compiled.

    Returns:
      int64, increasing; the last is at least the largest length.
    """
    _require("num_buckets", num_buckets, 1)
    _require("multiple", multiple, 1)
    shares = np.arange(1, num_buckets + 1) / num_buckets
    quantiles = np.quantile(lengths, shares, method="inverted_cdf").astype(np.int64)
    return np.unique(-(-np.maximum(quantiles, 1) // multiple) * multiple)


@dataclass(frozen=True, eq=False)
class Buckets:
    """Training batches of sequences of similar length, with little padding.

    An epoch shows every sequence at least once. The last batch of a bucket is filled from the beginning of the
    bucket's order. The batches of all buckets are shuffled in every epoch.

    Attributes:
      lengths: (N,) int, of the sequences.
      edges: from `bucket_edges`. A sequence is in the first bucket whose edge it does not exceed.
      batch_size: B.
      seed: at least 0.
    """

    lengths: np.ndarray
    edges: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        _require("batch_size", self.batch_size, 1)
        _require("seed", self.seed, 0)
        if len(self.lengths) == 0:
            raise ValueError("lengths: expected at least one, got none")
        if int(np.max(self.lengths)) > int(self.edges[-1]):
            raise ValueError(f"lengths: expected at most the last edge {self.edges[-1]}, got {np.max(self.lengths)}")

    @cached_property
    def _members(self) -> list[tuple[int, np.ndarray]]:
        """(edge, indices) of each bucket that has sequences."""
        bucket = np.searchsorted(self.edges, self.lengths)
        members = [(int(edge), np.flatnonzero(bucket == k)) for k, edge in enumerate(self.edges)]
        return [(edge, indices) for edge, indices in members if len(indices)]

    @cached_property
    def _batches(self) -> list[tuple[int, int]]:
        """(bucket, batch number within it) of all batches of an epoch."""
        counts = [-(-len(indices) // self.batch_size) for _, indices in self._members]
        return [(bucket, number) for bucket, count in enumerate(counts) for number in range(count)]

    @property
    def batches(self) -> int:
        """The number of batches in an epoch."""
        return len(self._batches)

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """Returns the batch of one step.

        Args:
          step: from 0.

        Returns:
          indices int64 (B,), and the length T to pad to.
        """
        _require("step", step, 0)
        epoch, position = divmod(step, self.batches)
        bucket, number = self._batches[permutation(self.batches, self.seed, epoch)[position]]
        edge, indices = self._members[bucket]
        order = np.random.default_rng([self.seed, epoch, bucket]).permutation(indices)
        filled = np.resize(order, -(-len(order) // self.batch_size) * self.batch_size)
        return filled.reshape(-1, self.batch_size)[number], edge


def _require(argument: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{argument}: expected an integer of at least {least}, got {value!r}")
