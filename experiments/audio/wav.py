"""WAV files as mono float waveforms of the sample rate that a model wants."""

import math
import os
import warnings

import numpy as np

from experiments.audio.errors import AudioError


def read_wav(path: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Reads a WAV file of any sample rate, sample format and number of channels.

    Channels are averaged; another sample rate is converted by a polyphase filter.

    Args:
      path: of the file.
      sample_rate: of the result, in Hz.

    Returns:
      (N,) float32 in [-1, 1].

    Raises:
      AudioError: the file cannot be read, is no WAV file, or holds no samples or some that are not finite.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # Chunks that say nothing about the samples.
            rate, samples = wavfile.read(path)
    except OSError as error:
        raise AudioError(f"{path}: expected a readable file ({error.strerror})") from None
    except Exception as error:  # scipy trusts a damaged header, and fails in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise AudioError(f"{path}: expected a WAV file ({reason})") from None
    if rate <= 0:
        raise AudioError(f"{path}: expected a positive sample rate, got {rate}")
    if samples.size == 0:
        raise AudioError(f"{path}: expected at least one sample, got none")
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: expected finite samples, got NaN or infinity")
    waveform = scaled(samples)
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=1)
    if rate != sample_rate:
        divisor = math.gcd(rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // divisor, rate // divisor)
    return np.clip(waveform, -1, 1).astype(np.float32)


def scaled(samples: np.ndarray) -> np.ndarray:
    """Maps samples of a WAV file to [-1, 1]: signed integers, unsigned bytes, or floats as they are."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
