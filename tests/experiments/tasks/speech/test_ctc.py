"""CTC decoding against the enumeration of all paths; error rates against counts."""

import collections
import itertools
import math

import numpy as np
import pytest

from experiments.tasks.speech.ctc import BLANK, error_rates, greedy, log_add, prefix_beam


def random_log_probs(seed, T, V, sharpness=1.0):
    logits = sharpness * np.random.default_rng(seed).standard_normal((T, V))
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def labelling(path):
    return tuple(label for label, _ in itertools.groupby(path) if label != BLANK)


def all_labellings(log_probs):
    """Returns the probability of every labeling: the sum over its paths."""
    T, V = log_probs.shape
    probabilities = collections.Counter()
    for path in itertools.product(range(V), repeat=T):
        probabilities[labelling(path)] += math.exp(sum(log_probs[t, label] for t, label in enumerate(path)))
    return probabilities


@pytest.mark.parametrize(("T", "V"), [(1, 2), (4, 3), (5, 3), (3, 5)])
def test_wide_beams_are_exact(T, V):
    log_probs = random_log_probs(T, T, V)
    expected = all_labellings(log_probs)
    found = prefix_beam(log_probs, width=V**T)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0][0] == max(expected, key=lambda one: expected[one])
    found = {labels: score for labels, score in found if score > -math.inf}
    assert found.keys() == expected.keys()
    for labels, probability in expected.items():
        assert math.exp(found[labels]) == pytest.approx(probability, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_greedy_returns_the_labeling_of_the_most_likely_path(seed):
    log_probs = random_log_probs(seed, 5, 4)
    paths = itertools.product(range(4), repeat=5)
    best = max(paths, key=lambda path: sum(log_probs[t, label] for t, label in enumerate(path)))
    assert tuple(greedy(log_probs)) == labelling(best)


@pytest.mark.parametrize("seed", range(5))
def test_width_one_equals_greedy_for_confident_frames(seed):
    rng = np.random.default_rng(seed)
    sure = rng.integers(0, 4, 40)
    probabilities = rng.dirichlet(np.ones(4), 40) * 0.1
    probabilities[np.arange(40), sure] += 0.9
    ((labels, _),) = prefix_beam(np.log(probabilities), width=1)
    assert list(labels) == greedy(np.log(probabilities)) == list(labelling(sure))


def test_many_unlikely_paths_outweigh_the_most_likely_one():
    # Graves' example: the blank twice has 0.36, yet "1" has 0.4 * 0.6 + 0.6 * 0.4 + 0.4 * 0.4 = 0.64.
    log_probs = np.log([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(log_probs) == []
    (best, score), *_ = prefix_beam(log_probs, width=2)
    assert best == (1,)
    assert math.exp(score) == pytest.approx(0.64)


def test_repeated_labels_need_a_blank():
    sure = np.log(np.array([[1e-9, 1.0], [1.0, 1e-9], [1e-9, 1.0]]))
    assert greedy(sure) == [1, 1]
    assert prefix_beam(sure, width=3)[0][0] == (1, 1)
    together = sure[[0, 2]]
    assert greedy(together) == [1]
    assert prefix_beam(together, width=3)[0][0] == (1,)


@pytest.mark.parametrize("seed", range(3))
def test_pruning_unlikely_labels_changes_little(seed):
    log_probs = random_log_probs(seed, 30, 8, sharpness=4.0)
    (whole, score), *_ = prefix_beam(log_probs, width=8)
    (pruned, bound), *_ = prefix_beam(log_probs, width=8, least_log_prob=math.log(1e-4))
    assert pruned == whole
    assert score - 0.05 < bound <= score
    ((none, _),) = prefix_beam(log_probs, width=8, least_log_prob=0.1)
    assert none == ()


def test_wider_beams_are_no_worse_and_no_frames_give_no_text():
    log_probs = random_log_probs(0, 12, 5)
    scores = [prefix_beam(log_probs, width)[0][1] for width in (1, 4, 16, 64)]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]
    assert prefix_beam(np.zeros((0, 5)), width=3) == [((), 0.0)]
    assert greedy(np.zeros((0, 5))) == []
    with pytest.raises(ValueError, match="width: expected at least 1, got 0"):
        prefix_beam(log_probs, 0)


def test_log_add():
    assert log_add(math.log(0.2), math.log(0.3)) == pytest.approx(math.log(0.5))
    assert log_add(-math.inf, -1.0) == log_add(-1.0, -math.inf) == -1.0
    assert log_add(-math.inf, -math.inf) == -math.inf
    assert log_add(-1000.0, 0.0) == 0.0


def test_error_rates_are_of_all_utterances_together():
    # Words: 1 substitution of 3, 1 deletion of 1. Characters: 1 of 8 with the spaces, 2 of 2.
    rates = error_rates(["A BB CCC", "GO"], ["A BX CCC", ""])
    assert rates == {"wer": pytest.approx(100 * 2 / 4), "cer": pytest.approx(100 * 3 / 10)}


def test_insertions_are_errors():
    assert error_rates(["GO"], ["GO NO GO"]) == {"wer": pytest.approx(200.0), "cer": pytest.approx(300.0)}
    assert error_rates(["YES", "NO"], ["YES", "NO"]) == {"wer": 0.0, "cer": 0.0}
