"""Fingerprints of the data that a run learns from: whether they are still the same can be told without a copy."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from experiments.data.registry import REGISTRY


@dataclass(frozen=True)
class Fingerprint:
    """
    Attributes:
      description: for a reader: "song.txt, 3,440 characters".
      sha256: of the content, in hexadecimal; it alone says whether other data are the same.
    """

    description: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.description} (sha256 {self.sha256[:12]}...)"


def of_files(dataset: str, *files: str) -> Fingerprint:
    """Returns that of files of the registry, as `fetch` verifies them; none of them need be there."""
    entries = [REGISTRY[dataset].files[file] for file in files]
    content = "".join(f"{(entry.contents or entry.stored).sha256}  {entry.name}\n" for entry in entries)
    return of_text(f"{dataset}: {', '.join(files)}", content)


def of_text(description: str, text: str) -> Fingerprint:
    """Returns that of a text: the sha256 of its file."""
    return Fingerprint(description, hashlib.sha256(text.encode()).hexdigest())


def of_arrays(description: str, arrays: Iterable[np.ndarray]) -> Fingerprint:
    """Returns that of arrays, each with its type and its shape; the same on any machine."""
    sha256 = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        sha256.update(f"{little.dtype.str} {little.shape}\n".encode())
        sha256.update(little.tobytes())
    return Fingerprint(description, sha256.hexdigest())
