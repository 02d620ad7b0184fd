"""AN4: batches, augmentation, decoding of a split, speakers of the splits."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.speech import an4
from experiments.tasks.speech.an4 import VOCABULARY, An4, An4Config, spelled
from experiments.tasks.speech.features import standardized, with_deltas
from experiments.tasks.speech.transcriber import Transcriber, TranscriberConfig


@pytest.fixture
def make(data_file, data_dir):
    data_file("an4_mfcc", "an4_mfcc.npz")
    return lambda **options: An4(An4Config(**options), str(data_dir))


def text_of(labels):
    return "".join(VOCABULARY.decode(labels[labels > 0] - 1))


def test_batches_contain_features_and_texts_of_the_same_utterances(make):
    task = make(batch_size=8, stack=3)
    batch, rows = task.train_batch(0, 3), task.batch_indices(0, 3)
    for row, index in enumerate(rows):
        utterance, length = task.train_examples[index], batch["lengths"][row]
        assert text_of(batch["labels"][row]) == utterance.text
        assert batch["label_counts"][row] == len(utterance.text)
        assert length == -(-len(utterance.cepstra) // 3)
        np.testing.assert_allclose(batch["xs"][row, :length], task.features(utterance.cepstra), atol=2e-4)
        assert (batch["xs"][row, length:] == 0).all()


def test_augmented_batches_differ_and_are_long_enough_for_their_text(make):
    task = make(batch_size=32, speed=0.2, warp=0.2, hidden_bands=10, hidden_spans=2, hidden_frames=20)
    plain, shapes = make(batch_size=32), set()
    for step in range(12):
        batch, still = task.train_batch(1, step), plain.train_batch(1, step)
        np.testing.assert_array_equal(batch["labels"], still["labels"])
        assert not np.array_equal(batch["lengths"], still["lengths"])
        labels, counts = batch["labels"], batch["label_counts"]
        repeats = ((labels[:, 1:] == labels[:, :-1]) & (labels[:, 1:] > 0)).sum(axis=1)
        assert (batch["lengths"] >= counts + repeats).all()
        assert np.isfinite(batch["xs"]).all()
        shapes.add(batch["xs"].shape)
    assert 2 <= len(shapes) <= an4.BUCKETS


def test_features_are_stacked_standardized_and_independent_of_gain(make):
    task = make(stack=2)
    frames = task.splits["test"][0].cepstra
    features = task.features(frames)
    assert features.shape == (-(-len(frames) // 2), 2 * 39)
    np.testing.assert_allclose(features.reshape(-1, 39)[: len(frames)].std(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(task.features(frames * 3 + 5), features, atol=1e-3)
    np.testing.assert_array_equal(features.reshape(-1, 39)[:5], standardized(with_deltas(frames))[:5])


def test_training_can_include_the_validation_speakers(make):
    chosen, last = make(), make(train_on_validation=True)
    assert (chosen.scoring.selects, last.scoring.selects) == (True, False)
    assert (len(chosen.train_examples), len(last.train_examples)) == (848, 948)
    assert {one.speaker for one in last.splits["test"]}.isdisjoint(one.speaker for one in last.train_examples)


class Oracle:
    """A fake model. Its log-probabilities spell the texts of a split, with errors in the first `wrong` ones."""

    def __init__(self, task, split, wrong):
        texts = [one.text for one in task.splits[split]]
        self.texts = ["NO" if row < wrong else text for row, text in enumerate(texts)]
        self.row = 0

    def __call__(self, xs, lengths):
        log_probs = np.full((len(xs), xs.shape[1], 28), -20.0, np.float32)
        log_probs[..., 0] = 0.0
        for row in range(len(xs)):
            text = self.texts[min(self.row, len(self.texts) - 1)]
            self.row += 1
            for place, label in enumerate(1 + VOCABULARY.encode(text)):
                log_probs[row, 2 * place, [0, label]] = -20.0, 0.0
        return jnp.asarray(log_probs)


def test_splits_are_decoded_in_order_and_scored(make, monkeypatch):
    task = make(stack=1)
    oracle = Oracle(task, "validation", wrong=2)
    monkeypatch.setattr(an4, "apply_model", lambda model, xs, lengths: model(xs, lengths))
    scores = task.scores(oracle, "validation")
    words = sum(len(one.text.split()) for one in task.splits["validation"])
    wrong = sum(len(one.text.split()) for one in task.splits["validation"][:2])
    assert scores["wer"] == scores["wer_greedy"] == pytest.approx(100 * wrong / words)
    assert 0 < scores["cer"] == scores["cer_greedy"] < scores["wer"] * 2


def test_log_probabilities_do_not_depend_on_the_batch(make):
    task = make(stack=4)
    model = Transcriber(TranscriberConfig(hidden_size=4), 39 * 4, 28, nnx.Rngs(0))
    utterances = [one.cepstra for one in task.splits["test"][:3]]
    together = task.log_probs(model, utterances)
    assert [len(one) for one in together] == [-(-len(one) // 4) for one in utterances]
    (alone,) = task.log_probs(model, utterances[1:2])
    np.testing.assert_allclose(alone, together[1], rtol=1e-4, atol=1e-5)


def test_texts_are_spelled_with_single_spaces():
    assert spelled([1, 8, 16, 1, 1, 2, 1]) == "GO A"
    assert spelled([]) == ""


def test_splits_by_speaker(data_file, data_dir):
    data_file("an4_mfcc", "an4_mfcc.npz")
    splits = an4.load(str(data_dir))
    assert {name: len(split) for name, split in splits.items()} == {"train": 848, "validation": 100, "test": 130}
    speakers = {name: {one.speaker for one in split} for name, split in splits.items()}
    assert {name: len(those) for name, those in speakers.items()} == {"train": 66, "validation": 8, "test": 10}
    assert speakers["validation"] == set(an4.VALIDATION_SPEAKERS)
    assert not speakers["train"] & speakers["validation"]
    assert not speakers["test"] & (speakers["train"] | speakers["validation"])
    assert sum(len(one.text.split()) for one in splits["test"]) == 773
    assert sum(len(one.cepstra) for one in splits["test"]) == 35_570
    assert set("".join(one.text for split in splits.values() for one in split)) == set(an4.ALPHABET)


def test_utterances_have_their_frames_and_text(data_file, data_dir):
    path = data_file("an4_mfcc", "an4_mfcc.npz")
    first, second = an4.load(str(data_dir))["test"][:2]
    assert (first.name, first.speaker, first.text) == ("an406-fcaw-b", "fcaw", "RUBOUT G M E F THREE NINE")
    with np.load(path) as arrays:
        frames, (one, two) = arrays["test_feats"], arrays["test_lens"][:2]
    np.testing.assert_array_equal(first.cepstra, frames[:one])
    np.testing.assert_array_equal(second.cepstra, frames[one : one + two])


def test_missing_corpus_raises_with_its_source(tmp_path):
    with pytest.raises(UserError, match=r"an4_mfcc.npz is not at .*http://www.speech.cs.cmu.edu/databases/an4/"):
        an4.load(str(tmp_path))
