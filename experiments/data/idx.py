"""Arrays in the IDX format of MNIST: a header of type and shape, then the numbers, the last axis fastest."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np

from experiments.data.fetch import DataError

UNSIGNED_BYTES = 0x08


def read(path: str | os.PathLike[str]) -> np.ndarray:
    """Reads a gzipped file of unsigned bytes.

    Raises:
      DataError: it is no such file, or holds more or less than its header says.
    """
    content = gzip.decompress(Path(path).read_bytes())
    zero, kind, rank = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind != UNSIGNED_BYTES:
        raise DataError(f"{path}: expected an IDX file of unsigned bytes, got one that begins with {content[:4].hex()}")
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * rank)
    if numbers.size != np.prod(shape):
        raise DataError(f"{path}: expected {np.prod(shape)} numbers of shape {shape}, got {numbers.size}")
    return numbers.reshape(shape)
