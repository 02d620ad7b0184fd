"""The suite "layer": one layer, forward and forward+backward, with both resets, against every peer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

from experiments.benchmarks.harness import Candidate, Measurement, measure, peak_growth
from experiments.benchmarks.libraries import (
    BACKENDS,
    PEERS,
    SCAN,
    Peer,
    matmul_program,
    our_program,
    reference,
    torch_lstm_program,
)
from experiments.benchmarks.settings import Precision, Problem, Settings, Sizes, Work, make_problem
from experiments.runner.devices import largest_divisor

SHAPES = (
    Sizes(32, 100, 64, 128),
    Sizes(32, 100, 256, 256),
    Sizes(64, 100, 128, 512),
    Sizes(1, 500, 64, 128),
    Sizes(16, 100, 512, 1024),
)
RESETS = ("after", "before")
WORKS: tuple[Work, ...] = ("forward", "gradient")


def run(settings: Settings) -> list[Measurement]:
    """Measures every shape with both resets, forward and forward+backward."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        for reset in RESETS:
            for work in WORKS:
                settings.say(f"layer {sizes}: {work}, reset={reset}")
                problem = make_problem(sizes, reset, work)
                found = candidates(problem, settings)
                rows += measure(sizes, work, reset, found, settings.seconds, settings.min_rounds)
    return rows


def candidates(problem: Problem, settings: Settings) -> list[Candidate]:
    """Returns our programs, the matrix products alone, and every peer's that supports the problem; and torch's LSTM."""
    expected = reference(problem)
    devices = largest_divisor(problem.sizes.B, settings.devices)
    found = []
    for count in dict.fromkeys((1, devices)):
        for library in (BACKENDS[backend] for backend in settings.backends):
            precisions: tuple[Precision, ...] = ("float32",) if library == SCAN else ("float32", "bfloat16")
            if library != SCAN or count == 1:
                programs = (our_program(problem, precision, count, library) for precision in precisions)
                found += [Candidate(program, expected) for program in programs]
    found += [Candidate(matmul_program(problem, precision), {}) for precision in ("float32", "bfloat16")]
    if "torch" in settings.peers and problem.reset == "after":
        found += [Candidate(torch_lstm_program(problem, precision), {}) for precision in ("float32", "bfloat16")]
    for name in settings.peers:
        peer = PEERS[name]
        if problem.reset not in peer.resets or problem.work not in peer.works:
            continue
        given, outcome = problem, expected
        if not peer.has_b_hn:
            given = without_b_hn(problem)
            outcome = {key: array for key, array in reference(given).items() if key != "b_hn"}
        for program in peer(given).programs(given):
            resident: Callable[[], int | None] | None = None
            if settings.resident and program.temp_bytes is None and problem.work == "gradient":
                make: tuple[Any, ...] = (name, given.sizes, given.reset, given.work, program.name)
                resident = partial(peak_growth, peer_call, *make)
            found.append(Candidate(program, outcome, resident_bytes=resident))
    return found


def without_b_hn(problem: Problem) -> Problem:
    """Returns the problem with `b_hn` = 0, for libraries that do not have this bias."""
    params = problem.params
    return problem._replace(params=params._replace(b_hn=jnp.zeros_like(params.b_hn)))


def peer_call(name: str, sizes: tuple[int, ...], reset: str, work: Work, program_name: str) -> Callable[[], Any]:
    """Returns the call of a peer's program. It is built again, since it runs in another process."""
    peer: type[Peer] = PEERS[name]
    problem = make_problem(Sizes(*sizes), reset, work)
    if not peer.has_b_hn:
        problem = without_b_hn(problem)
    return next(program.call for program in peer(problem).programs(problem) if program.name == program_name)
