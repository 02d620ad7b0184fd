"""Subword vocabularies of a small text."""

import math

import numpy as np
import pytest

from experiments.tasks.translation.subwords import BEGIN, END, PADDING, UNKNOWN, Subwords

LINES = ["zwei männer stehen am herd", "ein mann steht am see", "zwei hunde stehen im schnee", "der see ist kalt"] * 5


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(LINES, 32)


def test_training_is_deterministic_and_bytes_restore_the_vocabulary(subwords):
    assert Subwords.train(iter(LINES), 32).model == subwords.model
    assert len(subwords) == 32
    rebuilt = Subwords(subwords.model)
    for line in LINES[:4]:
        codes = subwords.encode(line)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(rebuilt.encode(line), codes)
        assert rebuilt.decode(codes) == line


def test_control_symbols_are_not_decoded(subwords):
    codes = subwords.encode("am see")
    assert not set(codes.tolist()) & {PADDING, BEGIN, END, UNKNOWN}
    assert subwords.decode([BEGIN, *codes, END, PADDING]) == "am see"
    assert UNKNOWN in subwords.encode("am β")
    assert "".join(subwords.pieces(codes)) == "▁am▁see"


def test_segmentations_are_sampled_with_their_probabilities(subwords):
    def log_probability(codes):
        return sum(subwords._processor.get_score(int(code)) for code in codes)

    rng, counts = np.random.default_rng(0), {}
    for _ in range(3000):
        codes = tuple(subwords.sample("herd", 0.4, rng).tolist())
        assert subwords.decode(codes) == "herd"
        counts[codes] = counts.get(codes, 0) + 1
    assert len(counts) > 1
    likelihoods = {codes: math.exp(0.4 * log_probability(codes)) for codes in counts}
    for codes, likelihood in likelihoods.items():
        expected = 3000 * likelihood / sum(likelihoods.values())
        assert abs(counts[codes] - expected) < 5 * math.sqrt(expected) + 1, subwords.pieces(codes)


def test_sharp_samples_are_the_most_likely_segmentation(subwords):
    line = "zwei männer stehen"
    np.testing.assert_array_equal(subwords.sample(line, 200.0, np.random.default_rng(0)), subwords.encode(line))
    first, again = (subwords.sample(line, 0.1, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    drawn = subwords.sample(line, 0.1, np.random.default_rng(3))
    assert subwords.decode(drawn) == line
    assert len(subwords.sample("", 0.5, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("size", [5, 5000])
def test_size_that_the_text_does_not_allow_raises(size):
    with pytest.raises(ValueError, match=rf"size: expected one that the text allows, got {size} \(\S.*\)$"):
        Subwords.train(LINES, size)
