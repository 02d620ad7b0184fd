"""Polyphonic music as piano rolls: which of 88 keys sound at each step of a piece.

Reference: Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional Sequences",
2012, whose splits these are.
"""

import os

import numpy as np

from experiments import extras
from experiments.data.fetch import fetch

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
