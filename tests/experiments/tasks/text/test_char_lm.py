"""Character language modeling: splits, streams, the carried state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.text.char_lm import CharLM, CharLMConfig
from experiments.tasks.text.model import LanguageModel, LanguageModelConfig

TEXT = "".join(chr(97 + (i * i) % 23) for i in range(1003))


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(TEXT)
    return str(path)


def make(text_file, **options):
    return CharLM(
        CharLMConfig(text_file=text_file, **{"length": 10, "batch_size": 4, "validation_streams": 3} | options), None
    )


def text_of(task, codes):
    return task.vocabulary.decode(codes)


def test_tiny_shakespeare_has_the_documented_splits(data_dir):
    task = CharLM(CharLMConfig(), str(data_dir))
    assert task.result_name == "tiny_shakespeare"
    assert len(task.vocabulary) == 65
    assert {name: len(codes) for name, codes in task.splits.items()} == {
        "train": 953_661,
        "validation": 50_193,
        "test": 111_540,
    }


def test_splits_are_consecutive_parts_of_the_text(text_file):
    task = make(text_file)
    assert "".join(text_of(task, task.splits[name]) for name in ("train", "validation", "test")) == TEXT
    assert len(task.splits["test"]) == 1003 - 902
    assert task.result_name == "char_lm_mine"


def test_training_on_validation_data_selects_no_checkpoint(text_file):
    chosen, last = make(text_file), make(text_file, train_on_validation=True)
    assert chosen.scoring.selects
    assert not last.scoring.selects
    for task, names in ((chosen, ("train",)), (last, ("train", "validation"))):
        text = "".join(text_of(task, task.splits[name]) for name in names)
        assert text_of(task, task.train_examples) == text
        read = "".join(text_of(task, task.train_batch(0, step)["inputs"][0]) for step in range(len(text) // 10 + 1))
        assert set(read) == set(text)
        assert read[: len(text)] in text + text
    np.testing.assert_array_equal(last.splits["test"], chosen.splits["test"])


def test_rows_continue_where_they_stopped(text_file):
    task = make(text_file)
    train = text_of(task, task.splits["train"])
    for row in range(4):
        read = "".join(text_of(task, task.train_batch(5, step)["inputs"][row]) for step in range(200))
        start = (train + train).index(read[: len(train)])
        assert read == ((train * 4)[start:])[: len(read)]
    batch = task.train_batch(5, 7)
    np.testing.assert_array_equal(batch["inputs"][:, 1:], batch["targets"][:, :-1])


@pytest.mark.parametrize(("split", "streams"), [("validation", 3), ("test", 1)])
def test_evaluation_predicts_every_character_but_the_first_once(text_file, split, streams):
    task = make(text_file)
    batches = list(task.eval_batches(split))
    inputs, targets, weights = (
        np.concatenate([batch[name] for batch in batches], axis=1) for name in ("inputs", "targets", "weights")
    )
    assert len(inputs) == streams
    part = text_of(task, task.splits[split])
    assert "".join(text_of(task, row[real > 0]) for row, real in zip(inputs, weights, strict=True)) == part[:-1]
    assert "".join(text_of(task, row[real > 0]) for row, real in zip(targets, weights, strict=True)) == part[1:]


def test_state_is_carried_over_batches(text_file):
    task = make(text_file)
    model = task.model(LanguageModelConfig(hidden_size=6, embedding_size=4), nnx.Rngs(0))
    carry = task.initial_carry(model, 4)
    total = 0.0
    for step in range(3):
        sums, carry = task.loss(model, task.train_batch(0, step), carry, None)
        total += sums["loss"][0]
    inputs, targets = (
        np.concatenate([task.train_batch(0, step)[n] for step in range(3)], 1) for n in ("inputs", "targets")
    )
    whole = {"inputs": inputs, "targets": targets, "weights": np.ones((4, 30), np.float32)}
    expected, _ = task.loss(model, whole, task.initial_carry(model, 4), None)
    np.testing.assert_allclose(total, expected["loss"][0], rtol=1e-5)


def test_padding_has_no_weight_and_bits_are_nats_over_log_two(text_file):
    task = make(text_file)
    model = task.model(LanguageModelConfig(hidden_size=6, embedding_size=4), nnx.Rngs(0))
    batch = task.train_batch(0, 0)
    first = {name: array[:, :4] for name, array in batch.items()}
    padded = batch | {"weights": np.repeat([[1.0] * 4 + [0.0] * 6], 4, axis=0).astype(np.float32)}
    (total, count), (expected, _) = (
        task.loss(model, b, task.initial_carry(model, 4), None)[0]["loss"] for b in (padded, first)
    )
    assert count == 16
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    found = task.metrics({"loss": (6.0, 2.0)})
    assert found == {"loss": 3.0, "nats_per_char": 3.0, "bits_per_char": pytest.approx(4.328085)}


@pytest.mark.parametrize(("cell", "zoneout"), [("gru", 0.0), ("gru", 0.4), ("lstm", 0.4), ("elman", 0.0)])
def test_single_steps_equal_unrolling(cell, zoneout):
    config = LanguageModelConfig(cell=cell, hidden_size=6, embedding_size=4, num_layers=2, zoneout=zoneout)
    model = LanguageModel(config, 11, nnx.Rngs(0))
    symbols = jax.random.randint(jax.random.key(1), (3, 5), 0, 11)

    @jax.jit
    def both():
        state, streamed = model.initial_state(3), []
        for t in range(5):
            logits, state = model.step(symbols[:, t], state)
            streamed.append(logits)
        return (jnp.stack(streamed, axis=1), state), model(symbols)

    streamed, unrolled = both()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), streamed, unrolled)


def test_tied_weights_share_one_array():
    model = LanguageModel(LanguageModelConfig(hidden_size=6, embedding_size=6, tied=True), 11, nnx.Rngs(0))
    shapes = [leaf.shape for leaf in jax.tree.leaves(nnx.to_pure_dict(nnx.state(model)))]
    assert sorted(shapes) == sorted([(11, 6), (6, 18), (6, 18), (18,)])
    ys = jax.random.normal(jax.random.key(0), (2, 6))
    np.testing.assert_allclose(model.logits(ys), jnp.matmul(ys, model.embedding.embedding[...].T), rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, {}, r"task.text_file: expected a readable file, got '.*none.txt' \(No such file or directory\)"),
        (b"\xff" * 200, {}, r"task.text_file: .*:1: expected UTF-8 text, got byte 0xff"),
        (b"short", {}, r"task.text_file: expected at least 100 characters, got 5"),
        (TEXT.encode(), {"length": 857}, r"task.length: expected at most 855, for a text of 1003 characters, got 857"),
        (TEXT.encode(), {"batch_size": 857}, r"task.batch_size: expected at most 856"),
        (TEXT.encode(), {"validation_streams": 46}, r"task.validation_streams: expected at most 45"),
    ],
)
def test_unusable_text_raises(tmp_path, content, options, message):
    path = tmp_path / "none.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        make(str(path), **options)
