"""Labelled sequences of different lengths, from the `.ts` files of the UEA archive.

A line after `@data` is one sequence: channels separated by `:`, each with its values separated by commas, and the
label after the last `:`.

Reference: Bagnall et al., "The UEA Multivariate Time Series Classification Archive", 2018.
"""

import os
from pathlib import Path

import numpy as np

from experiments.data.fetch import DataError


def read(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], list[str]]:
    """Reads a file.

    Returns:
      the sequences, float32 (T, I) each, and their labels.

    Raises:
      DataError: a line that is no sequence, or of other channels than the first; it is named.
    """
    sequences, labels, data = [], [], False
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().lower() == "@data":
            data = True
        elif data and line.strip():
            *channels, label = line.strip().split(":")
            try:
                sequence = np.array([channel.split(",") for channel in channels], np.float32).T
            except ValueError:
                raise DataError(
                    f"{path}:{number}: expected channels of as many numbers each, got {line[:40]!r}"
                ) from None
            if sequence.ndim != 2 or (sequences and sequence.shape[1] != sequences[0].shape[1]):
                raise DataError(f"{path}:{number}: expected as many channels as in the first line of data")
            if not np.isfinite(sequence).all():
                raise DataError(f"{path}:{number}: expected finite numbers, got a missing or infinite one")
            sequences.append(sequence)
            labels.append(label)
    if not sequences:
        raise DataError(f"{path}: expected sequences after a line @data, got none")
    return sequences, labels
