"""The suite "gpu": what a user of a GPU measures first, in under four minutes.

Our layer beside Flax, Equinox and PyTorch's cuDNN layer, forward and forward+backward; our gradient of long sequences;
and a training step of the character model beside PyTorch's. Kernels per step are counted in the compiled programs. It
also runs on a CPU, where they are not launches but loops and calls.
"""

import dataclasses
from collections.abc import Sequence

from experiments.benchmarks import layer, training_step
from experiments.benchmarks.ahead_of_time import kernels, parse, step_loops
from experiments.benchmarks.harness import Candidate, Measurement, Program, measure
from experiments.benchmarks.libraries import our_program
from experiments.benchmarks.settings import Precision, Settings, Sizes, make_problem

PEERS = ("linen", "equinox", "torch")
LONG = (Sizes(16, 4_000, 128, 128), Sizes(16, 64_000, 128, 128))
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
TRAINING_SECONDS = 15.0


def run(settings: Settings) -> list[Measurement]:
    """Measures layers with reset="after", long sequences and the training step, on one device."""
    settings = dataclasses.replace(settings, peers=tuple(set(settings.peers) & set(PEERS)), devices=1)
    rows = []
    for sizes in settings.shapes or layer.SHAPES:
        for work in layer.WORKS:
            settings.say(f"gpu {sizes}: {work}")
            rows += _measured(sizes, work, layer.candidates(make_problem(sizes, "after", work), settings), settings)
    for sizes in () if settings.shapes else LONG:
        settings.say(f"gpu {sizes}: gradient")
        problem = make_problem(sizes, "after", "gradient")
        programs = [our_program(problem, precision) for precision in PRECISIONS]
        expected = programs[0].outcome()
        rows += _measured(sizes, "gradient", [Candidate(program, expected) for program in programs], settings)
    given = dataclasses.replace(settings, seconds=min(TRAINING_SECONDS, 10 * settings.seconds))
    return rows + training_step.run(given)


def _measured(sizes: Sizes, work: str, candidates: Sequence[Candidate], settings: Settings) -> list[Measurement]:
    """Measures candidates and counts their kernels."""
    found = measure(sizes, work, "after", candidates, settings.seconds, settings.min_rounds)
    return [
        dataclasses.replace(row, kernels=kernels_per_step(candidate.program))
        for row, candidate in zip(found, candidates, strict=True)
    ]


def kernels_per_step(program: Program) -> tuple[int, ...] | None:
    """Returns the kernels per step of each loop over time; None if the compiler does not give its program."""
    text = None if program.text is None else program.text()
    if text is None:
        return None
    module = parse(text)
    return tuple(kernels(module, body) for body in step_loops(module))
