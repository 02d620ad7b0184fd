"""Batches of captions and scores of translations."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.translation.beam import beam_search
from experiments.tasks.translation.model import EncoderDecoder, EncoderDecoderConfig
from experiments.tasks.translation.multi30k import (
    Multi30k,
    Multi30kConfig,
    Translation,
    batch_of,
    bucket_edges_by_growth,
    sacrebleu_metrics,
)
from experiments.tasks.translation.subwords import BEGIN, END, PADDING, Subwords

SMALL = Multi30kConfig(pairs=120, vocabulary_size=160, batch_size=16, beam_width=2)


@pytest.fixture(scope="module")
def folder(data_dir, data_file):
    """The folder of the data. Skips if they are missing."""
    for part in ("train", "val", "test_2016_flickr"):
        for language in ("de", "en", "fr"):
            data_file("multi30k", f"raw/{part}.{language}.gz")
    return str(data_dir)


@pytest.fixture(scope="module")
def task(folder):
    return Multi30k(SMALL, folder)


@pytest.fixture(scope="module")
def model(task):
    config = EncoderDecoderConfig(hidden_size=6, embedding_size=4, attention_size=5)
    made = task.model(config, nnx.Rngs(0))
    made.target_embedding.embedding[...] *= 8  # clear choices, independent of rounding
    return made


def test_splits_have_the_documented_sizes(folder):
    for direction, first in (("de-en", "Zwei junge weiße Männer"), ("en-fr", "Two young, White males")):
        task = Multi30k(Multi30kConfig(direction=direction, lowercase=False), folder)
        sides = [[len(task.lines(split, language)) for language in task.languages] for split in ("train", "test")]
        assert sides == [[29_000, 29_000], [1_000, 1_000]]
        assert len(task.lines("validation", task.languages[0])) == 1_014
        assert task.lines("train", task.languages[0])[0].startswith(first)
        assert task.result_name == "multi30k_" + direction.replace("-", "")


def test_vocabularies_come_from_training_sentences_and_are_saved(task, tmp_path):
    for language, subwords in zip(("de", "en"), task.subwords, strict=True):
        assert subwords.model == Subwords.train(task.lines("train", language), 160).model
    task.save_artifacts(tmp_path)
    kept = ["artifacts.json", "subwords.de.model", "subwords.en.model"]
    assert sorted(path.name for path in tmp_path.iterdir()) == kept
    without_data = Multi30k(SMALL, str(tmp_path / "nowhere"), tmp_path)
    assert [s.model for s in without_data.subwords] == [s.model for s in task.subwords]


def test_damaged_vocabularies_are_named(task, tmp_path):
    task.save_artifacts(tmp_path)
    path, artifacts = tmp_path / "subwords.de.model", tmp_path / "artifacts.json"
    content = json.loads(artifacts.read_text())["artifacts"]
    assert set(content) == {"subwords.de.model", "subwords.en.model"}
    for damaged in (b"", b"junk", path.read_bytes()[:-3], (tmp_path / "subwords.en.model").read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"^{path} is damaged: it has another sha256 than recorded in artif"):
            Multi30k(SMALL, task.data_dir, tmp_path)
    artifacts.unlink()  # a run of an earlier version
    path.write_bytes(b"junk")
    with pytest.raises(UserError, match=rf"^{path} is damaged: expected a model of sentencepiece, got 4 bytes of ano"):
        Multi30k(SMALL, task.data_dir, tmp_path)


def test_batch_contains_sentences_and_their_translations(task):
    lines = dict(zip(task.lines("train", "de"), task.lines("train", "en"), strict=True))
    seen = set()
    for step in range(12):
        batch = task.train_batch(0, step)
        for row in range(16):
            length, weights = batch["source_lengths"][row], batch["weights"][row]
            source, target = batch["source"][row, :length], batch["targets"][row][weights > 0]
            assert (source[-1], target[-1]) == (END, END)
            assert (batch["source"][row, length:] == PADDING).all()
            text = task.subwords[0].decode(source)
            assert task.subwords[1].decode(target) == lines[text]
            assert batch["inputs"][row].tolist() == [BEGIN, *batch["targets"][row, :-1]]
            seen.add(text)
    assert len(seen) > 100


def test_sampled_subwords_decode_to_the_same_text(task):
    drawn = Multi30k(dataclasses.replace(SMALL, sampling=0.2), task.data_dir)
    likeliest, one, again, later = (
        t.train_batch(seed, 3) for t, seed in ((task, 0), (drawn, 0), (drawn, 0), (drawn, 1))
    )
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert (likeliest["source"] != one["source"]).any()
    assert likeliest["source"].shape == one["source"].shape
    for a, b in zip(likeliest["targets"], one["targets"], strict=True):
        assert task.subwords[1].decode(a) == task.subwords[1].decode(b)
    assert later["source"].shape[0] == 16


def test_evaluation_contains_every_pair_once(task):
    found = []
    for batch in task.eval_batches("validation"):
        for target, weights in zip(batch["targets"], batch["weights"], strict=True):
            if weights.any():
                found.append(task.subwords[1].decode(target[weights > 0]))
    known = [task.subwords[1].decode(codes) for _, codes in task.pairs("validation").codes]
    assert sorted(found) == sorted(known)


def test_an_empty_line_has_an_empty_translation(task, model):
    first, empty, last = task.translate(model, ["zwei männer", " ", "zwei männer"], 1)
    assert (empty.text, len(empty.codes)) == ("", 0)
    assert first.text == last.text
    weights, source, target = task.alignment(model, empty)
    assert (weights.shape, source, target) == ((1, 1), ["end"], ["end"])


def test_labels_are_smoothed_only_in_training(task, model):
    batch = task.train_batch(0, 0)
    loss = jax.jit(lambda key: task.loss(model, batch, (), key)[0])
    sums = loss(None)
    logits = jax.jit(model)(batch["source"], batch["source_lengths"], batch["inputs"])
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_probs, batch["targets"][..., None], -1)[..., 0]
    weights = batch["weights"]
    np.testing.assert_allclose(sums["loss"], (-(chosen * weights).sum(), weights.sum()), rtol=1e-5)
    np.testing.assert_allclose(
        task.metrics(sums)["perplexity"], np.exp(-(chosen * weights).sum() / weights.sum()), rtol=1e-5
    )
    smoothed = 0.9 * chosen + 0.1 * log_probs.mean(-1)
    training = loss(jax.random.key(0))  # the model has no dropout
    np.testing.assert_allclose(training["loss"][0], -(smoothed * weights).sum(), rtol=1e-5)
    np.testing.assert_allclose(training["nats"][0], sums["nats"][0], rtol=1e-5)


def test_teacher_forced_loss_equals_log_probabilities_of_the_search(task, model):
    """The search and the loss assign the same probability to a translation."""
    source, lengths = np.array([[7, 9, END], [8, END, PADDING]]), np.array([3, 2])

    @jax.jit
    def search():
        read, state = model.encode(source, lengths)
        step = functools.partial(model.step, read)
        return beam_search(step, state, begin=BEGIN, end=END, length=6, width=2)

    found, loss = search(), jax.jit(lambda batch: task.loss(model, batch, (), None)[0])
    for row in range(2):
        n = int(found.lengths[row, 0])
        targets = np.asarray(found.symbols[row, :1])
        batch = {
            "source": source[row : row + 1],
            "source_lengths": lengths[row : row + 1],
            "inputs": np.concatenate([[[BEGIN]], targets[:, :-1]], axis=1),
            "targets": targets,
            "weights": (np.arange(6) < n)[None].astype(np.float32),
        }
        # Log-probabilities near zero are differences of logits and have the rounding errors of the logits.
        np.testing.assert_allclose(-loss(batch)["loss"][0], found.log_probabilities[row, 0], rtol=1e-5, atol=1e-5)


def test_translations_have_the_order_of_their_sources(task, model):
    lines = [*task.lines("validation", "de")[:6], "", "Zwei Männer"]
    found = task.translate(model, lines, 2)
    codes = [task.subwords[0].encode(line.lower()) for line in lines]
    assert [t.source.tolist() for t in found] == [c.tolist() for c in codes]
    assert all(END not in t.codes for t in found)
    assert [t.text for t in task.translate(model, lines[3:4] * 8, 2)] == [found[3].text] * 8
    assert [t.text for t in found] == [task.subwords[1].decode(t.codes) for t in found]


def test_scores_equal_sacrebleu(task, model, monkeypatch):
    references = task.lines("validation", "en")
    widths = []

    def translate(model, lines, beam_width):
        widths.append(beam_width)
        texts = [*references[:-1], "a dog ."]
        return [Translation(np.zeros(0), np.zeros(0), text) for text in texts]

    monkeypatch.setattr(task, "translate", translate)
    scores = task.scores(model, "validation")
    assert 90 < scores["bleu"] < 100
    assert 90 < scores["chrf"] < 100
    metrics = sacrebleu_metrics(True)
    for name, metric in metrics.items():
        expected = metric.corpus_score([*references[:-1], "a dog ."], [list(references)]).score
        assert scores[name] == pytest.approx(expected)
        assert metric.corpus_score(list(references), [[*references[:-1], "a dog ."]]).score != pytest.approx(expected)
    assert metrics["bleu"].corpus_score(list(references), [list(references)]).score == pytest.approx(100)
    assert str(metrics["bleu"].get_signature()).startswith("nrefs:1|case:lc|eff:no|tok:13a|smooth:exp|version:2")
    cased = sacrebleu_metrics(False)["bleu"]
    assert cased.corpus_score(["A DOG RUNS AWAY"], [["a dog runs away"]]).score < 1
    assert "case:mixed" in str(cased.get_signature())
    assert widths == [1]
    task._pairs["test"] = task.pairs("validation")
    task.scores(model, "test")
    assert widths == [1, 2]
    del task._pairs["test"]


def test_perplexity_of_a_diverged_run_is_finite(task):
    found = task.metrics({"loss": (4000.0, 2.0), "nats": (4000.0, 2.0)})
    assert found["loss"] == 2000
    assert 1e307 < found["perplexity"] < np.inf


def test_batches_have_little_padding():
    lengths = np.random.default_rng(0).integers(5, 40, 1000)
    edges = bucket_edges_by_growth(lengths, 64)
    counts = np.diff([0, *(int((lengths <= edge).sum()) for edge in edges)])
    assert edges[-1] == lengths.max()
    assert counts.sum() == 1000
    assert counts.min() >= 64
    assert (edges[1:] / edges[:-1]).min() >= 1.2
    assert bucket_edges_by_growth(lengths, 2000).tolist() == [lengths.max()]


def test_batch_of_two_pairs():
    batch = batch_of([(np.array([7, 8], np.int32), np.array([9], np.int32)), (np.zeros(0, np.int32),) * 2], 3)
    assert batch["source"].tolist() == [[7, 8, END], [END, PADDING, PADDING]]
    assert batch["source_lengths"].tolist() == [3, 1]
    assert batch["inputs"].tolist() == [[BEGIN, 9, END], [BEGIN, END, PADDING]]
    assert batch["targets"].tolist() == [[9, END, PADDING], [END, PADDING, PADDING]]
    assert batch["weights"].tolist() == [[1, 1, 0], [1, 0, 0]]


def test_vocabulary_larger_than_the_text_allows_raises(folder):
    task = Multi30k(dataclasses.replace(SMALL, vocabulary_size=50_000), folder)
    with pytest.raises(UserError, match=r"^task.vocabulary_size: expected one that the text allows, got 50000 \("):
        task.model(EncoderDecoderConfig(), nnx.Rngs(0))


def test_model_has_the_sizes_of_the_vocabularies(task, model):
    assert isinstance(model, EncoderDecoder)
    assert model.bias[...].shape == (160,)
    assert model.source_embedding.embedding[...].shape == (160, 4)
