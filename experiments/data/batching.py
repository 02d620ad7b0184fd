"""Which examples stand in which batch. Every batch is a pure function of a seed and a step number.

So a run that was stopped and goes on sees what it would have seen. Axes: B batch, T time, N examples or symbols.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np


@lru_cache(maxsize=8)
def permutation(num_examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the examples in one epoch: int64 (N,), not writable."""
    order = np.random.default_rng([seed, epoch]).permutation(num_examples)
    order.flags.writeable = False
    return order


def epoch_batch(num_examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Indices of the examples of one training step.

    Epochs follow each other without a gap: each shows every example once, in an order of its own, and a batch may
    begin in one epoch and end in the next.

    Args:
      num_examples: N, at least 1.
      batch_size: B, also larger than N.
      seed: not negative.
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
    """Batches of one shape for an evaluation: the last one is filled up with example 0, marked as not counting.

    Yields:
      indices int64 (B,), and bool (B,): whether the example counts.
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
    """The windows of one training step, for truncated backpropagation through time.

    Every row reads the whole sequence round and round, from a place of its own: evenly spread, the first drawn from the
    seed. Its window begins with the last symbol of its window before, so that a state is carried on from step to step.

    Args:
      symbols: (N,).
      batch_size: B.
      num_steps: T.
      seed: not negative.
      step: from 0.
      rows: which of the B rows to read.

    Returns:
      (B, T + 1), or those rows of it: T inputs, and the symbol after each as its target.
    """
    _require("step", step, 0)
    first = np.random.default_rng(seed).integers(len(symbols))
    starts = first + np.arange(batch_size)[rows] * len(symbols) // batch_size + step * num_steps
    return symbols[(starts[:, None] + np.arange(num_steps + 1)) % len(symbols)]


@dataclass(frozen=True, eq=False)
class Stream:
    """One long sequence cut into B parallel ones, read window by window to predict each symbol after the first once.

    Window k + 1 begins in every row where window k ended, so that the state at the end of one is the state at the
    beginning of the next. The last window is filled up with symbol 0, marked as not counting.

    Attributes:
      symbols: (N,) integers.
      batch_size: B rows. Row b reads the b-th of B equal parts, and predicts up to the first symbol of the next part.
      num_steps: T symbols in a window.
    """

    symbols: np.ndarray
    batch_size: int
    num_steps: int

    def __post_init__(self) -> None:
        if self.symbols.ndim != 1 or not np.issubdtype(self.symbols.dtype, np.integer):
            raise ValueError(f"symbols must be integers (N,), got {self.symbols.dtype} {self.symbols.shape}")
        _require("batch_size", self.batch_size, 1)
        _require("num_steps", self.num_steps, 1)
        if len(self.symbols) < self.batch_size + 1:
            raise ValueError(
                f"symbols must hold at least {self.batch_size + 1} for one window, got {len(self.symbols)}"
            )

    @cached_property
    def _bounds(self) -> np.ndarray:
        """(B + 1,): row b predicts the symbols after positions bounds[b] .. bounds[b + 1] - 1."""
        return np.arange(self.batch_size + 1) * (len(self.symbols) - 1) // self.batch_size

    def __len__(self) -> int:
        """Number of windows."""
        return -(-int(np.diff(self._bounds).max()) // self.num_steps)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yields inputs (B, T), targets (B, T) and counts bool (B, T) of every window, in order."""
        for window in range(len(self)):
            positions = self._bounds[:-1, None] + window * self.num_steps + np.arange(self.num_steps)
            counts = positions < self._bounds[1:, None]
            positions = np.where(counts, positions, 0)
            inputs = np.where(counts, self.symbols[positions], 0)
            targets = np.where(counts, self.symbols[positions + 1], 0)
            yield inputs, targets, counts


def pad(sequences: Sequence[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Stacks sequences of different lengths, with zeros after their ends.

    Args:
      sequences: B arrays (T_b, ...) that differ in T_b alone.
      length: T; the longest T_b if None.

    Returns:
      array (B, T, ...), and the lengths T_b: int32 (B,).

    Raises:
      ValueError: a sequence is longer than `length`, or of another shape or dtype than the first.
    """
    if not sequences:
        raise ValueError("sequences must hold at least one, got none")
    first = sequences[0]
    lengths = np.array([len(sequence) for sequence in sequences], np.int32)
    room = int(lengths.max()) if length is None else length
    padded = np.zeros((len(sequences), room, *first.shape[1:]), first.dtype)
    for b, sequence in enumerate(sequences):
        if sequence.shape[1:] != first.shape[1:] or sequence.dtype != first.dtype:
            raise ValueError(
                f"sequences[{b}] must be {first.dtype} (T, {', '.join(map(str, first.shape[1:]))}) like the first, "
                f"got {sequence.dtype} {sequence.shape}"
            )
        if len(sequence) > room:
            raise ValueError(f"sequences[{b}] must have at most length={room} steps, got {len(sequence)}")
        padded[b, : len(sequence)] = sequence
    return padded, lengths


def bucket_edges(lengths: np.ndarray, num_buckets: int, multiple: int = 1) -> np.ndarray:
    """Lengths to pad to, such that buckets hold about as many sequences each.

    Args:
      lengths: integers (N,).
      num_buckets: at most that many; fewer where quantiles fall together.
      multiple: every edge is a multiple of it, so that fewer shapes are compiled.

    Returns:
      int64, increasing; the last is at least the greatest length.
    """
    _require("num_buckets", num_buckets, 1)
    _require("multiple", multiple, 1)
    shares = np.arange(1, num_buckets + 1) / num_buckets
    quantiles = np.quantile(lengths, shares, method="inverted_cdf").astype(np.int64)
    return np.unique(-(-np.maximum(quantiles, 1) // multiple) * multiple)


@dataclass(frozen=True, eq=False)
class Buckets:
    """Training batches of sequences of similar length, so that little of a batch is padding.

    An epoch shows every sequence at least once: in each bucket the last batch is filled up from the beginning of
    that epoch's order of the bucket. The batches of all buckets come in an order drawn anew for each epoch.

    Attributes:
      lengths: integers (N,), of the sequences.
      edges: increasing (see `bucket_edges`); a sequence stands in the first bucket it fits.
      batch_size: B.
      seed: not negative.
    """

    lengths: np.ndarray
    edges: np.ndarray
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        _require("batch_size", self.batch_size, 1)
        _require("seed", self.seed, 0)
        if len(self.lengths) == 0:
            raise ValueError("lengths must hold at least one, got none")
        if int(np.max(self.lengths)) > int(self.edges[-1]):
            raise ValueError(f"lengths must be at most the last edge {self.edges[-1]}, got {np.max(self.lengths)}")

    @cached_property
    def _members(self) -> list[tuple[int, np.ndarray]]:
        """(edge, indices) of each bucket that is not empty."""
        bucket = np.searchsorted(self.edges, self.lengths)
        members = [(int(edge), np.flatnonzero(bucket == k)) for k, edge in enumerate(self.edges)]
        return [(edge, indices) for edge, indices in members if len(indices)]

    @cached_property
    def _batches(self) -> list[tuple[int, int]]:
        """(bucket, number of the batch in it) of all batches of an epoch."""
        counts = [-(-len(indices) // self.batch_size) for _, indices in self._members]
        return [(bucket, number) for bucket, count in enumerate(counts) for number in range(count)]

    @property
    def batches(self) -> int:
        """Number of batches in an epoch."""
        return len(self._batches)

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """The batch of one step.

        Args:
          step: from 0.

        Returns:
          indices int64 (B,), and the length T to pad them to.
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
        raise ValueError(f"{argument} must be an integer of at least {least}, got {value!r}")
