"""Programs are timed side by side, and only if they agree; the tests control the clock."""

import jax
import numpy as np
import pytest

from experiments.benchmarks.harness import Candidate, Program, check, distance, interleave, measure
from experiments.benchmarks.settings import Sizes
from experiments.schema import UserError

REFERENCE = {"W_r": np.array([3.0, 4.0]), "b_r": np.array([1.0])}


def program(outcome, precision="float32", call=lambda: None):
    return Program("peer", precision, call=call, outcome=lambda: outcome)


def test_distance_is_the_largest_of_all_arrays():
    error, name = distance({"W_r": np.array([3.0, 4.5]), "b_r": np.array([1.01])}, REFERENCE)
    assert name == "W_r"
    assert error == pytest.approx(0.1)


@pytest.mark.parametrize(
    "outcome",
    [
        {"W_r": np.array([3.0, 4.0])},
        {**REFERENCE, "b_hn": np.array([0.0])},
        {**REFERENCE, "b_r": np.array([[1.0]])},
        {**REFERENCE, "b_r": np.array([np.nan])},
    ],
)
def test_distance_is_infinite_for_missing_unexpected_misshapen_or_nonfinite_arrays(outcome):
    assert distance(outcome, REFERENCE)[0] == np.inf


def test_tolerance_depends_on_the_precision():
    off = {**REFERENCE, "b_r": np.array([1.01])}
    assert check(program(off, "bfloat16"), REFERENCE) == pytest.approx(0.01)
    with pytest.raises(UserError, match=r"peer float32: expected b_r within 0\.0001 .* not timed"):
        check(program(off), REFERENCE)


def test_tolerance_on_a_gpu_allows_tensorfloat32(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert check(program({**REFERENCE, "b_r": np.array([1.005])}), REFERENCE) == pytest.approx(0.005)
    with pytest.raises(UserError, match=r"expected b_r within 0\.006 "):
        check(program({**REFERENCE, "b_r": np.array([1.01])}), REFERENCE)


def test_nothing_is_timed_if_one_program_disagrees():
    called = []
    good = program(REFERENCE, call=lambda: called.append(1))
    bad = program({**REFERENCE, "b_r": np.array([2.0])})
    with pytest.raises(UserError, match="not timed"):
        measure(Sizes(1, 1, 1, 1), "gradient", "after", [Candidate(p, REFERENCE) for p in (good, bad)], 0.0, 1)
    assert called == []


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_programs_are_interleaved_and_pauses_are_not_timed():
    clock, order = Clock(), []

    def program(name, seconds):
        def call():
            order.append(name)
            clock.now += seconds

        return call

    def pause():
        clock.now += 100.0

    timings = interleave([program("a", 0.002), program("b", 0.005)], 0.0, min_rounds=3, clock=clock, pause=pause)
    assert order == ["a", "b"] * 5  # two warm-up rounds
    assert [round(t.median, 6) for t in timings] == [2.0, 5.0]
    assert [t.rounds for t in timings] == [3, 3]


def test_rounds_are_repeated_for_the_given_time_and_the_median_is_reported():
    clock, durations = Clock(), iter([1.0, 1.0, 9.0, 1.0, 1.0, 9.0])

    def call():
        clock.now += next(durations)

    (timing,) = interleave([call], 3.5, min_rounds=1, warm_up=2, clock=clock, pause=lambda: None)
    assert timing.rounds == 1  # the first round exceeded the given time
    assert timing.median == 9000.0

    clock, durations = Clock(), iter([1.0, 9.0, 1.0, 1.0])
    (timing,) = interleave([call], 10.5, min_rounds=1, warm_up=0, clock=clock, pause=lambda: None)
    assert (timing.rounds, timing.median, timing.minimum) == (3, 1000.0, 1000.0)
