"""The Penn Treebank against its published statistics."""

import numpy as np
import pytest

from experiments.tasks.text.ptb_char import PTBChar, PTBCharConfig


@pytest.fixture(scope="module")
def task(data_dir):
    return PTBChar(PTBCharConfig(), str(data_dir))


def test_parts_have_the_published_sizes(task):
    assert {name: len(codes) for name, codes in task.splits.items()} == {
        "train": 5_017_482,
        "validation": 393_042,
        "test": 442_423,
    }
    assert len(task.vocabulary) == 50
    assert set(np.unique(task.splits["train"])) == set(range(50))
    assert task.result_name == "ptb_char"


def test_spaces_are_restored(task):
    text = task.vocabulary.decode(task.splits["validation"][:80])
    assert text == "consumers may want to move their telephones a little closer to the tv set\n<unk> "


def test_validation_and_test_parts_are_split_into_streams(task):
    for split in ("validation", "test"):
        batches = list(task.eval_batches(split))
        assert {batch["inputs"].shape for batch in batches} == {(16, 1000)}
        assert sum(batch["weights"].sum() for batch in batches) == len(task.splits[split]) - 1
