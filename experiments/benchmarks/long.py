"""The suite "long": time and memory of long sequences, for each `memory` option of `gru_jax.unroll`."""

import jax
import jax.numpy as jnp

import gru_jax
from experiments.benchmarks.harness import Candidate, Measurement, Program, compile_program, gradients, measure
from experiments.benchmarks.libraries import OURS, SCAN
from experiments.benchmarks.settings import Problem, Settings, Sizes, make_problem, mean_square

SHAPES = tuple(Sizes(16, 1024 * k, 128, 128) for k in (1, 4, 16, 64))
LONGEST_SCAN = 16 * 1024
"""The plain scan is measured up to this length; at 65,536 steps it would need 10 GB."""

MEMORY = ("save", "recompute", "checkpoint")
LOSSES = ("mean(ys**2)", "mean(h_last**2)")
"""The first needs every output, with a cotangent of H numbers per step. The second needs only the last state."""


def run(settings: Settings) -> list[Measurement]:
    """Measures the gradient with reset="after" at every length, for every memory option and both losses."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"long {sizes}: gradient, reset=after")
        problem = make_problem(sizes, "after", "gradient")
        found = [candidate for loss in LOSSES for candidate in candidates(problem, loss)]
        # The check has already run each program once; programs that take seconds need no further warm-up.
        rounds = min(settings.min_rounds, 3 if sizes.T <= LONGEST_SCAN else 2)
        rows += measure(sizes, "gradient", "after", found, settings.seconds, rounds, warm_up=0)
    return rows


def candidates(problem: Problem, loss: str) -> list[Candidate]:
    """Returns our programs for every memory option, and the plain scan, which is the reference.

    If the sequence is too long for the plain scan, "save" is the reference.
    """
    programs = {memory: gradient_program(problem, loss, memory) for memory in MEMORY}
    if problem.sizes.T <= LONGEST_SCAN:
        programs = {"plain scan": gradient_program(problem, loss, "plain scan")} | programs
    expected = next(iter(programs.values())).outcome()
    return [Candidate(program, expected, memory, loss) for memory, program in programs.items()]


def gradient_program(problem: Problem, loss: str, memory: str) -> Program:
    """Compiles the gradient of a loss; with `memory` "plain scan", of the backend "scan"."""
    backend, memory = ("scan", "auto") if memory == "plain scan" else ("fused", memory)

    def objective(params, xs):
        ys, h_last = gru_jax.unroll(problem.cell, params, xs, time_major=True, backend=backend, memory=memory)
        return mean_square(ys if loss == LOSSES[0] else h_last)

    library = SCAN if backend == "scan" else OURS
    arguments = (problem.params, jnp.asarray(problem.xs))
    return compile_program(library, "float32", jax.grad(objective), arguments, gradients)
