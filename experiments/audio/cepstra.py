"""Mel-cepstra as a recogniser takes them: read from files, with deltas, standardised, a few frames side by side.

Axes: T frames, C coefficients.
"""

import os
import pathlib

import numpy as np

from experiments.audio.errors import AudioError


def read_cepstra(path: str | os.PathLike[str], coefficients: int) -> np.ndarray:
    """Reads a Sphinx feature file: a 32-bit count of numbers, then as many 32-bit floats, in either byte order.

    Args:
      path: of the file, ".mfc" by custom.
      coefficients: C.

    Returns:
      (T, C) float32.

    Raises:
      AudioError: the file cannot be read, or is no feature file with that many coefficients.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise AudioError(f"{path}: expected a readable file ({error.strerror})") from None
    for order in (">", "<"):
        if len(content) > 4 and np.frombuffer(content, f"{order}i4", 1)[0] == len(content) // 4 - 1:
            numbers = np.frombuffer(content[4:], f"{order}f4").astype(np.float32)
            if len(content) % 4 == 0 and len(numbers) % coefficients == 0 and np.isfinite(numbers).all():
                return numbers.reshape(-1, coefficients)
    raise AudioError(
        f"{path}: expected a Sphinx feature file with {coefficients} cepstra a frame "
        f"(a 32-bit count, then as many 32-bit floats), got {len(content)} bytes of something else"
    )


def deltas(frames: np.ndarray, reach: int = 2) -> np.ndarray:
    """Returns the slope of each coefficient over the 2 reach + 1 frames around each frame: like `frames` (T, C).

    d_t = Σ_k k (c_{t+k} - c_{t-k}) / (2 Σ_k k²), k = 1 ... reach; the first and last frame stand for those beyond.
    """
    T = len(frames)
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    slopes = sum(
        k * (padded[reach + k : reach + k + T] - padded[reach - k : reach - k + T]) for k in range(1, reach + 1)
    )
    return np.asarray(slopes / (2 * sum(k * k for k in range(1, reach + 1))), frames.dtype)


def with_deltas(frames: np.ndarray) -> np.ndarray:
    """Returns coefficients, their slopes, and the slopes of those: (T, 3C)."""
    slopes = deltas(frames)
    return np.concatenate([frames, slopes, deltas(slopes)], axis=1)


def standardised(frames: np.ndarray) -> np.ndarray:
    """Gives each coefficient mean 0 and variance 1 over the utterance; one that never changes becomes 0."""
    return (frames - frames.mean(axis=0)) / np.maximum(frames.std(axis=0), 1e-5)


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """Puts each `count` frames side by side: (⌈T / count⌉, count C); zeros fill the last."""
    missing = -len(frames) % count
    return np.pad(frames, ((0, missing), (0, 0))).reshape(-1, count * frames.shape[1])
