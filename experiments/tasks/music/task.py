"""Polyphonic music, one step at a time: which keys sound next, given all previous steps.

Four collections of piano rolls with standard splits: JSB Chorales, Nottingham, MuseData and Piano-midi.de. The metric
is the negative log-likelihood in nats per step: the Bernoulli cross-entropy summed over the 88 keys, for steps 2 to T
of each piece, divided by the number of these steps in the split (as Bai et al. 2018 count). If the model orders the
keys of a step (`model.chord`), the sum is the negative log-probability of the whole chord.

Other papers average differently, so that evaluation also gives "nll_per_piece", the mean over pieces of each piece's
mean over steps; "nll_of_piece", the mean over pieces of the sum over steps; and "nll_chunks", as "nll", but the state
starts from zeros every 200 steps.

Most pieces, as published, are transposed to C major or C minor. Training batches come from buckets of similar length.
They are padded to the bucket's length; padding has no effect. Training pieces longer than `longest` are split;
validation and test pieces are not.

References: Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences",
2012 (data and splits); Chung et al., "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling",
2014.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments import extras
from experiments.data import fingerprint
from experiments.data.batching import Buckets, bucket_edges, every_example_once, pad
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Checked, Count, Range
from experiments.tasks.base import Batch, Carry, Scoring, Split, Sums, Task, mean
from experiments.tasks.music.model import Polyphony, PolyphonyConfig

KEYS = 88
LOWEST_NOTE = 21
"""The MIDI number of the first key, an A."""

FILES = {
    "jsb": "JSB_Chorales.mat",
    "nottingham": "Nottingham.mat",
    "musedata": "MuseData.mat",
    "piano_midi": "Piano_midi.mat",
}
SPLITS = {"train": "traindata", "validation": "validdata", "test": "testdata"}
EVAL_BATCH_SIZE = 16
MULTIPLE = 8
"""Padded lengths are multiples of it, so that fewer shapes are compiled."""
CHUNK = 200
"""The number of steps after which the state is reset for "nll_chunks"."""
OPENING_STEPS = 64
"""The number of steps of each validation piece in the artifacts, for sampling."""


@dataclasses.dataclass(frozen=True)
class MusicConfig(Checked):
    """The polyphonic music task.

    Attributes:
      collection: the collection of pieces.
      batch_size: pieces in a training batch.
      num_buckets: the number of buckets of training pieces of similar length.
      longest: the maximum number of steps of a training piece; longer ones are split.
      transpose: augmentation, the largest random transposition in semitones.
    """

    name: Literal["music"] = "music"
    collection: Literal["jsb", "nottingham", "musedata", "piano_midi"] = "jsb"
    batch_size: Count = 16
    num_buckets: Count = 4
    longest: Count = 512
    transpose: Annotated[int, Range(0, 12)] = 0


class Music(Task):
    """Prediction of each next step."""

    Config, ModelConfig = MusicConfig, PolyphonyConfig
    extra, artifact_names = "music", ("openings",)
    command = "sample"
    not_for = (
        "Rhythm, loudness and other styles: it knows which keys sound at each step of its collection. Samples have not "
        "been compared with the training pieces."
    )

    @classmethod
    def scoring_for(cls, config: MusicConfig) -> Scoring:
        del config
        return Scoring("nll", "min", ("nll",))

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: the first steps of each validation piece, as MIDI numbers."""
        pieces = self.pieces["validation"]
        return {"openings": [to_notes(piece[:OPENING_STEPS]) for piece in pieces]}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["poly_music"]

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("poly_music", FILES[self.config.collection])

    def opening(self, number: int, steps: int) -> np.ndarray:
        """Returns the first steps (at most `OPENING_STEPS`) of a validation piece: uint8 (T, 88)."""
        openings = self.artifacts["openings"]
        return from_notes(openings[number % len(openings)][:steps])

    @functools.cached_property
    def pieces(self) -> dict[str, list[np.ndarray]]:
        """The pieces of each split."""
        return load(self.config.collection, self.data_dir)

    @functools.cached_property
    def train_pieces(self) -> list[np.ndarray]:
        """The training pieces, long ones split."""
        return segments(self.pieces["train"], self.config.longest)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The predicted steps of each training piece."""
        return _predicted(self.train_pieces)

    @property
    def result_name(self) -> str:
        return self.config.collection

    @property
    def beats_per_step(self) -> float:
        """The duration of a step in MIDI files: a quarter note for chorales, an eighth for the others."""
        return 1.0 if self.config.collection == "jsb" else 0.5

    def model(self, config: PolyphonyConfig, rngs: nnx.Rngs) -> Polyphony:
        return Polyphony(config, KEYS, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows, length = self._buckets(seed).batch(step)
        most = self.config.transpose
        shifts = np.random.default_rng((seed, 1, step)).integers(-most, most + 1, len(rows))
        pieces = [transposed(self.train_pieces[row], shift) for row, shift in zip(rows, shifts, strict=True)]
        return _batch(pieces, length, np.ones(len(rows), np.float32))

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return self._buckets(seed).batch(step)[0]

    def _buckets(self, seed: int) -> Buckets:
        edges = bucket_edges(self.lengths, self.config.num_buckets, MULTIPLE)
        return Buckets(self.lengths, edges, self.batch_size, seed)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split sorted by length, each batch padded to its bucket's length."""
        pieces = sorted(self.pieces[split], key=len)
        edges = bucket_edges(_predicted(pieces), self.config.num_buckets, MULTIPLE)
        for rows, counts in every_example_once(len(pieces), EVAL_BATCH_SIZE):
            chosen = [pieces[row] for row in rows]
            length = int(edges[np.searchsorted(edges, _predicted(chosen).max())])
            yield _batch(chosen, length, counts.astype(np.float32))

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        rolls, lengths, weights = batch["rolls"].astype(jnp.float32), batch["lengths"], batch["weights"]
        following = rolls[:, 1:]
        real = jnp.arange(following.shape[1])[None] < lengths[:, None]

        def of_pieces(resets: jax.Array | None) -> jax.Array:
            """Returns the loss of each piece, summed over its steps: (B,)."""
            logits, _ = model(rolls[:, :-1], following, lengths=lengths, resets=resets, key=key)
            losses = optax.sigmoid_binary_cross_entropy(logits, following).sum(axis=-1)
            return weights * jnp.where(real & (weights[:, None] > 0), losses, 0.0).sum(axis=1)

        losses, steps, pieces = of_pieces(None), (weights * lengths).sum(), weights.sum()
        sums = {"loss": (losses.sum(), steps)}
        if key is None:  # In evaluation.
            chunks = jnp.broadcast_to(jnp.arange(following.shape[1]) % CHUNK == 0, real.shape)
            chunked = losses if following.shape[1] <= CHUNK else of_pieces(chunks)  # The first chunk is a whole batch.
            sums["nll_per_piece"] = ((losses / jnp.maximum(lengths, 1)).sum(), pieces)
            sums["nll_of_piece"] = (losses.sum(), pieces)
            sums["nll_chunks"] = (chunked.sum(), steps)
        return sums, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        others = {name: mean(sums, name) for name in sums if name != "loss"}
        return {"loss": mean(sums, "loss"), "nll": mean(sums, "loss"), **others}


