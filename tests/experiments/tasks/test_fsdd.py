"""Spoken digits: who is heard in which part, and what a batch holds."""

import numpy as np
import pytest

from experiments.data.fsdd import SPEAKERS
from experiments.schema import ConfigError
from experiments.tasks.fsdd import BUCKETS, Fsdd, FsddConfig


@pytest.fixture
def make(data_file, data_dir):
    data_file("fsdd", "fsdd.tar.gz")
    return lambda **options: Fsdd(FsddConfig(**options), str(data_dir))


def counts(task):
    return {name: len(split) for name, split in task.splits.items()}


def test_the_standard_split_is_by_index(make):
    task = make()
    assert task.result_name == "fsdd"
    assert counts(task) == {"train": 2400, "validation": 300, "test": 300}
    indices = {name: {one.index for one in split} for name, split in task.splits.items()}
    assert indices == {"test": set(range(5)), "validation": set(range(5, 10)), "train": set(range(10, 50))}


def test_a_speaker_left_out_is_heard_in_the_test_alone(make):
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
    assert len(last.trained_on) == 2500
    assert not last.selects
    assert "theo" not in {one.speaker for one in last.trained_on}


@pytest.mark.parametrize("options", [{"validation_speaker": "theo"}, {"speaker": "theo", "validation_speaker": "theo"}])
def test_a_validation_speaker_is_another_one_than_the_one_left_out(options):
    with pytest.raises(ConfigError, match="validation_speaker: expected another speaker than a named `speaker`"):
        FsddConfig(**options)


def test_batches_hold_recordings_of_similar_length_with_their_digits(make):
    task = make(batch_size=16)
    shapes = set()
    for step in range(20):
        batch, rows = task.train_batch(0, step), task.batch_indices(0, step)
        shapes.add(batch["waveforms"].shape[1])
        for row, index in enumerate(rows):
            recording = task.trained_on[index]
            length = len(recording.samples)
            assert batch["labels"][row] == recording.digit
            assert batch["lengths"][row] == length
            np.testing.assert_allclose(batch["waveforms"][row, :length], recording.samples, atol=1e-5)
            assert (batch["waveforms"][row, length:] == 0).all()
    assert 2 <= len(shapes) <= BUCKETS


@pytest.mark.parametrize(
    "options",
    [{"speed": 0.3}, {"tilt": 0.5}, {"gain_db": 10.0}, {"noise_db": -10.0}, {"silence": 0.25}, {"colour": 1.0}],
)
def test_every_disturbance_is_heard_in_training_and_not_in_evaluation(make, options):
    plain, disturbed = make(batch_size=8), make(batch_size=8, **options)
    clean, heard = plain.train_batch(1, 2)["waveforms"], disturbed.train_batch(1, 2)["waveforms"]
    shorter = min(clean.shape[1], heard.shape[1])
    assert np.abs(clean[:, :shorter] - heard[:, :shorter]).max() > 1e-3
    batches = (next(iter(task.eval_batches("validation")))["waveforms"] for task in (plain, disturbed))
    np.testing.assert_array_equal(*batches)


@pytest.mark.parametrize("silence", [0.0, 0.25])
def test_disturbed_recordings_fit_their_bucket_and_hold_a_frame(make, silence):
    task = make(batch_size=64, speed=0.3, tilt=0.5, gain_db=10.0, noise_db=-10.0, silence=silence)
    for step in range(10):
        batch = task.train_batch(1, step)
        assert batch["lengths"].max() <= batch["waveforms"].shape[1]
        assert batch["lengths"].min() >= 200
        assert np.isfinite(batch["waveforms"]).all()
        again = task.train_batch(1, step)
        np.testing.assert_array_equal(batch["waveforms"], again["waveforms"])
