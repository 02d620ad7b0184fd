"""Side by side: A B C A B C ..., so that what disturbs the machine disturbs all alike."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

SLICE, LONGEST_PAUSE, QUIET = 0.005, 0.1, 0.1


class Timing(NamedTuple):
    """The times of one program's rounds, in milliseconds."""

    median: float
    minimum: float
    rounds: int


def interleave(
    calls: Sequence[Callable[[], Any]],
    seconds: float,
    least_rounds: int = 5,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[], None] | None = None,
) -> list[Timing]:
    """Times calls round by round.

    Args:
      calls: each does its work and waits for the end.
      seconds: how long to go on.
      least_rounds: how many rounds to make however long they take.
      warm_up: how many rounds to make before the clock runs.
      clock: seconds.
      pause: waits, after each call, for what it leaves running; None for `settle`.

    Returns:
      a Timing for each call.
    """
    pause = settle if pause is None else pause
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    end = clock() + seconds
    while len(times[0]) < least_rounds or clock() < end:
        for call, mine in zip(calls, times, strict=True):
            pause()
            start = clock()
            call()
            mine.append(1e3 * (clock() - start))
    return [Timing(statistics.median(mine), min(mine), len(mine)) for mine in times]


def settle() -> None:
    """Waits until the threads of this process are at rest.

    Thread pools spin on for a while after their work is done (PyTorch's for some 5 ms, onnxruntime's for 25): on two
    cores, that is one core less for whoever comes next.
    """
    for _ in range(round(LONGEST_PAUSE / SLICE)):
        before = time.process_time()
        time.sleep(SLICE)
        if time.process_time() - before < QUIET * SLICE:
            return
