"""The order of examples, and padding."""

import numpy as np

from experiments.tasks.base import epoch_rows, mean, padded_batches


def test_every_example_comes_once_an_epoch_in_an_order_of_its_own():
    # 10 examples in batches of 4: epochs end within batches.
    rows = np.concatenate([epoch_rows(1, step, 4, 10) for step in range(10)])
    epochs = rows.reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_as_large_as_the_data_is_a_whole_epoch():
    assert sorted(epoch_rows(0, 3, 10, 10)) == list(range(10))


def test_padding_has_no_weight():
    first, second = padded_batches({"xs": np.arange(5), "labels": np.arange(5) * 10}, 3)
    np.testing.assert_array_equal(first["xs"], [0, 1, 2])
    np.testing.assert_array_equal(second["weights"], [1, 1, 0])
    np.testing.assert_array_equal(second["labels"][:2], [30, 40])


def test_mean_of_nothing_is_no_number():
    assert mean({"loss": (6.0, 4.0)}, "loss") == 1.5
    assert np.isnan(mean({"loss": (0.0, 0.0)}, "loss"))
