"""The adding problem as in its paper."""

import numpy as np

from experiments.tasks.synthetic.adding import Adding, AddingConfig, draw


def test_targets_are_the_sum_of_one_marked_number_in_each_half():
    batch = draw(np.random.default_rng(0), 500, 9)
    numbers, markers = batch["xs"][..., 0], batch["xs"][..., 1]
    np.testing.assert_array_equal(markers[:, :4].sum(axis=1), 1)
    np.testing.assert_array_equal(markers[:, 4:].sum(axis=1), 1)
    np.testing.assert_allclose((numbers * markers).sum(axis=1), batch["targets"], rtol=1e-6)
    assert (markers.sum(axis=0) > 0).all()
    assert numbers.min() >= 0
    assert numbers.max() < 1


def test_predicting_one_has_an_error_of_one_sixth():
    task = Adding(AddingConfig(length=20, eval_count=4000), None)
    targets = np.concatenate([batch["targets"] for batch in task.eval_batches("test")])
    assert abs(np.square(targets - 1).mean() - 1 / 6) < 0.01


def test_splits_differ():
    task = Adding(AddingConfig(length=5, eval_count=50), None)
    first = {split: next(iter(task.eval_batches(split)))["xs"][:4] for split in ("train", "validation", "test")}
    assert not np.allclose(first["validation"], first["test"])
    assert not np.allclose(first["train"], first["test"])
    assert task.result_name == "adding_5"


def test_every_split_has_eval_count_sequences():
    task = Adding(AddingConfig(length=5, eval_count=50, batch_size=16), None)
    for split in ("train", "validation", "test"):
        assert sum(batch["weights"].sum() for batch in task.eval_batches(split)) == 50
    (first, *_), expected = task.eval_batches("train"), task.train_batch(0, 0)
    for name, array in expected.items():
        np.testing.assert_array_equal(first[name], array)
