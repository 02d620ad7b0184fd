"""Transcription of audio files and of recordings of the data set: texts by AN4 models, digits by FSDD models."""

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from experiments.schema import UserError
from experiments.tasks.speech import an4, ctc, fsdd
from experiments.tasks.speech.an4 import LEAST_LOG_PROB, An4, spelled
from experiments.tasks.speech.features import MelCepstra, read_cepstra
from experiments.tasks.speech.fsdd import FRONT
from experiments.tasks.speech.recognizer import SpokenDigitRecognizer
from experiments.tasks.speech.streaming import StreamingRecognizer
from experiments.tasks.speech.transcriber import Transcriber
from experiments.tasks.speech.wav import read_wav

Known = TypeVar("Known", an4.Utterance, fsdd.Recording)

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def text_lines(task: An4, model: Transcriber, name: str, alternatives: int) -> Iterator[str]:
    """Yields the most likely texts of an utterance, and the true text of a recording of the data set.

    Args:
      task: the run's task.
      model: its trained model.
      name: a WAV file, a Sphinx feature file, or the name of an utterance of the corpus.
      alternatives: the number of texts.
    """
    known = recording(name, lambda: (one for split in task.splits.values() for one in split))
    frames = known.cepstra if known else cepstra(name)
    (log_probs,) = task.log_probs(model, [frames])
    width = max(task.config.beam_width, alternatives)
    for labels, score in ctc.prefix_beam(log_probs, width, LEAST_LOG_PROB)[:alternatives]:
        yield f"{name}  {spelled(labels)}" + (f"  (log probability {score:.2f})" if alternatives > 1 else "")
    if known:
        yield f"{name}  {known.text}  (truth)"


def cepstra(path: str) -> np.ndarray:
    """Returns the cepstra (T, 13) of a feature file or a WAV file."""
    if not path.lower().endswith(".wav"):
        return read_cepstra(path, an4.COEFFICIENTS)
    front = MelCepstra()
    waveform = read_wav(path, front.sample_rate)
    if len(waveform) < front.window:
        least = math.ceil(1000 * front.window / front.sample_rate)
        raise UserError(f"{path}: expected at least {least} ms of sound, got {len(waveform)} samples")
    return front(waveform)


def digit_lines(
    model: SpokenDigitRecognizer, name: str, data_dir: str | None, alternatives: int, chunk_ms: int
) -> Iterator[str]:
    """Yields the most likely digits of a recording, and the true digit of a recording of the data set.

    Args:
      model: a trained model.
      name: a WAV file, or the name of a recording of the data set.
      data_dir: where to look for the data set.
      alternatives: the number of digits.
      chunk_ms: the length of the chunks after each of which the most likely digit is yielded; 0 for one chunk.
    """
    known = recording(name, lambda: fsdd.load(data_dir))
    waveform = known.samples if known else read_wav(name, FRONT.sample_rate)
    recognizer = StreamingRecognizer(model)
    size = chunk_ms * FRONT.sample_rate // 1000 or len(waveform)
    for start in range(0, len(waveform), size):
        recognizer.accept(waveform[start : start + size])
        probabilities = recognizer.probabilities()
        if chunk_ms and probabilities is not None:
            seconds = min(start + size, len(waveform)) / FRONT.sample_rate
            yield f"{name}  {seconds:.2f} s  {most_likely(probabilities, 1)}"
    probabilities = recognizer.probabilities()
    if probabilities is None:
        least = 1000 * FRONT.window // FRONT.sample_rate
        raise UserError(f"{name}: expected at least {least} ms of sound, got {len(waveform)} samples")
    yield f"{name}  {most_likely(probabilities, alternatives)}"
    if known:
        yield f"{name}  {DIGITS[known.digit]}  (truth)"


def most_likely(probabilities: np.ndarray, count: int) -> str:
    """Returns the most likely digits with their probabilities: "seven 98.1 %, one 1.2 %"."""
    best = np.argsort(-probabilities)[:count]
    return ", ".join(f"{DIGITS[digit]} {100 * probabilities[digit]:.1f} %" for digit in best)


def recording(name: str, recordings: Callable[[], Iterable[Known]]) -> Known | None:
    """Returns the recording of the data set with a name; None for files. Names with a suffix are files."""
    if pathlib.Path(name).is_file() or pathlib.Path(name).suffix:
        return None
    return next((one for one in recordings() if one.name == name), None)
