"""CMU AN4: people of the 1990s spell names and addresses and say a few command words; mel-cepstra with transcripts.

The standard split is kept: 948 utterances of 74 speakers to train, 130 of 10 others to test. It has no validation set,
so eight of the training speakers, every ninth in alphabetical order, are held out for that: 100 utterances.

Reference: Acero, "Acoustical and Environmental Robustness in Automatic Speech Recognition", 1990.
"""

import functools
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from experiments.data.fetch import fetch

COEFFICIENTS = 13
ALPHABET = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALIDATION_SPEAKERS = ("ffmm", "fmjd", "mblw", "mdmc", "mjbh", "mmaf", "mrab", "msmn")


@dataclass(frozen=True, eq=False)
class Utterance:
    """
    Attributes:
      name: "an406-fcaw-b".
      speaker: "fcaw".
      cepstra: (T, 13) float32, 100 frames a second.
      text: upper-case letters and single spaces.
    """

    name: str
    speaker: str
    cepstra: np.ndarray
    text: str


def load(data_dir: str | None) -> Mapping[str, tuple[Utterance, ...]]:
    """Returns the utterances of "train", "validation" and "test".

    Raises:
      DataError: the file is not there, or is another one; the line says where it comes from.
    """
    return _read(fetch("an4_mfcc", "an4_mfcc.npz", data_dir))


@functools.cache
def _read(path: pathlib.Path) -> Mapping[str, tuple[Utterance, ...]]:
    with np.load(path) as arrays:
        rest, test = (
            _utterances(*(arrays[f"{split}_{part}"] for part in ("feats", "lens", "ids", "text")))
            for split in ("train", "test")
        )
    return MappingProxyType(
        {
            "train": tuple(one for one in rest if one.speaker not in VALIDATION_SPEAKERS),
            "validation": tuple(one for one in rest if one.speaker in VALIDATION_SPEAKERS),
            "test": test,
        }
    )


def _utterances(
    frames: np.ndarray, lengths: np.ndarray, identities: np.ndarray, texts: np.ndarray
) -> tuple[Utterance, ...]:
    """Takes the frames of all utterances, one after another, apart. An identity is "an4_clstk/<speaker>/<name>"."""
    cepstra = np.split(frames, np.cumsum(lengths)[:-1])
    paths = [pathlib.PurePosixPath(identity) for identity in identities.tolist()]
    return tuple(
        Utterance(path.name, path.parent.name, one, text)
        for path, one, text in zip(paths, cepstra, texts.tolist(), strict=True)
    )
