"""Polyphonic music, a step at a time: which keys sound next, given all that sounded before.

Four collections as piano rolls with splits of their own: JSB Chorales, Nottingham, MuseData and Piano-midi.de. The
metric is the negative log-likelihood in nats a step: the Bernoulli cross-entropy summed over the 88 keys, for steps 2
to T of each piece given those before, over the number of such steps in the split (as Bai et al. 2018 count). Where the
model takes keys in order (`model.chord`), each is also given those below it at its own step; the sum is then still the
negative logarithm of the probability of the step.

Most pieces, as published, are transposed to C major or C minor. They differ in length: training batches come from
buckets of similar length and are padded to their bucket's, and what stands in the padding has no effect on anything.
Training pieces longer than `longest` are cut; those of the validation and test splits never are.

Reference: Boulanger-Lewandowski et al., "Modeling Temporal Dependencies in High-Dimensional Sequences", 2012; Chung et
al., "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling", 2014.

Polyphonic music as piano rolls: which of 88 keys sound at each step of a piece.

Reference: Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences",
2012, whose splits these are.
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
    """Writes a roll (T, 88) down: for each step the MIDI numbers of the keys that sound, "60 64 67"."""
    return [" ".join(str(LOWEST_NOTE + key) for key in np.flatnonzero(step)) for step in roll]


def from_notes(steps: list[str]) -> np.ndarray:
    """Returns the roll, uint8 (T, 88), that `to_notes` wrote down."""
    roll = np.zeros((len(steps), KEYS), np.uint8)
    for row, step in zip(roll, steps, strict=True):
        row[[int(note) - LOWEST_NOTE for note in step.split()]] = 1
    return roll


def segments(pieces: list[np.ndarray], most: int) -> list[np.ndarray]:
    """Cuts pieces so that at most `most` steps of each part are predicted from those before them.

    A part begins with the step that the part before ended with: every step but a piece's first is predicted once.
    """
    return [piece[start : start + most + 1] for piece in pieces for start in range(0, max(len(piece) - 1, 1), most)]


def transposed(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Moves a roll (..., 88) up by so many keys, down if negative; what leaves the keyboard is lost."""
    moved = np.zeros_like(roll)
    if semitones >= 0:
        moved[..., semitones:] = roll[..., : KEYS - semitones]
    else:
        moved[..., :semitones] = roll[..., -semitones:]
    return moved


EVAL_BATCH_SIZE = 16
MULTIPLE = 8
"""Padded lengths are multiples of it, so that fewer programs are compiled."""
OPENING_STEPS = 64
"""The most steps of a validation piece that a run keeps, to go on from when it composes."""


@dataclasses.dataclass(frozen=True)
class MusicConfig(Checked):
    """
    Attributes:
      collection: which pieces.
      batch_size: pieces in a training batch.
      num_buckets: of training pieces of similar length.
      longest: the most steps of a training piece that are read in one go; a longer one is cut.
      transpose: the most semitones by which a training piece is moved, at random, up or down.
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
    artifact_names = ("openings",)
    command = "sample"

    @classmethod
    def scoring_for(cls, config: MusicConfig) -> Scoring:
        del config
        return Scoring("nll", "min", ("nll",))

    def learn(self) -> dict[str, Any]:
        """Returns how each piece of the validation split begins: a line for each step, with the MIDI notes."""
        pieces = self.pieces["validation"]
        return {"openings": [to_notes(piece[:OPENING_STEPS]) for piece in pieces]}

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
        """The pieces trained on, the long ones cut."""
        return segments(self.pieces["train"], self.config.longest)

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The steps predicted in each piece trained on."""
        return _predicted(self.train_pieces)

    @property
    def result_name(self) -> str:
        return self.config.collection

    @property
    def beats_per_step(self) -> float:
        """How long a step is played, where one is written as MIDI: chorales step in quarters; eighths for the rest."""
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
        """Yields a split from the shortest piece to the longest, each batch padded to its bucket's length."""
        pieces = sorted(self.pieces[split], key=len)
        edges = bucket_edges(_predicted(pieces), self.config.num_buckets, MULTIPLE)
        for rows, counts in every_example_once(len(pieces), EVAL_BATCH_SIZE):
            chosen = [pieces[row] for row in rows]
            length = int(edges[np.searchsorted(edges, _predicted(chosen).max())])
            yield _batch(chosen, length, counts.astype(np.float32))

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        rolls, lengths = batch["rolls"].astype(jnp.float32), batch["lengths"]
        following = rolls[:, 1:]
        logits, _ = model(rolls[:, :-1], following, lengths=lengths, key=key)
        losses = optax.sigmoid_binary_cross_entropy(logits, following).sum(axis=-1)
        real = jnp.arange(losses.shape[1])[None] < lengths[:, None]
        weights = jnp.where(real, batch["weights"][:, None], 0.0)
        return {"loss": (jnp.where(weights > 0, losses, 0.0).sum(), weights.sum())}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {"loss": mean(sums, "loss"), "nll": mean(sums, "loss")}


def _predicted(pieces: list[np.ndarray]) -> np.ndarray:
    """The number of steps that are predicted in each piece: all but the first."""
    return np.array([len(piece) - 1 for piece in pieces])


def _batch(pieces: list[np.ndarray], length: int, weights: np.ndarray) -> Batch:
    """Pads pieces to T + 1 = `length` + 1 steps; the last step of a piece is never read, only predicted."""
    rolls, lengths = pad(pieces, length + 1)
    return {"rolls": rolls, "lengths": lengths - 1, "weights": weights}
