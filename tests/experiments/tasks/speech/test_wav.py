"""WAV files of all common formats."""

import contextlib
import warnings
import wave
from itertools import product

import numpy as np
import pytest
from scipy.io import wavfile

from experiments.schema import UserError
from experiments.tasks.speech.wav import read_wav


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


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([0.5, 1.5, -2.0], "a.wav: 2 of 3 samples beyond ±1 are clipped, the largest is 2"),
        ([12.0, 16000.0, 0.5], "a.wav: 2 of 3 samples beyond ±1 are clipped, the largest is 16000"),
        ([[3.0, 1.0], [1.0, -1.0], [0.0, 1.0]], "a.wav: 1 of 3 samples beyond ±1 are clipped, the largest is 2"),
    ],
)
def test_clipping_warns(tmp_path, samples, message):
    samples = np.array(samples, np.float32)
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    with pytest.warns(UserWarning, match=rf"{message}$"):
        waveform = read_wav(tmp_path / "a.wav", 8000)
    mono = samples.reshape(3, -1).mean(axis=1)
    np.testing.assert_array_equal(waveform, np.clip(mono, -1, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_truncated_file_is_read_to_its_last_whole_frame(tmp_path, dtype, channels):
    whole, cut, frame = tmp_path / "whole.wav", tmp_path / "cut.wav", np.dtype(dtype).itemsize * channels
    samples = np.linspace(-0.5, 0.5, 10 * channels).reshape(10, channels)
    encoded = samples if np.issubdtype(dtype, np.floating) else (samples + 1) * 100
    wavfile.write(whole, 8000, encoded.astype(dtype))
    expected, content = read_wav(whole, 8000), whole.read_bytes()
    for missing in range(1, 3 * frame):
        cut.write_bytes(content[:-missing])
        left = 10 - -(-missing // frame)
        with pytest.warns(
            UserWarning, match=rf"cut.wav: the file is truncated, {10 * frame - missing} of {10 * frame} bytes"
        ):
            np.testing.assert_array_equal(read_wav(cut, 8000), expected[:left])


def test_truncated_24_bit_files_and_streams_of_unknown_size_are_read(tmp_path):
    path = tmp_path / "a.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((2, 3, 8000, 0, "NONE", ""))
        file.writeframes(bytes([0, 0, 64, 0, 0, 192]) * 4 + bytes([0, 0, 32, 0, 0, 32]))
    content = path.read_bytes()
    np.testing.assert_array_equal(read_wav(path, 8000), [0, 0, 0, 0, 0.25])
    for missing in range(1, 6):
        path.write_bytes(content[:-missing])
        with pytest.warns(UserWarning, match="the file is truncated"):
            assert read_wav(path, 8000).tolist() == [0, 0, 0, 0]
    for size in (b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f"):
        path.write_bytes(content[:40] + size + content[44:])
        assert read_wav(path, 8000).tolist() == [0, 0, 0, 0, 0.25]


def test_rate_that_is_not_one_of_speech_raises(tmp_path):
    wavfile.write(tmp_path / "a.wav", 1, np.zeros(4000, np.int16))
    with pytest.raises(UserError, match=r"a.wav: expected a sample rate of at least 1000 Hz, got 1$"):
        read_wav(tmp_path / "a.wav", 8000)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonfinite_samples_raise(tmp_path, value):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0.5, value], np.float32))
    with pytest.raises(UserError, match=r"a.wav: expected finite samples, got NaN or infinity"):
        read_wav(tmp_path / "a.wav", 8000)


def test_files_without_audio_raise(tmp_path):
    with pytest.raises(UserError, match=r"none.wav: expected a readable file \(No such file or directory\)"):
        read_wav(tmp_path / "none.wav", 8000)
    (tmp_path / "text.wav").write_text("this is no sound")
    with pytest.raises(UserError, match=r"text.wav: expected a WAV file \(.*\)$"):
        read_wav(tmp_path / "text.wav", 8000)
    wavfile.write(tmp_path / "whole.wav", 8000, np.zeros(100, np.int16))
    warnings.simplefilter("ignore")  # from truncated files
    whole = (tmp_path / "whole.wav").read_bytes()
    for number, place in product((0, 1, 255), range(4, 44)):  # every byte of the header
        (tmp_path / "hurt.wav").write_bytes(whole[:place] + bytes([number]) + whole[place + 1 :])
        with contextlib.suppress(UserError):
            read_wav(tmp_path / "hurt.wav", 8000)
    for length in range(len(whole)):
        (tmp_path / "cut.wav").write_bytes(whole[:length])
        with contextlib.suppress(UserError):
            read_wav(tmp_path / "cut.wav", 8000)
    wavfile.write(tmp_path / "empty.wav", 8000, np.zeros(0, np.int16))
    with pytest.raises(UserError, match=r"empty.wav: expected at least one sample, got none"):
        read_wav(tmp_path / "empty.wav", 8000)
