"""A program to time: how to run it, what it computed, what it took to compile.

What is timed side by side computes the same function: checked before a clock runs.

Side by side: A B C A B C ..., so that what disturbs the machine disturbs all alike.

How much memory a call takes that no compiler tells of: measured from outside, in a process of its own.

One row of a benchmark's results, and how a group of programs becomes rows.
"""

import ctypes
import dataclasses
import gc
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import gru_jax
from experiments.benchmarks.problem import BenchmarkError, Precision, Sizes

Outcome = dict[str, np.ndarray]
"""What a program computed, in our own form: "ys" (T, B, H), or the gradients "W", "U", "b" and "b_hn"."""


@dataclass(frozen=True)
class Program:
    """One candidate, ready to run.

    Attributes:
      library: its name: "gru_jax", "torch", ...
      precision: of its matrix products' operands.
      call: runs it once and waits for the end.
      outcome: runs it once and returns what it computed.
      devices: how many JAX devices it is spread over.
      temp_bytes: the temporary memory of all devices, where the compiler tells.
      compile_seconds: for tracing and compiling; None where nothing is compiled.
      calls: how many units of work one call does; times are divided by it.
    """

    library: str
    precision: Precision
    call: Callable[[], Any]
    outcome: Callable[[], Outcome]
    devices: int = 1
    temp_bytes: int | None = None
    compile_seconds: float | None = None
    calls: int = 1

    @property
    def name(self) -> str:
        """Unique among the programs of one problem: "gru_jax bfloat16 x2"."""
        return f"{self.library} {self.precision}" + (f" x{self.devices}" if self.devices > 1 else "")


def compile_program(
    library: str,
    precision: Precision,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    outcome: Callable[[Any], Outcome],
    devices: int = 1,
) -> Program:
    """Compiles a JAX function for its arguments.

    Args:
      library: see `Program`.
      precision: see `Program`.
      function: a pure function, not yet compiled.
      arguments: what it is called with, where it is to run.
      outcome: makes an `Outcome` of what it returns.
      devices: how many it runs on.
    """
    start = time.perf_counter()
    executable = jax.jit(function).lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = executable.memory_analysis()
    return Program(
        library,
        precision,
        call=lambda: jax.block_until_ready(executable(*arguments)),
        outcome=lambda: outcome(executable(*arguments)),
        devices=devices,
        temp_bytes=None if memory is None else devices * memory.temp_size_in_bytes,
        compile_seconds=seconds,
    )


def outputs(ys: Any) -> Outcome:
    """The outcome of a forward pass: ys (T, B, H)."""
    return {"ys": np.asarray(ys, np.float32)}


def gradients(gradient: gru_jax.GRUParams) -> Outcome:
    """The outcome of a gradient, gate by gate, so that no large one hides an error in a small one."""
    H = gradient.U.shape[0]
    named = {
        f"{name}_{gate}": np.asarray(array, np.float32)[..., k * H : (k + 1) * H]
        for name, array in zip("WUb", gradient[:3], strict=True)
        for k, gate in enumerate("rzn")
    }
    return named if gradient.b_hn is None else named | {"b_hn": np.asarray(gradient.b_hn, np.float32)}


TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "tensorfloat32": 0.006, "bfloat16": 0.05}
"""How far an array may be from the reference, relative to its norm, by the precision of the matrix products.

On a GPU, JAX and PyTorch both round the float32 operands of a recurrent layer's products to TensorFloat32, which has
three bits more than bfloat16.
"""


def distance(outcome: Outcome, reference: Outcome) -> tuple[float, str]:
    """Returns the largest relative distance of an array, |a - b| / |b|, and the array's name.

    An array too few or too many, another shape, a number that is not finite: infinitely far.
    """
    if outcome.keys() != reference.keys():
        return float("inf"), "/".join(sorted(outcome.keys() ^ reference.keys()))
    worst = 0.0, ""
    for name, expected in reference.items():
        got = outcome[name]
        if got.shape != expected.shape or not np.isfinite(got).all():
            return float("inf"), name
        error, scale = np.linalg.norm(got.astype(float) - expected), np.linalg.norm(expected.astype(float))
        worst = max(worst, (float(error / scale) if scale else float(error > 0), name))
    return worst


def check(program: Program, reference: Outcome) -> float:
    """Returns how far a program is from what it has to compute.

    Raises:
      BenchmarkError: too far; the line says which program, in what, and by how much.
    """
    error, array = distance(program.outcome(), reference)
    rounded = program.precision == "float32" and jax.default_backend() == "gpu"
    allowed = TOLERANCES["tensorfloat32" if rounded else program.precision]
    if not error <= allowed:
        raise BenchmarkError(
            f"{program.name}: expected {array} within {allowed:g} of the reference's, relative to its norm, got "
            f"{error:.2g}: it computes something else and is not timed"
        )
    return error


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


STATUS, CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def peak_growth(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
    """Returns by how many bytes a fresh process grows, at its peak, while it makes a call for the second time.

    Args:
      make: `make(*arguments)` returns the call; a function at the top of a module.
      *arguments: plain data.

    Returns:
      Bytes; None where the system does not tell (all but Linux).
    """
    if not CLEAR.exists():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report, args=(sender, make, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _report(sender: Any, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    call = make(*arguments)
    call()
    # What the allocator keeps of the first call must not hide what the second one needs.
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5", encoding="utf-8")  # Forgets the peak.
    before = _read("VmRSS")
    call()
    sender.send(_read("VmHWM") - before)


def _read(key: str) -> int:
    line = next(
        line for line in STATUS.read_text(encoding="utf-8", errors="replace").splitlines() if line.startswith(f"{key}:")
    )
    return 1024 * int(line.split()[1])


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
