"""Free Spoken Digit Dataset: 3,000 recordings of the English digits by six speakers, 8 kHz, most under a second.

Reference: Jackson et al., "Free Spoken Digit Dataset", 2018.
"""

import functools
import io
import pathlib
import tarfile
import wave
from dataclasses import dataclass

import numpy as np

from experiments.data.fetch import DataError, fetch

SAMPLE_RATE = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@dataclass(frozen=True, eq=False)
class Recording:
    """
    Attributes:
      name: "7_jackson_32".
      digit: 0 to 9.
      speaker: one of `SPEAKERS`.
      index: 0 to 49, which of the speaker's recordings of the digit it is.
      samples: (N,) float32 in [-1, 1).
    """

    name: str
    digit: int
    speaker: str
    index: int
    samples: np.ndarray


def load(data_dir: str | None) -> tuple[Recording, ...]:
    """Returns all recordings, in the order of their names."""
    return _read(fetch("fsdd", "fsdd.tar.gz", data_dir))


@functools.cache
def _read(path: pathlib.Path) -> tuple[Recording, ...]:
    """Reads the archive's members `.../recordings/<name>.wav`, whatever the folder above is called."""
    recordings = []
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = pathlib.PurePosixPath(member.name)
            file = archive.extractfile(member) if member.isfile() else None
            if file is not None and name.parent.name == "recordings" and name.suffix == ".wav":
                recordings.append(_recording(name.stem, file.read()))
    return tuple(sorted(recordings, key=lambda recording: recording.name))


def _recording(name: str, content: bytes) -> Recording:
    digit, speaker, index = name.split("_")
    with wave.open(io.BytesIO(content)) as file:
        form = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if form != (SAMPLE_RATE, 1, 2):
            raise DataError(f"recordings/{name}.wav: expected 8 kHz, one channel, two bytes a sample, got {form}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15
    return Recording(name, int(digit), speaker, int(index), samples)
