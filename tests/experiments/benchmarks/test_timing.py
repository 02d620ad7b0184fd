"""Timing side by side, by a clock that the test turns."""

from experiments.benchmarks.timing import interleave


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_programs_take_turns_and_are_charged_their_own_time():
    clock, order = Clock(), []

    def program(name, seconds):
        def call():
            order.append(name)
            clock.now += seconds

        return call

    def pause():
        clock.now += 100.0  # What goes by between calls is nobody's time.

    timings = interleave([program("a", 0.002), program("b", 0.005)], 0.0, least_rounds=3, clock=clock, pause=pause)
    assert order == ["a", "b"] * 5  # two rounds to warm up
    assert [round(t.median, 6) for t in timings] == [2.0, 5.0]
    assert [t.rounds for t in timings] == [3, 3]


def test_rounds_go_on_for_the_time_given_and_the_median_is_reported():
    clock, durations = Clock(), iter([1.0, 1.0, 9.0, 1.0, 1.0, 9.0])

    def call():
        clock.now += next(durations)

    (timing,) = interleave([call], 3.5, least_rounds=1, warm_up=2, clock=clock, pause=lambda: None)
    assert timing.rounds == 1  # the first round took longer than the time given
    assert timing.median == 9000.0

    clock, durations = Clock(), iter([1.0, 9.0, 1.0, 1.0])
    (timing,) = interleave([call], 10.5, least_rounds=1, warm_up=0, clock=clock, pause=lambda: None)
    assert (timing.rounds, timing.median, timing.minimum) == (3, 1000.0, 1000.0)
