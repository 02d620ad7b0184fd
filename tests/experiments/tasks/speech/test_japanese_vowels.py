"""Japanese Vowels: splits, padding, reading of `.ts` files."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.classifier import ClassifierConfig
from experiments.tasks.speech import japanese_vowels
from experiments.tasks.speech.japanese_vowels import JapaneseVowels, JapaneseVowelsConfig


@pytest.fixture(scope="module")
def task(data_dir):
    return JapaneseVowels(JapaneseVowelsConfig(noise=0.5), str(data_dir))


def test_splits_have_the_documented_sizes(task):
    counts = {name: np.bincount(split["labels"]).tolist() for name, split in task.splits.items()}
    assert counts["train"] == [25] * 9
    assert counts["validation"] == [5] * 9
    assert counts["test"] == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    assert task.splits["test"]["lengths"].max() == 29
    train = task.splits["train"]
    real = np.arange(29) < train["lengths"][:, None]
    np.testing.assert_allclose(train["xs"][real].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(train["xs"][real].std(axis=0), 1, atol=1e-5)
    assert not train["xs"][~real].any()


def test_training_can_include_the_validation_split(data_dir):
    task = JapaneseVowels(JapaneseVowelsConfig(train_on_validation=True), str(data_dir))
    assert not task.scoring.selects
    assert len(task.train_examples["labels"]) == 270
    batch, rows = task.train_batch(0, 4), task.batch_indices(0, 4)
    np.testing.assert_array_equal(batch["xs"], task.train_examples["xs"][rows])


@pytest.mark.parametrize("readout", ["last", "mean"])
def test_padding_changes_neither_logits_nor_gradients(task, readout):
    model = task.model(ClassifierConfig(hidden_size=4, bidirectional=True, readout=readout), nnx.Rngs(0))
    batch = task.train_batch(0, 0)
    real = (np.arange(29) < batch["lengths"][:, None])[..., None]
    assert (batch["xs"][~real[..., 0]] != 0).any()  # noise is also added to the padding
    loss = jax.jit(jax.value_and_grad(lambda m, b: task.loss(m, b, (), None)[0]["loss"][0]))
    found = [loss(model, batch | {"xs": np.where(real, batch["xs"], np.float32(filling))}) for filling in (0.0, 1e3)]
    jax.tree.map(np.testing.assert_array_equal, *found)


HEAD = "#Paper: any\n@problemName x\n@data\n"


def written(tmp_path, lines):
    path = tmp_path / "x_TRAIN.ts"
    path.write_text(HEAD + lines)
    return path


def test_ts_file_is_read(tmp_path):
    sequences, labels = japanese_vowels.read(written(tmp_path, "1,2,3:4,5,6:a\n7.5:-8:b\n"))
    np.testing.assert_array_equal(sequences[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(sequences[1], [[7.5, -8]])
    assert labels == ["a", "b"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("1,2:3:a\n", "x_TRAIN.ts:4: expected channels of equal length"),
        ("1,x:3,4:a\n", "x_TRAIN.ts:4: expected channels of equal length"),
        ("1:2:a\n\n1:2:3:a\n", "x_TRAIN.ts:6: expected the number of channels of the first line of data"),
        ("1,nan:3,4:a\n", "x_TRAIN.ts:4: expected finite numbers"),
        ("", "x_TRAIN.ts: expected sequences after a line @data, got none"),
    ],
)
def test_invalid_files_raise(tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        japanese_vowels.read(written(tmp_path, lines))
