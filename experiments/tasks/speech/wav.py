"""WAV files as mono float waveforms of the sample rate that a model wants."""

import io
import math
import os
import pathlib
import struct
import warnings

import numpy as np

from experiments import extras
from experiments.schema import UserError

UNKNOWN_SIZE = 0x7FFFF000
"""From here on a size stands for one that the program which wrote the file did not know."""


def read_wav(path: str | os.PathLike[str], sample_rate: int) -> np.ndarray:
    """Reads a WAV file of any sample rate, sample format and number of channels.

    Channels are averaged; another sample rate is converted by a polyphase filter. A file that is cut is read as far as
    its last whole frame, and samples beyond ±1 are clipped; a warning says so.

    Args:
      path: of the file.
      sample_rate: of the result, in Hz.

    Returns:
      (N,) float32 in [-1, 1].

    Raises:
      UserError: the file cannot be read, is no WAV file, or holds no samples or some that are not finite.
    """
    extras.require("speech")
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        content, cut = whole_frames(pathlib.Path(path).read_bytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # Chunks that say nothing about the samples.
            rate, samples = wavfile.read(io.BytesIO(content))
    except OSError as error:
        raise UserError(f"{path}: expected a readable file ({error.strerror})") from None
    except Exception as error:  # scipy trusts a damaged header, and fails in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected a WAV file ({reason})") from None
    if rate <= 0:
        raise UserError(f"{path}: expected a positive sample rate, got {rate}")
    if samples.size == 0:
        raise UserError(f"{path}: expected at least one sample, got none")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: expected finite samples, got NaN or infinity")
    waveform = scaled(samples)
    if waveform.ndim == 2:
        waveform = waveform.mean(axis=1)
    if cut:
        warnings.warn(f"{path}: the file is cut, {cut}; what is there is read", stacklevel=2)
    beyond = np.abs(waveform) > 1
    if beyond.any():
        peak = f"the largest is {np.abs(waveform).max():.6g}"
        warnings.warn(f"{path}: {beyond.sum()} of {len(waveform)} samples beyond ±1 are clipped, {peak}", stacklevel=2)
    if rate != sample_rate:
        divisor = math.gcd(rate, sample_rate)
        waveform = resample_poly(waveform, sample_rate // divisor, rate // divisor)
    return np.clip(waveform, -1, 1).astype(np.float32)


def whole_frames(content: bytes) -> tuple[bytes, str]:
    """Returns a WAV file that ends with a whole frame, and what was cut off it; "" of a whole file.

    Args:
      content: the file's bytes; what is no WAV file is returned as it is.
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
            # A size that was never filled in is that of a stream, which may end anywhere.
            stream = size >= UNKNOWN_SIZE and not rest
            what = "" if stream else f"{held} of {size} bytes of samples, frames of {frame}"
            return content[: place + 4] + fixed + content[body : body + held - rest], what
        place = body + size + size % 2
    return content, ""


def scaled(samples: np.ndarray) -> np.ndarray:
    """Maps samples of a WAV file to [-1, 1]: signed integers, unsigned bytes, or floats as they are."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32)
