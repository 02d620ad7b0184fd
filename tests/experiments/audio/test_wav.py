"""WAV files of every common form give the same waveform."""

import contextlib
from itertools import product

import numpy as np
import pytest
from scipy.io import wavfile

from experiments.audio.errors import AudioError
from experiments.audio.wav import read_wav


def sine(rate, seconds=0.5):
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)


@pytest.mark.parametrize(
    ("encode", "tolerance"),
    [
        (lambda x: (x * 2**15).astype(np.int16), 1e-4),
        (lambda x: (x * 2**31).astype(np.int32), 1e-6),
        (lambda x: (x * 128 + 128).astype(np.uint8), 1e-2),
        (lambda x: x.astype(np.float32), 1e-7),
        (lambda x: np.stack([x, np.zeros_like(x)], axis=1).astype(np.float32) * 2, 1e-6),
    ],
    ids=["int16", "int32", "uint8", "float32", "stereo"],
)
def test_every_sample_format_is_read(tmp_path, encode, tolerance):
    wavfile.write(tmp_path / "a.wav", 8000, encode(sine(8000)))
    waveform = read_wav(tmp_path / "a.wav", 8000)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, sine(8000), atol=tolerance)


@pytest.mark.parametrize("rate", [16000, 44100])
def test_other_sample_rates_are_converted(tmp_path, rate):
    wavfile.write(tmp_path / "a.wav", rate, sine(rate).astype(np.float32))
    waveform = read_wav(tmp_path / "a.wav", 8000)
    assert len(waveform) == 4000
    np.testing.assert_allclose(waveform[200:-200], sine(8000)[200:-200], atol=5e-3)


def test_what_is_too_loud_is_clipped(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.5, 1.5, -2.0], np.float32))
    assert read_wav(tmp_path / "a.wav", 8000).tolist() == [0.5, 1.0, -1.0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_refused(tmp_path, value):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.5, value], np.float32))
    with pytest.raises(AudioError, match=r"a.wav: expected finite samples, got NaN or infinity"):
        read_wav(tmp_path / "a.wav", 8000)


def test_what_is_no_sound_is_refused_in_one_line(tmp_path):
    with pytest.raises(AudioError, match=r"none.wav: expected a readable file \(No such file or directory\)"):
        read_wav(tmp_path / "none.wav", 8000)
    (tmp_path / "text.wav").write_text("this is no sound")
    with pytest.raises(AudioError, match=r"text.wav: expected a WAV file \(.*\)$"):
        read_wav(tmp_path / "text.wav", 8000)
    wavfile.write(tmp_path / "whole.wav", 8000, np.zeros(100, np.int16))
    whole = (tmp_path / "whole.wav").read_bytes()
    for number, place in product((0, 1, 255), range(4, 44)):  # every byte of the header
        (tmp_path / "hurt.wav").write_bytes(whole[:place] + bytes([number]) + whole[place + 1 :])
        with contextlib.suppress(AudioError):
            read_wav(tmp_path / "hurt.wav", 8000)
    for length in range(len(whole)):
        (tmp_path / "cut.wav").write_bytes(whole[:length])
        with contextlib.suppress(AudioError):
            read_wav(tmp_path / "cut.wav", 8000)
    wavfile.write(tmp_path / "empty.wav", 8000, np.zeros(0, np.int16))
    with pytest.raises(AudioError, match=r"empty.wav: expected at least one sample, got none"):
        read_wav(tmp_path / "empty.wav", 8000)
