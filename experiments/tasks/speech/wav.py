"""Reading of WAV files as mono float waveforms of a given sample rate."""

import io
import math
import os
import pathlib
import struct
import warnings

import numpy as np

from experiments import extras
from experiments.schema import UserError

LOWEST_RATE = 1000
"""In Hz. Files of lower rates would be expanded to sizes out of proportion."""
UNKNOWN_SIZE = 0x7FFFF000
"""Sizes from here on mean that the size was unknown when the header was written."""


def read_wav(path: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Reads a WAV file of any sample rate, sample format and number of channels.

    Channels are averaged, and other sample rates are converted by a polyphase filter. A truncated file is read to its
    last whole frame, and samples beyond ±1 are clipped, both with a warning.

    Args:
      path: the file.
      sample_rate: sample rate of the result, in Hz.

    Returns:
      (N,) float32 in [-1, 1].

    Raises:
      UserError: the file cannot be read, is not a WAV file, has no samples, or has samples that are not finite.
    """
    extras.require("speech")
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        content, cut = whole_frames(pathlib.Path(path).read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks without samples
            rate, samples = wavfile.read(io.BytesIO(content))
    except OSError as error:
        raise UserError(f"{path}: expected a readable file ({error.strerror})") from None
    except Exception as error:  # scipy raises many types for damaged headers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected a WAV file ({reason})") from None
    if rate < LOWEST_RATE:
        raise UserError(f"{path}: expected a sample rate of at least {LOWEST_RATE} Hz, got {rate}")
    if samples.size == 0:
        raise UserError(f"{path}: expected at least one sample, got none")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: expected finite samples, got NaN or infinity")
    waveform = scaled(samples)
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=1)
    if cut:
        warnings.warn(f"{path}: the file is truncated, {cut}; the rest is read", stacklevel=2)
    beyond = np.abs(waveform) > 1
    if beyond.any():
        peak = f"the largest is {np.abs(waveform).max():.6g}"
        warnings.warn(f"{path}: {beyond.sum()} of {len(waveform)} samples beyond ±1 are clipped, {peak}", stacklevel=2)
    if rate != sample_rate:
        divisor = math.gcd(rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // divisor, rate // divisor)
    return np.clip(waveform, -1, 1).astype(np.float32)


def whole_frames(content: bytes) -> tuple[bytes, str]:
    """Returns a WAV file that ends with a whole frame, and a description of what is missing, or "".

    Args:
      content: the bytes of the file. Other formats are returned unchanged.
    """
    order = {b"RIFF": "<", b"RIFX": ">"}.get(content[:4])
    place, frame = 12, 0
    while order and place + 8 <= len(content):
        (size,) = struct.unpack_from(f"{order}I", content, place + 4)
        body = place + 8
        if content[place : place + 4] == b"fmt " and body + 14 <= len(content):
            (frame,) = struct.unpack_from(f"{order}H", content, body + 12)
        if content[place : place + 4] == b"data":
            held = min(size, len(content) - body)
            rest = held % frame if frame else 0
            if held == size and not rest:
                break
            fixed = struct.pack(f"{order}I", held - rest)
            # Streams have an unknown size and can end anywhere.
            stream = size >= UNKNOWN_SIZE and not rest
            what = "" if stream else f"{held} of {size} bytes of samples, frames of {frame}"
            return content[: place + 4] + fixed + content[body : body + held - rest], what
        place = body + size + size % 2
    return content, ""


def scaled(samples: np.ndarray) -> np.ndarray:
    """Maps samples of a WAV file to [-1, 1]: signed integers, unsigned bytes, or unchanged floats."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
