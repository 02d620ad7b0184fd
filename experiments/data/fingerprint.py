"""Fingerprints of training data. They tell whether the data of a run have changed."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from experiments.data.registry import REGISTRY


@dataclass(frozen=True)
class Fingerprint:
    """A description and a digest of data.

    Attributes:
      description: readable, such as "song.txt, 3,440 characters".
      sha256: hexadecimal digest of the content. Data are equal if and only if their digests are.
    """

    description: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.description} (sha256 {self.sha256[:12]}...)"


def of_files(dataset: str, *files: str) -> Fingerprint:
    """Returns the fingerprint of files of the registry. The files need not exist."""
    entries = [REGISTRY[dataset].files[file] for file in files]
    content = "".join(f"{(entry.contents or entry.stored).sha256}  {entry.name}\n" for entry in entries)
    return of_text(f"{dataset}: {', '.join(files)}", content)


def of_text(description: str, text: str) -> Fingerprint:
    """Returns the fingerprint of a text: the digest of its UTF-8 file."""
    return Fingerprint(description, hashlib.sha256(text.encode()).hexdigest())


def of_arrays(description: str, arrays: Iterable[np.ndarray]) -> Fingerprint:
    """Returns the fingerprint of arrays with their dtypes and shapes, the same on every machine."""
    sha256 = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        sha256.update(f"{little.dtype.str} {little.shape}\n".encode())
        sha256.update(little.tobytes())
    return Fingerprint(description, sha256.hexdigest())
