"""Waveforms to log-mel spectra, in JAX.

Axes: N samples, T frames, M mel bands.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from experiments.audio.mel import triangles


@dataclasses.dataclass(frozen=True)
class LogMel:
    """Logarithms of the energy in each mel band: `frames` cuts a waveform up, a call turns each frame into bands.

    A frame depends on its own samples alone, so a stream has the same frames as the whole.

    Attributes:
      sample_rate: of the waveform, in Hz.
      window: samples of a frame.
      hop: samples from the start of a frame to that of the next.
      bands: M.
      low_hz, high_hz: where the lowest band begins and the highest one ends.
      floor: added to each energy, so that silence stays finite.
    """

    sample_rate: int = 8000
    window: int = 200
    hop: int = 80
    bands: int = 40
    low_hz: float = 60.0
    high_hz: float = 4000.0
    floor: float = 1e-8

    def count(self, samples):
        """How many whole frames so many samples hold: an integer or an array of them."""
        return (samples - self.window) // self.hop + 1

    def frames(self, waveform: jax.Array) -> jax.Array:
        """Cuts waveforms (..., N) into overlapping frames (..., T, window), T = `count(N)`."""
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
        """Triangles over the bins of a transform of `size` samples: (size // 2 + 1, M) float32."""
        return triangles(self.bands, self.low_hz, self.high_hz, size, self.sample_rate).astype(np.float32)
