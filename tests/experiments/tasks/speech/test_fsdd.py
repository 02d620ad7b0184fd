"""Spoken digits: splits by speaker, batches, reading of the archive."""

import io
import tarfile
import wave
from collections import Counter

import numpy as np
import pytest

from experiments.schema import UserError
from experiments.tasks.speech import fsdd
from experiments.tasks.speech.fsdd import BUCKETS, SPEAKERS, Fsdd, FsddConfig


@pytest.fixture
def make(data_file, data_dir):
    data_file("fsdd", "fsdd.tar.gz")
    return lambda **options: Fsdd(FsddConfig(**options), str(data_dir))


def counts(task):
    return {name: len(split) for name, split in task.splits.items()}


def test_standard_split_is_by_index(make):
    task = make()
    assert task.result_name == "fsdd"
    assert counts(task) == {"train": 2400, "validation": 300, "test": 300}
    indices = {name: {one.index for one in split} for name, split in task.splits.items()}
    assert indices == {"test": set(range(5)), "validation": set(range(5, 10)), "train": set(range(10, 50))}


def test_left_out_speaker_is_only_in_the_test_split(make):
    task = make(speaker="theo")
    assert task.result_name == "fsdd_loso"
    assert counts(task) == {"train": 2250, "validation": 250, "test": 500}
    assert {one.speaker for one in task.splits["test"]} == {"theo"}
    for name in ("train", "validation"):
        assert {one.speaker for one in task.splits[name]} == set(SPEAKERS) - {"theo"}
    inner = make(speaker="theo", validation_speaker="lucas")
    assert counts(inner) == {"train": 2000, "validation": 500, "test": 500}
    assert {one.speaker for one in inner.splits["validation"]} == {"lucas"}
    assert {one.speaker for one in inner.splits["train"]}.isdisjoint({"lucas", "theo"})
    last = make(speaker="theo", train_on_validation=True)
    assert len(last.train_examples) == 2500
    assert not last.scoring.selects
    assert "theo" not in {one.speaker for one in last.train_examples}


@pytest.mark.parametrize("options", [{"validation_speaker": "theo"}, {"speaker": "theo", "validation_speaker": "theo"}])
def test_validation_speaker_must_differ_from_the_test_speaker(options):
    with pytest.raises(UserError, match="validation_speaker: expected a speaker other than `speaker`"):
        FsddConfig(**options)


def test_batches_contain_recordings_of_similar_length(make):
    task = make(batch_size=16)
    shapes = set()
    for step in range(20):
        batch, rows = task.train_batch(0, step), task.batch_indices(0, step)
        shapes.add(batch["waveforms"].shape[1])
        for row, index in enumerate(rows):
            recording = task.train_examples[index]
            length = len(recording.samples)
            assert batch["labels"][row] == recording.digit
            assert batch["lengths"][row] == length
            np.testing.assert_allclose(batch["waveforms"][row, :length], recording.samples, atol=1e-5)
            assert (batch["waveforms"][row, length:] == 0).all()
    assert 2 <= len(shapes) <= BUCKETS


@pytest.mark.parametrize(
    "options",
    [{"speed": 0.3}, {"tilt": 0.5}, {"gain_db": 10.0}, {"noise_db": -10.0}, {"silence": 0.25}, {"color": 1.0}],
)
def test_augmentations_act_only_in_training(make, options):
    plain, disturbed = make(batch_size=8), make(batch_size=8, **options)
    clean, heard = plain.train_batch(1, 2)["waveforms"], disturbed.train_batch(1, 2)["waveforms"]
    shorter = min(clean.shape[1], heard.shape[1])
    assert np.abs(clean[:, :shorter] - heard[:, :shorter]).max() > 1e-3
    batches = (next(iter(task.eval_batches("validation")))["waveforms"] for task in (plain, disturbed))
    np.testing.assert_array_equal(*batches)


@pytest.mark.parametrize("silence", [0.0, 0.25])
def test_augmented_recordings_fit_their_bucket_and_have_a_frame(make, silence):
    task = make(batch_size=64, speed=0.3, tilt=0.5, gain_db=10.0, noise_db=-10.0, silence=silence)
    for step in range(10):
        batch = task.train_batch(1, step)
        assert batch["lengths"].max() <= batch["waveforms"].shape[1]
        assert batch["lengths"].min() >= 200
        assert np.isfinite(batch["waveforms"]).all()
        again = task.train_batch(1, step)
        np.testing.assert_array_equal(batch["waveforms"], again["waveforms"])


def test_every_speaker_has_fifty_recordings_of_every_digit(data_file, data_dir):
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


def test_recordings_are_identified_by_folder_and_name(tmp_path, monkeypatch):
    samples = archive(tmp_path / "a.tar.gz")
    monkeypatch.setattr(fsdd, "fetch", lambda *_: tmp_path / "a.tar.gz")
    first, second = fsdd.load(None)
    assert (first.name, second.name) == ("1_theo_0", "7_theo_3")
    assert (second.digit, second.speaker, second.index) == (7, "theo", 3)
    np.testing.assert_allclose(second.samples, samples / 32768)
    archive(tmp_path / "b.tar.gz", rate=16000)
    monkeypatch.setattr(fsdd, "fetch", lambda *_: tmp_path / "b.tar.gz")
    with pytest.raises(UserError, match=r"recordings/7_theo_3.wav: expected 8 kHz, .* got \(16000, 1, 2\)"):
        fsdd.load(None)
