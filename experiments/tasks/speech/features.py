"""Features of speech: the mel scale, log-mel spectra (JAX), mel-cepstra (NumPy), and features of cepstra.

Axes: N samples, T frames, M mel bands, C coefficients.
"""

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.schema import UserError


def mel(frequency: np.ndarray | float) -> np.ndarray:
    """Returns mels, 2595 log10(1 + f / 700 Hz)."""
    return 2595.0 * np.log10(1.0 + np.asarray(frequency) / 700.0)


def hertz(mels: np.ndarray | float) -> np.ndarray:
    """Returns the frequency in Hz. The inverse of `mel`."""
    return 700.0 * (10.0 ** (np.asarray(mels) / 2595.0) - 1.0)


def corners(bands: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Returns the ends and centers of bands that are evenly spaced in mels: (bands + 2,) Hz."""
    return hertz(np.linspace(mel(low_hz), mel(high_hz), bands + 2))


def triangles(bands: int, low_hz: float, high_hz: float, size: int, sample_rate: int) -> np.ndarray:
    """Returns triangular mel filters, each 1 at its center and 0 at the centers of its neighbors.

    Args:
      bands: M.
      low_hz: lower end of the lowest band.
      high_hz: upper end of the highest band.
      size: of the Fourier transform, in samples.
      sample_rate: in Hz.

    Returns:
      (size // 2 + 1, M), the weights of the bins.
    """
    edges = corners(bands, low_hz, high_hz)
    bins = np.arange(size // 2 + 1)[:, None] * sample_rate / size
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(np.minimum(rising, falling), 0)


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Log energies of mel bands. `frames` splits a waveform into frames, a call maps frames to bands.

    A frame depends only on its own samples, so streaming gives the same frames.

    Attributes:
      sample_rate: in Hz.
      window: samples of a frame.
      hop: samples between the starts of two frames.
      bands: M.
      low_hz, high_hz: ends of the lowest and the highest band.
      floor: added to each energy, so that silence is finite.
    """

    sample_rate: int = 8000
    window: int = 200
    hop: int = 80
    bands: int = 40
    low_hz: float = 60.0
    high_hz: float = 4000.0
    floor: float = 1e-8

    def count(self, samples):
        """Returns the number of whole frames in a number of samples: an integer or an array."""
        return (samples - self.window) // self.hop + 1

    def frames(self, waveform: jax.Array) -> jax.Array:
        """Splits waveforms (..., N) into overlapping frames (..., T, window), with T = `count(N)`."""
        T = self.count(waveform.shape[-1])
        return waveform[..., np.arange(T)[:, None] * self.hop + np.arange(self.window)]

    def __call__(self, frames: jax.Array) -> jax.Array:
        """Maps frames (..., T, window) to log band energies (..., T, M)."""
        size = 2 ** (self.window - 1).bit_length()
        taper = np.hanning(self.window).astype(np.float32).reshape((1,) * (frames.ndim - 1) + (-1,))
        spectrum = jnp.fft.rfft(frames * taper, size)
        energies = jnp.square(jnp.abs(spectrum)) / self.window
        return jnp.log(energies @ self.filters(size) + self.floor)

    def filters(self, size: int) -> np.ndarray:
        """Returns the mel filters of a transform of `size` samples: (size // 2 + 1, M) float32."""
        return triangles(self.bands, self.low_hz, self.high_hz, size, self.sample_rate).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class MelCepstra:
    """Mel-cepstra as CMU Sphinx computes them, for corpora that are distributed in this form.

    c_k = Σ_b β_b L(b) cos(π k (b + ½) / M) / M, with β_0 = ½ and β_b = 1 otherwise. L(b) is the log power of the
    pre-emphasized waveform, x_n - a x_{n-1} in units of 16-bit samples, in band b. The bands are triangles of equal
    area. The defaults match the AN4 corpus. Sphinx also adds dither of one unit; here digital silence has the
    power `floor` in each band.

    Attributes:
      sample_rate: in Hz.
      window: samples of a frame, with a Hamming window.
      hop: samples between the starts of two frames.
      size: of the Fourier transform.
      bands: M.
      low_hz, high_hz: ends of the lowest and the highest band.
      coefficients: C.
      emphasis: a.
      floor: the minimum power of a band, so that silence is finite.

    Reference: Davis and Mermelstein, "Comparison of Parametric Representations for Monosyllabic Word Recognition in
    Continuously Spoken Sentences", 1980.
    """

    sample_rate: int = 16000
    window: int = 410
    hop: int = 160
    size: int = 512
    bands: int = 40
    low_hz: float = 130.0
    high_hz: float = 6800.0
    coefficients: int = 13
    emphasis: float = 0.97
    floor: float = 1.0

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Maps a waveform (N,) in [-1, 1], at least one window long, to cepstra (T, C) float32."""
        samples = 32768.0 * np.asarray(waveform, np.float64)
        emphasized = samples - self.emphasis * np.concatenate([[0.0], samples[:-1]])
        T = (len(samples) - self.window) // self.hop + 1
        frames = emphasized[np.arange(T)[:, None] * self.hop + np.arange(self.window)] * np.hamming(self.window)
        power = np.square(np.abs(np.fft.rfft(frames, self.size)))
        return (np.log(np.maximum(power @ self.filters(), self.floor)) @ self.transform()).astype(np.float32)

    def filters(self) -> np.ndarray:
        """Returns the mel filters, each of area 1 in Hz: (size // 2 + 1, M)."""
        edges = corners(self.bands, self.low_hz, self.high_hz)
        bank = triangles(self.bands, self.low_hz, self.high_hz, self.size, self.sample_rate)
        return bank * 2 / (edges[2:] - edges[:-2])

    def transform(self) -> np.ndarray:
        """Returns the cosine transform: (M, C)."""
        bands = np.arange(self.bands)[:, None]
        cosines = np.cos(np.pi * np.arange(self.coefficients) * (bands + 0.5) / self.bands) / self.bands
        return np.where(bands == 0, 0.5, 1.0) * cosines


def read_cepstra(path: str | os.PathLike[str], coefficients: int) -> np.ndarray:
    """Reads a Sphinx feature file: a 32-bit count, then as many 32-bit floats, in either byte order.

    Args:
      path: the file, usually ".mfc".
      coefficients: C.

    Returns:
      (T, C) float32.

    Raises:
      UserError: the file cannot be read, or is not a feature file with C coefficients.
    """
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: expected a readable file ({error.strerror})") from None
    for order in (">", "<"):
        if len(content) > 4 and np.frombuffer(content, f"{order}i4", 1)[0] == len(content) // 4 - 1:
            numbers = np.frombuffer(content[4:], f"{order}f4").astype(np.float32)
            if len(content) % 4 == 0 and len(numbers) % coefficients == 0 and np.isfinite(numbers).all():
                return numbers.reshape(-1, coefficients)
    raise UserError(
        f"{path}: expected a Sphinx feature file with {coefficients} cepstra per frame "
        f"(a 32-bit count, then as many 32-bit floats), got {len(content)} bytes in another format"
    )


def deltas(frames: np.ndarray, reach: int = 2) -> np.ndarray:
    """Returns the deltas (T, C) of frames (T, C): the slopes over 2 reach + 1 frames.

    d_t = Σ_k k (c_{t+k} - c_{t-k}) / (2 Σ_k k²), k = 1 ... reach. The end frames are repeated.
    """
    T = len(frames)
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    slopes = sum(
        k * (padded[reach + k : reach + k + T] - padded[reach - k : reach - k + T]) for k in range(1, reach + 1)
    )
    return np.asarray(slopes / (2 * sum(k * k for k in range(1, reach + 1))), frames.dtype)


def with_deltas(frames: np.ndarray) -> np.ndarray:
    """Concatenates coefficients (T, C), their deltas and their second deltas: (T, 3C)."""
    slopes = deltas(frames)
    return np.concatenate([frames, slopes, deltas(slopes)], axis=1)


def standardized(frames: np.ndarray) -> np.ndarray:
    """Scales each coefficient of frames (T, C) to mean 0 and variance 1; a constant becomes 0."""
    return (frames - frames.mean(axis=0)) / np.maximum(frames.std(axis=0), 1e-5)


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """Concatenates groups of `count` frames: (T, C) -> (⌈T / count⌉, count C), padded with zeros."""
    missing = -len(frames) % count
    return np.pad(frames, ((0, missing), (0, 0))).reshape(-1, count * frames.shape[1])
