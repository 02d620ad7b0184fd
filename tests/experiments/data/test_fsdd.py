"""Recordings are read whole, under the archive's folder whatever it is called."""

import io
import tarfile
import wave
from collections import Counter

import numpy as np
import pytest

from experiments.data import fsdd
from experiments.data.fetch import DataError


def test_every_speaker_says_every_digit_fifty_times(data_file, data_dir):
    data_file("fsdd", "fsdd.tar.gz")
    recordings = fsdd.load(str(data_dir))
    assert len(recordings) == 3000
    assert Counter((one.digit, one.speaker) for one in recordings) == {
        (digit, speaker): 50 for digit in range(10) for speaker in fsdd.SPEAKERS
    }
    assert {one.index for one in recordings} == set(range(50))
    assert 0.13 < min(len(one.samples) for one in recordings) / fsdd.SAMPLE_RATE < 0.15
    assert 2.27 < max(len(one.samples) for one in recordings) / fsdd.SAMPLE_RATE < 2.29
    assert max(abs(one.samples).max() for one in recordings) <= 1


def archive(path, rate=8000):
    samples = (np.arange(-5, 5) * 1000).astype("<i2")
    sound = io.BytesIO()
    with wave.open(sound, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    with tarfile.open(path, "w:gz") as tar:
        for name in ("top/recordings/7_theo_3.wav", "top/recordings/1_theo_0.wav", "top/7_theo_4.wav", "top/README.md"):
            member = tarfile.TarInfo(name)
            member.size = len(sound.getvalue())
            tar.addfile(member, io.BytesIO(sound.getvalue()))
    return samples


def test_members_are_known_by_their_folder_and_name(tmp_path, monkeypatch):
    samples = archive(tmp_path / "a.tar.gz")
    monkeypatch.setattr(fsdd, "fetch", lambda *_: tmp_path / "a.tar.gz")
    first, second = fsdd.load(None)
    assert (first.name, second.name) == ("1_theo_0", "7_theo_3")
    assert (second.digit, second.speaker, second.index) == (7, "theo", 3)
    np.testing.assert_allclose(second.samples, samples / 32768)
    archive(tmp_path / "b.tar.gz", rate=16000)
    monkeypatch.setattr(fsdd, "fetch", lambda *_: tmp_path / "b.tar.gz")
    with pytest.raises(DataError, match=r"recordings/7_theo_3.wav: expected 8 kHz, .* got \(16000, 1, 2\)"):
        fsdd.load(None)