def _predicted(pieces: list[np.ndarray]) -> np.ndarray:
    """Returns the number of predicted steps of each piece: all but the first."""
    return np.array([len(piece) - 1 for piece in pieces])


def _batch(pieces: list[np.ndarray], length: int, weights: np.ndarray) -> Batch:
    """Pads pieces to `length` + 1 steps. The last step of a piece is only a target."""
    rolls, lengths = pad(pieces, length + 1)
    return {"rolls": rolls, "lengths": lengths - 1, "weights": weights}


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> dict[str, list[np.ndarray]]:
    """Reads a collection.

    Args:
      name: a key of `FILES`.
      data_dir: see `fetch`.

    Returns:
      the pieces of "train", "validation" and "test": uint8 (T, 88) each, 1 where a key sounds.
    """
    extras.require("music")
    from scipy.io import loadmat

    arrays = loadmat(fetch("poly_music", FILES[name], data_dir))
    return {split: [np.ascontiguousarray(piece) for piece in arrays[key][0]] for split, key in SPLITS.items()}


def to_notes(roll: np.ndarray) -> list[str]:
    """Returns the MIDI numbers of each step of a roll (T, 88), such as "60 64 67"."""
    return [" ".join(str(LOWEST_NOTE + key) for key in np.flatnonzero(step)) for step in roll]


def from_notes(steps: list[str]) -> np.ndarray:
    """Returns the roll, uint8 (T, 88), of MIDI numbers. The inverse of `to_notes`."""
    roll = np.zeros((len(steps), KEYS), np.uint8)
    for row, step in zip(roll, steps, strict=True):
        row[[int(note) - LOWEST_NOTE for note in step.split()]] = 1
    return roll


def segments(pieces: list[np.ndarray], most: int) -> list[np.ndarray]:
    """Splits pieces into segments with at most `most` predicted steps.

    A segment starts with the last step of the previous one. Every step but the first of a piece is predicted once.
    """
    return [piece[start : start + most + 1] for piece in pieces for start in range(0, max(len(piece) - 1, 1), most)]


def transposed(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Transposes a roll (..., 88) by semitones. Keys that leave the keyboard are dropped."""
    moved = np.zeros_like(roll)
    if semitones >= 0:
        moved[..., semitones:] = roll[..., : KEYS - semitones]
    else:
        moved[..., :semitones] = roll[..., -semitones:]
    return moved
