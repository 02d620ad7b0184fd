"""The suite "long": time and memory of long sequences, by what is kept for the backward pass."""

import jax
import jax.numpy as jnp

import gru_jax
from experiments.benchmarks.harness import Candidate, Measurement, Program, compile_program, gradients, measure
from experiments.benchmarks.libraries import OURS, SCAN
from experiments.benchmarks.problem import Problem, Sizes, make_problem, mean_square
from experiments.benchmarks.settings import Settings

SHAPES = tuple(Sizes(16, 1024 * k, 128, 128) for k in (1, 4, 16, 64))
LONGEST_SCAN = 16 * 1024
"""Beyond, the plain scan is left out: at 64k steps it would take 10 GB."""

MEMORY = ("save", "recompute", "checkpoint")
LOSSES = ("mean(ys**2)", "mean(h_last**2)")
"""One that needs every output, whose cotangent alone takes H numbers a step, and one that needs the last state only."""


def run(settings: Settings) -> list[Measurement]:
    """Measures the gradient at every length, for every way of keeping memory and both losses; reset="after"."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"long {sizes}: gradient, reset=after")
        problem = make_problem(sizes, "after", "gradient")
        found = [candidate for loss in LOSSES for candidate in candidates(problem, loss)]
        # The check has run each program once, which is warm enough for seconds of work.
        rounds = min(settings.least_rounds, 3 if sizes.T <= LONGEST_SCAN else 2)
        rows += measure(sizes, "gradient", "after", found, settings.seconds, rounds, warm_up=0)
    return rows


def candidates(problem: Problem, loss: str) -> list[Candidate]:
    """Returns ours for every way of keeping memory, and the plain scan's gradient, which is the reference; of a very
    long sequence that of "save" is."""
    programs = {memory: gradient_program(problem, loss, memory) for memory in MEMORY}
    if problem.sizes.T <= LONGEST_SCAN:
        programs = {"plain scan": gradient_program(problem, loss, "plain scan")} | programs
    expected = next(iter(programs.values())).outcome()
    return [Candidate(program, expected, memory, loss) for memory, program in programs.items()]


def gradient_program(problem: Problem, loss: str, memory: str) -> Program:
    """Compiles the gradient of `loss`: with `memory` "plain scan", by differentiating that."""
    backend, memory = ("scan", "auto") if memory == "plain scan" else ("fused", memory)

    def objective(params, xs):
        ys, h_last = gru_jax.unroll(problem.cell, params, xs, time_major=True, backend=backend, memory=memory)
        return mean_square(ys if loss == LOSSES[0] else h_last)

    library = SCAN if backend == "scan" else OURS
    arguments = (problem.params, jnp.asarray(problem.xs))
    return compile_program(library, "float32", jax.grad(objective), arguments, gradients)
