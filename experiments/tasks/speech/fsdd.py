"""Spoken digits: classification of recordings of English digits, most under a second, at 8 kHz.

The Free Spoken Digit Dataset has 3,000 recordings by six speakers. The standard split tests on recordings 0 to 4 of
each speaker and digit (300). Recordings 5 to 9 are for validation, the other 2,400 for training.

With `speaker`, all 500 recordings of that speaker are the test split and the speaker is not in training. Validation is
then on recordings 0 to 4 of the other five (250). With `validation_speaker` it is on all recordings of another speaker,
and four remain for training. Training data are augmented: speed, gain, spectrum, noise, room.

Reference: Jackson et al., "Free Spoken Digit Dataset", 2018.
"""

import dataclasses
import functools
import io
import math
import pathlib
import tarfile
import wave
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import jax
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import Buckets, bucket_edges, pad
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Count, NonNegative, Range, UserError, require
from experiments.tasks.base import Batch, Carry, FinalConfig, Scoring, Split, Sums, Task, padded_batches
from experiments.tasks.classifier import class_metrics, class_sums
from experiments.tasks.speech.augmentation import augmented
from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import RecognizerConfig, SpokenDigitRecognizer

SAMPLE_RATE = 8000
CLASSES = 10
BUCKETS = 4
EVAL_BATCH_SIZE = 50
FRONT = LogMel(sample_rate=SAMPLE_RATE)
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
    """One recording of the data set.

    Attributes:
      name: "7_jackson_32".
      digit: 0 to 9.
      speaker: one of `SPEAKERS`.
      index: 0 to 49, the number among the speaker's recordings of the digit.
      samples: (N,) float32 in [-1, 1).
    """

    name: str
    digit: int
    speaker: str
    index: int
    samples: np.ndarray


def load(data_dir: str | None) -> tuple[Recording, ...]:
    """Returns all recordings, sorted by name."""
    return _read(fetch("fsdd", "fsdd.tar.gz", data_dir))


@functools.cache
def _read(path: pathlib.Path) -> tuple[Recording, ...]:
    """Reads the members `.../recordings/<name>.wav` of the archive."""
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
            raise UserError(f"recordings/{name}.wav: expected 8 kHz, one channel, two bytes per sample, got {form}")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 2**15
    return Recording(name, int(digit), speaker, int(index), samples)


@dataclasses.dataclass(frozen=True)
class FsddConfig(FinalConfig):
    """Extends `FinalConfig`. From `speed` on, the keys are of the augmentation (see `augmentation.augmented`).

    Attributes:
      speaker: the speaker of the test split; empty for the standard split.
      validation_speaker: the speaker of the validation split; empty for recordings of the training speakers.
      batch_size: recordings in a training batch.
      speed: the largest relative change of the speed, such as 0.15.
      tilt: the largest |a| of a first-order filter 1 + a z⁻¹.
      gain_db: the largest change of the gain.
      noise_db: the highest level of white noise relative to the recording; -100 for none.
      silence: the maximum seconds of noise only before and after the recording, each with probability ½.
      color: the strength of a random impulse response; 0 for none.
    """

    name: Literal["fsdd"] = "fsdd"
    speaker: Literal["", "george", "jackson", "lucas", "nicolas", "theo", "yweweler"] = ""
    validation_speaker: Literal["", "george", "jackson", "lucas", "nicolas", "theo", "yweweler"] = ""
    batch_size: Count = 64
    speed: Annotated[float, Range(0, 0.3)] = 0.0
    tilt: Annotated[float, Range(0, 0.9)] = 0.0
    gain_db: NonNegative = 0.0
    noise_db: Annotated[float, Range(-100, 0)] = -100.0
    silence: Annotated[float, Range(0, 1)] = 0.0
    color: NonNegative = 0.0

    def check(self):
        fits = not self.validation_speaker or (self.speaker and self.validation_speaker != self.speaker)
        require(
            "validation_speaker",
            bool(fits),
            "a speaker other than `speaker`, which must be given",
            self.validation_speaker,
        )


