"""Batches: coverage of the examples and dependence on seed and step."""

import itertools
from collections import Counter

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from experiments.data.batching import (
    Buckets,
    ParallelStreams,
    bucket_edges,
    endless_windows,
    epoch_batch,
    every_example_once,
    pad,
    permutation,
)


class TestEpochBatch:
    @given(st.integers(1, 30), st.integers(1, 50), st.integers(0, 9))
    def test_every_epoch_shows_every_example_once(self, num_examples, batch_size, seed):
        steps = -(-3 * num_examples // batch_size)
        seen = np.concatenate([epoch_batch(num_examples, batch_size, seed, step) for step in range(steps)])
        for epoch in range(3):
            shown = seen[epoch * num_examples : (epoch + 1) * num_examples]
            assert sorted(shown) == list(range(num_examples))

    def test_batches_do_not_depend_on_the_order_of_calls(self):
        forward = [epoch_batch(100, 7, 3, step) for step in range(40)]
        permutation.cache_clear()
        backward = [epoch_batch(100, 7, 3, step) for step in reversed(range(40))][::-1]
        np.testing.assert_array_equal(forward, backward)

    def test_orders_differ_between_epochs_and_seeds(self):
        orders = {tuple(permutation(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
        assert len(orders) == 25

    def test_order_is_the_same_in_every_process(self):
        assert epoch_batch(10, 5, 0, 0).tolist() == np.random.default_rng([0, 0]).permutation(10)[:5].tolist()

    @pytest.mark.parametrize("bad", [{"num_examples": 0}, {"batch_size": 0}, {"seed": -1}, {"step": -1}, {"step": 0.5}])
    def test_invalid_arguments_raise(self, bad):
        argument, value = next(iter(bad.items()))
        with pytest.raises(ValueError, match=f"{argument}: expected an integer of at least [01], got {value}"):
            epoch_batch(**({"num_examples": 3, "batch_size": 2, "seed": 0, "step": 0} | bad))


@given(st.integers(1, 30), st.integers(1, 50))
def test_evaluation_batches_have_one_shape_and_every_example_once(num_examples, batch_size):
    counted = []
    for indices, counts in every_example_once(num_examples, batch_size):
        assert indices.shape == counts.shape == (batch_size,)
        assert indices.max() < num_examples
        counted += indices[counts].tolist()
    assert counted == list(range(num_examples))


class TestEndlessWindows:
    def test_rows_continue_and_wrap_around(self):
        windows = [endless_windows(np.arange(10), 3, 4, seed=5, step=step) for step in range(6)]
        rows = np.concatenate([window[:, :-1] for window in windows], axis=1)
        assert rows.shape == (3, 24)
        assert (np.diff(rows, axis=1) % 10 == 1).all()
        for window, following in itertools.pairwise(windows):
            np.testing.assert_array_equal(window[:, -1], following[:, 0])

    def test_rows_start_evenly_spaced_at_a_seeded_offset(self):
        begins = np.array([endless_windows(np.arange(90), 3, 1, seed, 0)[:, 0] for seed in range(5)])
        assert (np.diff(begins, axis=1) % 90 == 30).all()
        assert len(set(begins[:, 0])) > 1


class TestParallelStreams:
    def test_windows_of_nine_symbols(self):
        stream = ParallelStreams(np.arange(10, 19), batch_size=2, num_steps=3)
        assert len(stream) == 2
        first, (inputs, targets, counts) = stream
        assert [array.tolist() for array in first[:2]] == [[[10, 11, 12], [14, 15, 16]], [[11, 12, 13], [15, 16, 17]]]
        assert first[2].all()
        assert inputs.tolist() == [[13, 0, 0], [17, 0, 0]]
        assert targets.tolist() == [[14, 0, 0], [18, 0, 0]]
        assert counts.tolist() == [[True, False, False], [True, False, False]]

    @given(st.integers(2, 60), st.integers(1, 7), st.integers(1, 9))
    def test_every_symbol_but_the_first_is_predicted_once(self, length, batch_size, num_steps):
        if length <= batch_size:
            return
        windows = list(ParallelStreams(np.arange(length), batch_size, num_steps))
        predicted = []
        for inputs, targets, counts in windows:
            assert inputs.shape == targets.shape == counts.shape == (batch_size, num_steps)
            assert (targets[counts] == inputs[counts] + 1).all()
            predicted += targets[counts].tolist()
        assert sorted(predicted) == list(range(1, length))
        for (_, before, _), (inputs, _, counts) in itertools.pairwise(windows):
            assert (inputs[:, 0] == before[:, -1])[counts[:, 0]].all()

    def test_invalid_symbols_raise(self):
        with pytest.raises(ValueError, match="symbols: expected at least 3 for one window, got 2"):
            ParallelStreams(np.arange(2), batch_size=2, num_steps=3)
        with pytest.raises(ValueError, match=r"symbols: expected integers \(N,\), got float64 \(6,\)"):
            ParallelStreams(np.ones(6), batch_size=1, num_steps=1)


class TestPadding:
    def test_sequences_are_padded_with_zeros(self):
        padded, lengths = pad([np.array([[1, 2]]), np.zeros((0, 2), int), np.array([[3, 4], [5, 6]])])
        assert padded.tolist() == [[[1, 2], [0, 0]], [[0, 0], [0, 0]], [[3, 4], [5, 6]]]
        assert lengths.tolist() == [1, 0, 2]
        assert pad([np.arange(2)], length=4)[0].tolist() == [[0, 1, 0, 0]]

    def test_invalid_sequences_raise(self):
        with pytest.raises(ValueError, match=r"sequences\[1\]: expected at most length=2 steps, got 3"):
            pad([np.arange(2), np.arange(3)], length=2)
        with pytest.raises(
            ValueError, match=r"sequences\[1\]: expected float64 \(T, 2\) like the first, got float64 \(1, 3\)"
        ):
            pad([np.ones((1, 2)), np.ones((1, 3))])
        with pytest.raises(ValueError, match=r"sequences\[1\]: expected float64 .* got int64"):
            pad([np.ones(1), np.ones(1, int)])
        with pytest.raises(ValueError, match="at least one"):
            pad([])


class TestBuckets:
    def test_edges_of_known_lengths(self):
        lengths = np.array([1, 2, 3, 4, 10, 11, 12, 40])
        assert bucket_edges(lengths, 2).tolist() == [4, 40]
        assert bucket_edges(lengths, 2, multiple=8).tolist() == [8, 40]
        assert bucket_edges(np.array([5, 5, 5]), 4).tolist() == [5]
        assert bucket_edges(np.array([0, 0, 3]), 2).tolist() == [1, 3]

    @given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 6))
    def test_epoch_contains_every_sequence_in_its_bucket(self, lengths, num_buckets, batch_size):
        lengths = np.array(lengths)
        edges = bucket_edges(lengths, num_buckets, multiple=4)
        buckets = Buckets(lengths, edges, batch_size, seed=1)
        for epoch in range(2):
            shown = Counter()
            for step in range(epoch * buckets.batches, (epoch + 1) * buckets.batches):
                indices, length = buckets.batch(step)
                assert indices.shape == (batch_size,)
                assert (lengths[indices] <= length).all()
                shorter = edges[edges < length]
                assert shorter.size == 0 or (lengths[indices] > shorter[-1]).all()
                shown.update(indices.tolist())
            assert set(shown) == set(range(len(lengths)))
            # Only the filling of last batches shows a sequence again.
            assert shown.total() - len(lengths) < batch_size * len(edges)

    def test_batches_differ_between_epochs_but_not_between_calls(self):
        lengths = np.arange(100)
        make = lambda: Buckets(lengths, bucket_edges(lengths, 4), 5, seed=0)  # noqa: E731
        one, two = make(), make()
        first, second = (
            [one.batch(epoch * one.batches + k)[0].tolist() for k in range(one.batches)] for epoch in (0, 1)
        )
        assert sorted(map(sorted, first)) != sorted(map(sorted, second))
        assert first == [two.batch(k)[0].tolist() for k in range(two.batches)]

    def test_buckets_are_shuffled_in_each_epoch(self):
        buckets = Buckets(np.arange(1, 31), np.arange(1, 31), batch_size=1, seed=0)
        first, second = ([buckets.batch(30 * epoch + k)[1] for k in range(30)] for epoch in (0, 1))
        assert sorted(first) == sorted(second) == list(range(1, 31))
        assert first != second

    def test_invalid_arguments_raise(self):
        with pytest.raises(ValueError, match="lengths: expected at most the last edge 4, got 5"):
            Buckets(np.array([5]), np.array([4]), 1, 0)
        with pytest.raises(ValueError, match="lengths: expected at least one"):
            Buckets(np.array([], int), np.array([4]), 1, 0)
