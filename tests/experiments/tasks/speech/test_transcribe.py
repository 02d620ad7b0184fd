"""Transcription of files and recordings by untrained models."""

import pathlib
import struct

import numpy as np
import pytest
from flax import nnx
from scipy.io import wavfile

from experiments.schema import UserError
from experiments.tasks.speech import fsdd, transcribe
from experiments.tasks.speech.an4 import An4, An4Config
from experiments.tasks.speech.features import MelCepstra
from experiments.tasks.speech.fsdd import FRONT
from experiments.tasks.speech.recognizer import RecognizerConfig, SpokenDigitRecognizer
from experiments.tasks.speech.transcriber import Transcriber, TranscriberConfig


@pytest.fixture
def digits(data_file):
    data_file("fsdd", "fsdd.tar.gz")
    return SpokenDigitRecognizer(RecognizerConfig(hidden_size=4), FRONT, 10, nnx.Rngs(0))


@pytest.fixture
def letters(data_file, data_dir):
    data_file("an4_mfcc", "an4_mfcc.npz")
    task = An4(An4Config(stack=4, beam_width=2), str(data_dir))
    return task, Transcriber(TranscriberConfig(hidden_size=4), 39 * 4, 28, nnx.Rngs(0))


def test_wav_file_gives_the_result_of_its_recording(digits, data_dir, tmp_path):
    recording = next(one for one in fsdd.load(str(data_dir)) if one.name == "7_jackson_3")
    path = str(tmp_path / "mine.wav")
    wavfile.write(path, fsdd.SAMPLE_RATE, (recording.samples * 2**15).astype(np.int16))
    (mine,) = transcribe.digit_lines(digits, path, None, 1, 0)
    answer, truth = transcribe.digit_lines(digits, "7_jackson_3", str(data_dir), 1, 0)
    assert truth == "7_jackson_3  seven  (truth)"
    assert mine.removeprefix(path) == answer.removeprefix("7_jackson_3")
    *way, answer_in_chunks, _ = transcribe.digit_lines(digits, "7_jackson_3", str(data_dir), 3, 100)
    assert len(way) == -(-len(recording.samples) // 800)
    assert way[-1].endswith(answer.split("  ")[1])
    assert answer_in_chunks.count("%") == 3
    assert answer_in_chunks.startswith(answer)


def test_digits_are_sorted_by_probability():
    probabilities = np.array([0.02, 0.2, 0.0, 0.7, 0, 0, 0, 0.05, 0.03, 0])
    assert transcribe.most_likely(probabilities, 2) == "three 70.0 %, one 20.0 %"


def test_feature_file_gives_the_result_of_its_utterance(letters, tmp_path):
    task, model = letters
    utterance = task.splits["test"][3]
    path = str(tmp_path / "mine.mfc")
    pathlib.Path(path).write_bytes(
        struct.pack(">i", utterance.cepstra.size) + utterance.cepstra.astype(">f4").tobytes()
    )
    (mine,) = transcribe.text_lines(task, model, path, 1)
    answer, truth = transcribe.text_lines(task, model, utterance.name, 1)
    assert truth == f"{utterance.name}  {utterance.text}  (truth)"
    assert mine.removeprefix(path) == answer.removeprefix(utterance.name)
    *alternatives, _ = transcribe.text_lines(task, model, utterance.name, 3)
    assert len(alternatives) == 3
    assert all("(log probability -" in line for line in alternatives)


def test_waveform_gives_the_result_of_its_cepstra(letters, tmp_path):
    waveform = np.random.default_rng(0).uniform(-0.1, 0.1, 24_000)
    wavfile.write(tmp_path / "mine.WAV", 16_000, waveform.astype(np.float32))
    cepstra = MelCepstra()(waveform.astype(np.float32))
    (tmp_path / "mine.mfc").write_bytes(struct.pack(">i", cepstra.size) + cepstra.astype(">f4").tobytes())
    task, model = letters
    (heard,), (read,) = (transcribe.text_lines(task, model, str(tmp_path / n), 1) for n in ("mine.WAV", "mine.mfc"))
    assert heard.partition("  ")[2] == read.partition("  ")[2]


def test_invalid_audio_raises(digits, letters, tmp_path):
    task, model = letters
    with pytest.raises(UserError, match=r"none.wav: expected a readable file"):
        list(transcribe.digit_lines(digits, str(tmp_path / "none.wav"), None, 1, 0))
    wavfile.write(tmp_path / "short.wav", 8000, np.zeros(150, np.int16))
    with pytest.raises(UserError, match=r"short.wav: expected at least 25 ms of sound, got 150 samples"):
        list(transcribe.digit_lines(digits, str(tmp_path / "short.wav"), None, 1, 0))
    with pytest.raises(UserError, match=r"short.wav: expected at least 26 ms of sound, got 300 samples"):
        list(transcribe.text_lines(task, model, str(tmp_path / "short.wav"), 1))
