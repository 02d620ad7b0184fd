"""Sequential MNIST and the IDX format."""

import gzip

import numpy as np
import pytest

from experiments.schema import UserError
from experiments.tasks.images import mnist
from experiments.tasks.images.mnist import MNIST, ORDER, MNISTConfig


@pytest.fixture(scope="module")
def tasks(data_dir):
    return {permuted: MNIST(MNISTConfig(permuted=permuted), str(data_dir)) for permuted in (False, True)}


def test_splits_have_the_documented_sizes(tasks):
    task = tasks[False]
    assert {name: len(labels) for name, (_, labels) in task.splits.items()} == {
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert task.splits["train"][1][:6].tolist() == [5, 0, 4, 1, 9, 2]
    assert task.splits["test"][1][:6].tolist() == [7, 2, 1, 0, 4, 1]
    assert (tasks[False].result_name, tasks[True].result_name) == ("smnist", "psmnist")


def test_permutation_is_fixed(tasks):
    # Published results depend on the permutation.
    assert ORDER[:8].tolist() == [318, 2, 606, 446, 758, 13, 98, 539]
    assert sorted(ORDER) == list(range(784))
    plain, permuted = (tasks[which].train_batch(0, 3) for which in (False, True))
    np.testing.assert_array_equal(permuted["pixels"], plain["pixels"][:, ORDER])
    np.testing.assert_array_equal(permuted["labels"], plain["labels"])


def test_batch_contains_the_images_of_its_indices(tasks):
    images, labels = tasks[False].splits["train"]
    rows = tasks[False].batch_indices(1, 2)
    batch = tasks[False].train_batch(1, 2)
    np.testing.assert_array_equal(batch["pixels"], images[rows])
    np.testing.assert_array_equal(batch["labels"], labels[rows])


def written(tmp_path, content):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def test_idx_file_is_read(tmp_path):
    path = written(tmp_path, [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])
    np.testing.assert_array_equal(mnist.read(path), [[1, 2, 3], [4, 5, 255]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([0, 0, 13, 1, 0, 0, 0, 1, 5], "expected an IDX file of unsigned bytes, got one that starts with 00000d01"),
        ([0, 0, 8, 1, 0, 0, 0, 3, 5], r"expected 3 numbers of shape \(3,\), got 1"),
    ],
)
def test_other_files_raise(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        mnist.read(written(tmp_path, content))
