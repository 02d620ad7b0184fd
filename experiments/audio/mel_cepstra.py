"""Waveforms to mel-cepstra as CMU Sphinx computes them, for models of corpora that came as such.

Axes: N samples, T frames, M mel bands, C coefficients.
"""

import dataclasses

import numpy as np

from experiments.audio.mel import corners, triangles


@dataclasses.dataclass(frozen=True)
class MelCepstra:
    """Cosine transforms of log-mel spectra: c_k = Σ_b β_b L(b) cos(π k (b + ½) / M) / M, β_0 = ½, other β_b = 1.

    L(b) is the logarithm of the power in band b of a pre-emphasised waveform, x_n - a x_{n-1}, as 16-bit samples have
    it; the bands are triangles of equal area. The defaults are those of the AN4 corpus. Sphinx also adds dither of one
    unit, which is left out: a frame of digital silence has the power `floor` in each band.

    Attributes:
      sample_rate: of the waveform, in Hz.
      window: samples of a frame, weighed by a Hamming window.
      hop: samples from the start of a frame to that of the next.
      size: of the Fourier transform.
      bands: M.
      low_hz, high_hz: where the lowest band begins and the highest one ends.
      coefficients: C.
      emphasis: a.
      floor: the least power of a band, so that silence stays finite.

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
        """Maps a waveform (N,) in [-1, 1], N at least a window, to cepstra (T, C) float32."""
        samples = 32768.0 * np.asarray(waveform, np.float64)
        emphasised = samples - self.emphasis * np.concatenate([[0.0], samples[:-1]])
        T = (len(samples) - self.window) // self.hop + 1
        frames = emphasised[np.arange(T)[:, None] * self.hop + np.arange(self.window)] * np.hamming(self.window)
        power = np.square(np.abs(np.fft.rfft(frames, self.size)))
        return (np.log(np.maximum(power @ self.filters(), self.floor)) @ self.transform()).astype(np.float32)

    def filters(self) -> np.ndarray:
        """Triangles over the bins, each of area 1 in Hz: (size // 2 + 1, M)."""
        edges = corners(self.bands, self.low_hz, self.high_hz)
        bank = triangles(self.bands, self.low_hz, self.high_hz, self.size, self.sample_rate)
        return bank * 2 / (edges[2:] - edges[:-2])

    def transform(self) -> np.ndarray:
        """The cosine transform, (M, C)."""
        bands = np.arange(self.bands)[:, None]
        cosines = np.cos(np.pi * np.arange(self.coefficients) * (bands + 0.5) / self.bands) / self.bands
        return np.where(bands == 0, 0.5, 1.0) * cosines
