"""Trivial baselines by hand, for two keys and three characters."""

import json
import math
import pathlib

import numpy as np
import pytest

from experiments.reporting import published
from experiments.studies.trivial_baselines import (
    character_after_character,
    character_frequency,
    key_after_key,
    key_frequency,
    majority,
)
from experiments.tasks.images.digits import Digits, DigitsConfig

RESULTS = pathlib.Path(__file__).parents[3] / "experiments" / "results"
TRAIN = [np.array([[0, 1], [1, 1], [1, 0], [0, 0]])]
TEST = [np.array([[1, 0], [1, 1]])]


def test_key_frequency_by_hand():
    # After the first step, key 0 sounds in two of three steps, key 1 in one; both counts are increased by one half.
    assert key_frequency(TRAIN, TEST) == pytest.approx(-math.log(2.5 / 4) - math.log(1.5 / 4))


def test_key_after_key_by_hand():
    # Key 0 was on twice and sounded once at the next step; key 1 was off once and remained off.
    assert key_after_key(TRAIN, TEST) == pytest.approx(-math.log(1.5 / 3) - math.log(0.5 / 2))


def test_nats_are_averaged_over_the_steps_of_all_pieces():
    assert key_frequency(TRAIN, [*TEST, *TEST]) == pytest.approx(key_frequency(TRAIN, TEST))
    longer = np.array([[1, 0], [1, 1], [1, 1]])
    assert key_frequency(TRAIN, [longer]) == pytest.approx(key_frequency(TRAIN, TEST))


def test_character_frequency_by_hand():
    train, test = np.array([0, 0, 1, 0]), np.array([2, 0, 1])
    assert character_frequency(train, test, 3) == pytest.approx(-(math.log(4 / 7) + math.log(2 / 7)) / 2)


def test_character_after_character_by_hand():
    train, test = np.array([0, 0, 1, 0]), np.array([2, 0, 1])
    assert character_after_character(train, test, 3) == pytest.approx(-(math.log(1 / 3) + math.log(2 / 5)) / 2)


def test_most_frequent_digit_has_ten_percent_accuracy():
    assert majority(Digits(DigitsConfig(), None)) == pytest.approx(10, abs=1)


def test_recorded_baselines_match_published_toml():
    recorded = json.loads((RESULTS / "studies" / "trivial_baselines.json").read_text())["scores"]
    named = {trivial.study for row in published.read(RESULTS).rows.values() for trivial in row.trivial if trivial.study}
    assert named == set(recorded)
