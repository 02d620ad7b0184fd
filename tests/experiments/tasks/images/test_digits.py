"""The splits of the digits and their layouts in time."""

import numpy as np

from experiments.tasks.images.digits import Digits, DigitsConfig, load_splits, shifted


def test_splits_are_disjoint_stratified_and_complete():
    splits = load_splits()
    assert {name: len(labels) for name, (_, labels) in splits.items()} == {
        "train": 1257,
        "validation": 180,
        "test": 360,
    }
    images = np.concatenate([images for images, _ in splits.values()]).reshape(1797, -1)
    assert len(np.unique(images, axis=0)) == 1797
    for _, labels in splits.values():
        shares = np.bincount(labels, minlength=10) / len(labels)
        assert abs(shares - 0.1).max() < 0.01


def test_split_is_fixed():
    # Published results depend on the split. These are the first labels of each part.
    heads = {name: labels[:8].tolist() for name, (_, labels) in load_splits().items()}
    assert heads == {
        "train": [9, 1, 7, 5, 5, 2, 9, 4],
        "validation": [7, 4, 7, 6, 0, 0, 5, 6],
        "test": [7, 6, 3, 7, 7, 3, 2, 8],
    }


def test_pixels_and_rows_are_layouts_of_the_same_image():
    pixels = next(iter(Digits(DigitsConfig(layout="pixels"), None).eval_batches("test")))
    rows = next(iter(Digits(DigitsConfig(layout="rows"), None).eval_batches("test")))
    assert pixels["xs"].shape == (180, 64, 1)
    assert rows["xs"].shape == (180, 8, 8)
    np.testing.assert_array_equal(pixels["xs"].reshape(180, 64), rows["xs"].reshape(180, 64))


def test_epoch_contains_every_training_image_once():
    task = Digits(DigitsConfig(layout="pixels", batch_size=419), None)  # three batches per epoch
    batches = [task.train_batch(5, step) for step in range(3)]
    rows = np.concatenate([task.batch_indices(5, step) for step in range(3)])
    images, labels = load_splits()["train"]
    np.testing.assert_array_equal(np.sort(rows), np.arange(1257))
    np.testing.assert_array_equal(np.concatenate([b["xs"] for b in batches]), images[rows].reshape(1257, 64, 1))
    np.testing.assert_array_equal(np.concatenate([b["labels"] for b in batches]), labels[rows])


def test_shifts_move_images_and_fill_with_black():
    image = np.zeros((200, 8, 8), np.float32)
    image[:, 3, 4] = 1.0
    moved = shifted(image, 1, np.random.default_rng(0))
    places = {tuple(np.argwhere(one)[0]) for one in moved}
    assert places == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}
    np.testing.assert_array_equal(moved.sum(axis=(1, 2)), 1.0)
    corner = np.zeros((50, 8, 8), np.float32)
    corner[:, 0, 0] = 1.0
    assert set(shifted(corner, 2, np.random.default_rng(0)).sum(axis=(1, 2))) == {0.0, 1.0}


def test_shifts_depend_on_seed_and_step():
    task = Digits(DigitsConfig(shift=2), None)
    images, labels = task.splits["train"]
    task.splits = {"train": (np.repeat(images[:1], len(images), axis=0), labels)}
    one, other, again = (task.train_batch(*at)["xs"] for at in ((0, 0), (0, 1), (1, 0)))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, again)
