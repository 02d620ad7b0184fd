"""Writes down what is said in files of speech.

python -m experiments.transcribe --workdir=runs/fsdd mine.wav            a digit, from a WAV file
python -m experiments.transcribe --workdir=runs/fsdd --chunk_ms=100 7_jackson_3
python -m experiments.transcribe --workdir=runs/an4 mine.wav             a text, from a WAV file
python -m experiments.transcribe --workdir=runs/an4 mine.mfc             or from a Sphinx feature file

An argument that is no file is looked up among the recordings of the run's data set by its name, and the truth is
printed beside the answer. AN4 came as mel-cepstra; of a WAV file, best of 16 kHz or more, a run of AN4 computes the
same: 13 a frame, 100 frames a second, from a bank of 40 filters from 130 to 6800 Hz, as CMU Sphinx writes them.
"""

import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from absl import flags

from experiments.runner import cli, run
from experiments.schema import UserError
from experiments.tasks.speech import an4, ctc, fsdd
from experiments.tasks.speech.an4 import LEAST_LOG_PROB, An4, spelled
from experiments.tasks.speech.features import MelCepstra, read_cepstra
from experiments.tasks.speech.fsdd import FRONT, Fsdd
from experiments.tasks.speech.recognizer import SpokenDigitRecognizer
from experiments.tasks.speech.streaming import StreamingRecognizer
from experiments.tasks.speech.transcriber import Transcriber
from experiments.tasks.speech.wav import read_wav

Known = TypeVar("Known", an4.Utterance, fsdd.Recording)

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

WORKDIR = cli.define_workdir("The run's folder, of task 'an4' or 'fsdd'.")
CHUNK_MS = flags.DEFINE_integer(
    "chunk_ms", 0, "For digits: hear the file in chunks of so many milliseconds and answer after each.", lower_bound=0
)
ALTERNATIVES = flags.DEFINE_integer("alternatives", 1, "How many answers to print, the likeliest first.", lower_bound=1)
DATA_DIR = cli.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Loads the run, then answers for one file after the other."""
    names = arguments[1:]
    if not names:
        raise UserError("expected at least one file of speech, or the name of a recording of the data set, got none")
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (An4, Fsdd))
    for name in names:
        lines = text_lines(task, model, name) if isinstance(task, An4) else digit_lines(model, name)
        for line in lines:
            print(line, flush=True)


def text_lines(task: An4, model: Transcriber, name: str) -> Iterator[str]:
    """Yields the likeliest texts of an utterance."""
    known = recording(name, lambda: (one for split in task.splits.values() for one in split))
    frames = known.cepstra if known else cepstra(name)
    (log_probs,) = task.log_probs(model, [frames])
    width = max(task.config.beam_width, ALTERNATIVES.value)
    for labels, score in ctc.prefix_beam(log_probs, width, LEAST_LOG_PROB)[: ALTERNATIVES.value]:
        yield f"{name}  {spelled(labels)}" + (f"  (log probability {score:.2f})" if ALTERNATIVES.value > 1 else "")
    if known:
        yield f"{name}  {known.text}  (said)"


def cepstra(path: str) -> np.ndarray:
    """Reads cepstra (T, 13) from a feature file, or computes them from a WAV file."""
    if not path.lower().endswith(".wav"):
        return read_cepstra(path, an4.COEFFICIENTS)
    front = MelCepstra()
    waveform = read_wav(path, front.sample_rate)
    if len(waveform) < front.window:
        least = math.ceil(1000 * front.window / front.sample_rate)
        raise UserError(f"{path}: expected at least {least} ms of sound, got {len(waveform)} samples")
    return front(waveform)


def digit_lines(model: SpokenDigitRecognizer, name: str) -> Iterator[str]:
    """Yields the likeliest digits of a recording, and before them those so far, chunk by chunk."""
    known = recording(name, lambda: fsdd.load(DATA_DIR.value))
    waveform = known.samples if known else read_wav(name, FRONT.sample_rate)
    recognizer = StreamingRecognizer(model)
    size = CHUNK_MS.value * FRONT.sample_rate // 1000 or len(waveform)
    for start in range(0, len(waveform), size):
        recognizer.accept(waveform[start : start + size])
        probabilities = recognizer.probabilities()
        if CHUNK_MS.value and probabilities is not None:
            heard = min(start + size, len(waveform)) / FRONT.sample_rate
            yield f"{name}  {heard:.2f} s  {likeliest(probabilities, 1)}"
    probabilities = recognizer.probabilities()
    if probabilities is None:
        least = 1000 * FRONT.window // FRONT.sample_rate
        raise UserError(f"{name}: expected at least {least} ms of sound, got {len(waveform)} samples")
    yield f"{name}  {likeliest(probabilities, ALTERNATIVES.value)}"
    if known:
        yield f"{name}  {DIGITS[known.digit]}  (said)"


def likeliest(probabilities: np.ndarray, count: int) -> str:
    """Returns the likeliest digits and their probabilities: "seven 98.1 %, one 1.2 %"."""
    best = np.argsort(-probabilities)[:count]
    return ", ".join(f"{DIGITS[digit]} {100 * probabilities[digit]:.1f} %" for digit in best)


def recording(name: str, recordings: Callable[[], Iterable[Known]]) -> Known | None:
    """Returns the recording of the data set that a name stands for; None for a file, or what is named as one.

    Only for a name without an ending, which no file has, is the data set looked at.
    """
    if pathlib.Path(name).is_file() or pathlib.Path(name).suffix:
        return None
    return next((one for one in recordings() if one.name == name), None)


if __name__ == "__main__":
    cli.run(main, takes_words=True)
