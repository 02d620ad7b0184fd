"""Augmentation of speech: variations of speaker, room and microphone, in NumPy. Deterministic given a generator.

References: Jaitly and Hinton, "Vocal Tract Length Perturbation (VTLP) improves speech recognition", 2013; Ko et al.,
"Audio Augmentation for Speech Recognition", 2015 (speed); Park et al., "SpecAugment", 2019 (masks).
"""

import numpy as np

from experiments.tasks.speech.features import hertz, mel


def resampled(signal: np.ndarray, speed: float) -> np.ndarray:
    """Resamples a signal (T, ...) to `speed` times the speed by linear interpolation: (round(T / speed), ...)."""
    length = max(1, round(len(signal) / speed))
    places = np.linspace(0, len(signal) - 1, length, dtype=np.float32)
    below = places.astype(np.int64)
    above = np.minimum(below + 1, len(signal) - 1)
    share = (places - below).reshape(-1, *([1] * (signal.ndim - 1)))
    return signal[below] + share * (signal[above] - signal[below])


def spectral_change(
    coefficients: int, bands: int, low_hz: float, high_hz: float, warp: float = 1.0, hidden: slice | None = None
) -> np.ndarray:
    """Returns the matrix A (C, C) that applies a change of the spectrum to cepstra: c' = c A.

    Cepstra c have the log spectrum L(b) = c_0 + 2 Σ_k c_k cos(π k (b + ½) / bands), and
    c_k = Σ_b L(b) cos(π k (b + ½) / bands) / bands. Warping the frequencies of L, which imitates another vocal tract
    length, and masking bands of L are therefore linear in c.

    Args:
      coefficients: C.
      bands: the number of mel bands between low_hz and high_hz.
      low_hz: lower end of the mel bands.
      high_hz: upper end of the mel bands.
      warp: factor of the frequencies; above 1 for a longer vocal tract.
      hidden: the bands to mask by setting their log spectrum to 0; None for none.
    """
    low, high = mel(low_hz), mel(high_hz)
    spacing = (high - low) / (bands + 1)
    centers = low + spacing * np.arange(1, bands + 1)
    warped = np.clip((mel(warp * hertz(centers)) - low) / spacing - 1, 0, bands - 1)
    k = np.arange(coefficients)
    to_spectrum = np.where(k == 0, 1.0, 2.0)[:, None] * np.cos(np.pi * k[:, None] * (warped + 0.5) / bands)
    if hidden is not None:
        to_spectrum[:, hidden] = 0.0
    back = np.cos(np.pi * (np.arange(bands)[:, None] + 0.5) * k / bands) / bands
    return (to_spectrum @ back).astype(np.float32)


def span(rng: np.random.Generator, length: int, most: int) -> slice:
    """Returns a random slice of 0 to `most` indices within `length`."""
    size = int(rng.integers(0, min(most, length) + 1))
    start = int(rng.integers(0, length - size + 1))
    return slice(start, start + size)


def hide_spans(frames: np.ndarray, rng: np.random.Generator, count: int, most: int, share: float) -> np.ndarray:
    """Returns a copy of the frames with random spans set to 0.

    Args:
      frames: (T, ...) with mean 0.
      rng: generator of the spans.
      count: the number of spans.
      most: the maximum number of frames in a span.
      share: the largest share of the frames in a span.
    """
    frames = frames.copy()
    for _ in range(count):
        frames[span(rng, len(frames), min(most, int(share * len(frames))))] = 0.0
    return frames


def impulse_response(rng: np.random.Generator, color: float) -> np.ndarray:
    """Returns a random impulse response of a microphone and its surroundings: 17 samples of energy 1.

    The direct sound is 1. The echo k samples later is normal with standard deviation color · 0.85^(k - 1). At 8 kHz
    the spectrum has peaks and valleys a few hundred hertz wide.
    """
    echoes = color * 0.85 ** np.arange(16) * rng.standard_normal(16)
    response = np.concatenate([[1.0], echoes])
    return response / np.sqrt(np.sum(np.square(response)))


def augmented(
    waveform: np.ndarray,
    rng: np.random.Generator,
    speed: float,
    tilt: float,
    gain_db: float,
    noise_db: float,
    silence: int = 0,
    color: float = 0.0,
) -> np.ndarray:
    """Returns a random variation of a waveform.

    Args:
      waveform: (N,) float32.
      rng: generator of the variation.
      speed: the largest relative change of the speed, and with it of the formants.
      tilt: the largest |a| of the filter 1 + a z⁻¹.
      gain_db: the largest change of the gain.
      noise_db: the highest level of white noise, relative to the waveform. The noise is up to 30 dB softer.
      silence: the maximum number of noise-only samples before and after the waveform, each with probability ½.
      color: the strength of a random `impulse_response`; 0 for none.

    Returns:
      (round(N / s) + before + after,) float32 for the random speed s and silences.
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
    if color:
        waveform = np.convolve(waveform, impulse_response(rng, color))[: len(waveform)]
    return (waveform * 10 ** (gain_db * louder / 20)).astype(np.float32)
