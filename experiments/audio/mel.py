"""The mel scale, and the banks of triangular filters that divide it evenly."""

import numpy as np


def mel(frequency: np.ndarray | float) -> np.ndarray:
    """The mel scale: 2595 log10(1 + f / 700 Hz)."""
    return 2595.0 * np.log10(1.0 + np.asarray(frequency) / 700.0)


def hertz(mels: np.ndarray | float) -> np.ndarray:
    """The inverse of `mel`."""
    return 700.0 * (10.0 ** (np.asarray(mels) / 2595.0) - 1.0)


def corners(bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Where each band begins, which is the centre of the one before, and where the last ones end: (bands + 2,) Hz."""
    return hertz(np.linspace(mel(low_hz), mel(high_hz), bands + 2))


def triangles(bands: int, low_hz: float, high_hz: float, size: int, sample_rate: int) -> np.ndarray:
    """Filters over the bins of a transform of `size` samples, each 1 at its centre and 0 at its neighbours' centres.

    Returns:
      (size // 2 + 1, bands).
    """
    edges = corners(bands, low_hz, high_hz)
    bins = np.arange(size // 2 + 1)[:, None] * sample_rate / size
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)