class Fsdd(Task):
    """Classification of a recording by its digit."""

    Config, ModelConfig = FsddConfig, RecognizerConfig
    command = "transcribe mine.wav"
    not_for = (
        "Other words and languages, and voices beyond its six speakers: it answers every sound with one of ten English "
        "digits."
    )

    @classmethod
    def scoring_for(cls, config: FsddConfig) -> Scoring:
        return Scoring("accuracy", "max", ("accuracy",), selects=not config.train_on_validation)

    def learn(self) -> dict[str, Any]:
        """Loads the recordings. There are no artifacts."""
        assert self.splits
        return {}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["fsdd"]

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("fsdd", "fsdd.tar.gz")

    @functools.cached_property
    def splits(self) -> dict[Split, list[Recording]]:
        """The recordings of each split."""
        splits: dict[Split, list[Recording]] = {"train": [], "validation": [], "test": []}
        for recording in load(self.data_dir):
            splits[split_of(self.config, recording)].append(recording)
        return splits

    @functools.cached_property
    def longest(self) -> int:
        """The samples of the longest recording."""
        return max(len(one.samples) for split in self.splits.values() for one in split)

    @functools.cached_property
    def train_examples(self) -> list[Recording]:
        return self.splits["train"] + ([] if self.scoring.selects else self.splits["validation"])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The samples of each training recording."""
        return np.array([len(one.samples) for one in self.train_examples])

    @property
    def result_name(self) -> str:
        return "fsdd_loso" if self.config.speaker else "fsdd"

    def model(self, config: RecognizerConfig, rngs: nnx.Rngs) -> SpokenDigitRecognizer:
        return SpokenDigitRecognizer(config, FRONT, CLASSES, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        config = self.config
        rows, edge = self._buckets(seed).batch(step)
        rng = np.random.default_rng((seed, 1, step))
        chosen = [self.train_examples[row] for row in rows]
        silence = round(config.silence * SAMPLE_RATE)
        levels = (config.speed, config.tilt, config.gain_db, config.noise_db)
        waveforms = [augmented(one.samples, rng, *levels, silence, config.color) for one in chosen]
        return self._batch(waveforms, chosen, math.ceil(edge / (1 - config.speed)) + 2 * silence)

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return self._buckets(seed).batch(step)[0]

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        recordings = self.splits[split]
        for start in range(0, len(recordings), EVAL_BATCH_SIZE):
            part = recordings[start : start + EVAL_BATCH_SIZE]
            arrays = self._batch([one.samples for one in part], part, self.longest)
            del arrays["weights"]
            yield from padded_batches(arrays, EVAL_BATCH_SIZE)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits = model(batch["waveforms"], batch["lengths"], key=key)
        return class_sums(logits, batch["labels"], batch["weights"]), carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return class_metrics(sums)

    def _buckets(self, seed: int) -> Buckets:
        return Buckets(self.lengths, bucket_edges(self.lengths, BUCKETS), self.batch_size, seed)

    def _batch(self, waveforms: Sequence[np.ndarray], recordings: Sequence[Recording], length: int) -> Batch:
        padded, lengths = pad(waveforms, length)
        labels = np.array([one.digit for one in recordings], np.int32)
        return {
            "waveforms": padded,
            "lengths": lengths,
            "labels": labels,
            "weights": np.ones(len(labels), np.float32),
        }


def split_of(config: FsddConfig, recording: Recording) -> Split:
    """Returns the split of a recording."""
    if config.speaker:
        if recording.speaker == config.speaker:
            return "test"
        if config.validation_speaker:
            return "validation" if recording.speaker == config.validation_speaker else "train"
        return "validation" if recording.index < 5 else "train"
    return "test" if recording.index < 5 else "validation" if recording.index < 10 else "train"
