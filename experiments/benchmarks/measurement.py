"""One row of a benchmark's results, and how a group of programs becomes rows."""

import dataclasses
from collections.abc import Callable, Sequence

from experiments.benchmarks.agreement import check
from experiments.benchmarks.problem import Sizes
from experiments.benchmarks.program import Outcome, Program
from experiments.benchmarks.timing import interleave


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one program took.

    Attributes:
      B, T, I, H: the sizes.
      work: what was computed; see `problem.Work`.
      reset: where the reset gate acts.
      library: whose program.
      precision: of the matrix products' operands.
      devices: how many JAX devices it was spread over.
      memory: what was kept for the backward pass, where that was chosen.
      loss: what was differentiated.
      median_ms, minimum_ms: of the rounds' times, per unit of work.
      rounds: how many.
      temp_bytes: the compiled program's temporary memory, on all devices.
      resident_bytes: by how much the memory of a process that runs it grows, for libraries without a compiler.
      compile_seconds: tracing included.
      distance: how far its results are from the reference's, relative to their norm.
    """

    B: int
    T: int
    I: int
    H: int
    work: str
    reset: str
    library: str
    precision: str
    devices: int
    memory: str
    loss: str
    median_ms: float
    minimum_ms: float
    rounds: int
    temp_bytes: int | None
    resident_bytes: int | None
    compile_seconds: float | None
    distance: float

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.B, self.T, self.I, self.H)

    @property
    def name(self) -> str:
        """The program's name among those of one problem: "gru_jax bfloat16 x2"."""
        return program_name(self.library, self.precision, self.devices)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program and what it is held to.

    Attributes:
      program: what is timed.
      reference: what it has to compute.
      memory, loss: see `Measurement`.
      resident_bytes: measures that memory; None where the compiler tells.
    """

    program: Program
    reference: Outcome
    memory: str = "auto"
    loss: str = "mean(ys**2)"
    resident_bytes: Callable[[], int | None] | None = None


def program_name(library: str, precision: str, devices: int) -> str:
    return f"{library} {precision}" + (f" x{devices}" if devices > 1 else "")


def measure(
    sizes: Sizes,
    work: str,
    reset: str,
    candidates: Sequence[Candidate],
    seconds: float,
    least_rounds: int,
    warm_up: int = 2,
) -> list[Measurement]:
    """Checks that all candidates compute what they have to, then times them side by side.

    Raises:
      BenchmarkError: one computes something else; nothing is timed.
    """
    distances = [check(candidate.program, candidate.reference) for candidate in candidates]
    timings = interleave([candidate.program.call for candidate in candidates], seconds, least_rounds, warm_up)
    rows = []
    for candidate, timing, distance in zip(candidates, timings, distances, strict=True):
        program = candidate.program
        rows.append(
            Measurement(
                *sizes,
                work=work,
                reset=reset,
                library=program.library,
                precision=program.precision,
                devices=program.devices,
                memory=candidate.memory,
                loss=candidate.loss,
                median_ms=timing.median / program.calls,
                minimum_ms=timing.minimum / program.calls,
                rounds=timing.rounds,
                temp_bytes=program.temp_bytes,
                resident_bytes=None if candidate.resident_bytes is None else candidate.resident_bytes(),
                compile_seconds=program.compile_seconds,
                distance=distance,
            )
        )
    return rows
