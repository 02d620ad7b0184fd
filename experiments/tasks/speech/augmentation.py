"""Speech disturbed as other speakers, rooms and microphones would disturb it, for training. NumPy, repeatable.

References: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", 2013; Ko et al.,
"Audio Augmentation for Speech Recognition", 2015 (speed); Park et al., "SpecAugment", 2019 (masks).
"""

import numpy as np

from experiments.tasks.speech.features import hertz, mel


def resampled(signal: np.ndarray, speed: float) -> np.ndarray:
    """Plays a signal (T, ...) `speed` times as fast, between its samples on straight lines: (round(T / speed), ...)."""
    length = max(1, round(len(signal) / speed))
    places = np.linspace(0, len(signal) - 1, length, dtype=np.float32)
    below = places.astype(np.int64)
    above = np.minimum(below + 1, len(signal) - 1)
    share = (places - below).reshape(-1, *([1] * (signal.ndim - 1)))
    return signal[below] + share * (signal[above] - signal[below])


def spectral_change(
    coefficients: int, bands: int, low_hz: float, high_hz: float, warp: float = 1.0, hidden: slice | None = None
) -> np.ndarray:
    """Returns the matrix that changes cepstra as a change of their spectrum would: c' = c A, A (C, C).

    The log spectrum behind cepstra c is L(b) = c_0 + 2 Σ_k c_k cos(π k (b + ½) / bands), and leads back by
    c_k = Σ_b L(b) cos(π k (b + ½) / bands) / bands. So the spectrum of a vocal tract of another length, L at `warp`
    times each band's frequency, and a spectrum with hidden bands both are linear in c.

    Args:
      coefficients: C.
      bands: of the mel filter bank, between low_hz and high_hz.
      warp: above 1 for the formants of a longer vocal tract.
      hidden: the bands whose log spectrum is set to 0; None for none.
    """
    low, high = mel(low_hz), mel(high_hz)
    spacing = (high - low) / (bands + 1)
    centres = low + spacing * np.arange(1, bands + 1)
    warped = np.clip((mel(warp * hertz(centres)) - low) / spacing - 1, 0, bands - 1)
    k = np.arange(coefficients)
    to_spectrum = np.where(k == 0, 1.0, 2.0)[:, None] * np.cos(np.pi * k[:, None] * (warped + 0.5) / bands)
    if hidden is not None:
        to_spectrum[:, hidden] = 0.0
    back = np.cos(np.pi * (np.arange(bands)[:, None] + 0.5) * k / bands) / bands
    return (to_spectrum @ back).astype(np.float32)


def span(rng: np.random.Generator, length: int, most: int) -> slice:
    """Draws a stretch of 0 to `most` places, at most all, somewhere among `length`."""
    size = int(rng.integers(0, min(most, length) + 1))
    start = int(rng.integers(0, length - size + 1))
    return slice(start, start + size)


def hide_spans(frames: np.ndarray, rng: np.random.Generator, count: int, most: int, share: float) -> np.ndarray:
    """Sets stretches of frames (T, ...) to 0, in a copy.

    Args:
      frames: with mean 0, so that 0 tells nothing.
      rng: drawn from.
      count: of stretches.
      most: frames in a stretch.
      share: of the frames that a stretch may hide at most.
    """
    frames = frames.copy()
    for _ in range(count):
        frames[span(rng, len(frames), min(most, int(share * len(frames))))] = 0.0
    return frames


def impulse_response(rng: np.random.Generator, colour: float) -> np.ndarray:
    """Draws how a microphone and what is near it answer a click: 17 samples, of energy 1.

    The sound itself, 1, and k samples after it an echo from a normal distribution of standard deviation
    colour · 0.85^(k - 1); at 8 kHz the spectrum then has peaks and valleys some hundreds of hertz wide.
    """
    echoes = colour * 0.85 ** np.arange(16) * rng.standard_normal(16)
    response = np.concatenate([[1.0], echoes])
    return response / np.sqrt(np.sum(np.square(response)))


def disturbed(
    waveform: np.ndarray,
    rng: np.random.Generator,
    speed: float,
    tilt: float,
    gain_db: float,
    noise_db: float,
    silence: int = 0,
    colour: float = 0.0,
) -> np.ndarray:
    """Plays a waveform (N,) as another voice, microphone and room might give it.

    Args:
      waveform: (N,) float32.
      rng: drawn from.
      speed: the most by which it becomes faster or slower, and its formants higher or lower.
      tilt: the largest |a| of the filter 1 + a z⁻¹.
      gain_db: the most by which it becomes louder or softer.
      noise_db: the level of the loudest white noise above that of the waveform; the noise drawn is up to 30 dB softer.
      silence: the most samples during which the noise alone is heard before it, and after it, each at even odds.
      colour: of a drawn `impulse_response`; 0 for none.

    Returns:
      (round(N / s) + before + after,) float32 for the drawn speed s and stretches of silence.
    """
    faster, tilted, louder, noisier = rng.uniform(-1, 1, 4)
    waveform = resampled(waveform, 1 + speed * faster)
    level = np.sqrt(np.mean(np.square(waveform)))
    if silence:
        waveform = np.pad(waveform, rng.integers(0, silence + 1, 2) * rng.integers(0, 2, 2))
    noise = rng.standard_normal(len(waveform), np.float32) * level * 10 ** ((noise_db - 15 * (1 + noisier)) / 20)
    waveform = waveform + noise
    before = np.concatenate([waveform[:1], waveform[:-1]])
    waveform = waveform + tilt * tilted * before
    if colour:
        waveform = np.convolve(waveform, impulse_response(rng, colour))[: len(waveform)]
    return (waveform * 10 ** (gain_db * louder / 20)).astype(np.float32)
