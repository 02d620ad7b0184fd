"""Compiles programs, checks that they agree, times them side by side and measures their memory."""

import ctypes
import dataclasses
import gc
import multiprocessing
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

import gru_jax
from experiments.benchmarks.settings import Precision, Sizes
from experiments.schema import UserError

# Programs.

Outcome = dict[str, np.ndarray]
"""What a program computes: "ys" (T, B, H), or gradients gate by gate: "W_r" (I, H), "U_r" (H, H), "b_r" (H,), ..."""


@dataclasses.dataclass(frozen=True)
class Program:
    """A program that is ready to run.

    Attributes:
      library: "gru_jax", "torch", ...
      precision: of the matrix products' operands.
      call: runs the program once and waits until it has finished.
      outcome: runs the program once and returns its results.
      devices: how many JAX devices it runs on.
      temp_bytes: temporary memory on all devices, if the compiler reports it.
      compile_seconds: for tracing and compiling; None if nothing is compiled.
      calls: how many units of work one call performs; times are divided by it.
      text: returns the compiled program's HLO, if the compiler gives it.
    """

    library: str
    precision: Precision
    call: Callable[[], Any]
    outcome: Callable[[], Outcome]
    devices: int = 1
    temp_bytes: int | None = None
    compile_seconds: float | None = None
    calls: float = 1
    text: Callable[[], str | None] | None = None

    @property
    def name(self) -> str:
        return program_name(self.library, self.precision, self.devices)


def program_name(library: str, precision: str, devices: int) -> str:
    """Returns a name that is unique among the programs of one problem: "gru_jax bfloat16 x2"."""
    return f"{library} {precision}" + (f" x{devices}" if devices > 1 else "")


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
      function: a pure function that is not compiled yet.
      arguments: its arguments, on the devices on which it runs.
      outcome: converts its result to an `Outcome`.
      devices: how many devices it runs on.
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
        text=executable.as_text,
    )


def outputs(ys: Any) -> Outcome:
    """Returns the outcome of a forward pass with outputs ys (T, B, H)."""
    return {"ys": np.asarray(ys, np.float32)}


def leaves(tree: Any) -> Outcome:
    """Returns the arrays of a pytree by their paths, e.g. the gradient of any cell's parameters."""
    paths = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(array, np.float32) for path, array in paths}


def gradients(gradient: gru_jax.GRUParams) -> Outcome:
    """Returns the outcome of a gradient, split by gate so that a large part cannot hide an error in a small one."""
    H = gradient.U.shape[0]
    named = {
        f"{name}_{gate}": np.asarray(array, np.float32)[..., k * H : (k + 1) * H]
        for name, array in zip("WUb", gradient[:3], strict=True)
        for k, gate in enumerate("rzn")
    }
    return named if gradient.b_hn is None else named | {"b_hn": np.asarray(gradient.b_hn, np.float32)}


# Agreement.

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "tensorfloat32": 0.006, "bfloat16": 0.05}
"""The largest allowed distance of an array from the reference, relative to its norm, by precision.

On a GPU, JAX and PyTorch both round the float32 operands of a recurrent layer's products to TensorFloat32, which has
three bits more than bfloat16.
"""


def distance(outcome: Outcome, reference: Outcome) -> tuple[float, str]:
    """Returns the largest relative distance |a - b| / |b| of an array, and the name of that array.

    The distance is infinite if an array is missing, unexpected, not finite or of another shape.
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
    """Returns the distance of a program's outcome from the reference.

    Raises:
      UserError: if the distance is too large; the message names the program and the array.
    """
    error, array = distance(program.outcome(), reference)
    # By default, accelerators round the operands of float32 products.
    rounded = {"gpu": "tensorfloat32", "tpu": "bfloat16"}.get(jax.default_backend(), "float32")
    allowed = TOLERANCES[rounded if program.precision == "float32" else program.precision]
    if not error <= allowed:
        raise UserError(
            f"{program.name}: expected {array} within {allowed:g} of the reference, relative to its norm, got "
            f"{error:.2g}; the program computes another function and is not timed"
        )
    return error


# Time.

POLL_SECONDS, MAX_PAUSE_SECONDS, IDLE_LOAD = 0.005, 0.1, 0.1


class Timing(NamedTuple):
    """The times of a program's rounds, in milliseconds."""

    median: float
    minimum: float
    rounds: int


def interleave(
    calls: Sequence[Callable[[], Any]],
    seconds: float,
    min_rounds: int = 5,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    pause: Callable[[], None] | None = None,
) -> list[Timing]:
    """Times calls in rounds, A B C A B C ..., so that disturbances of the machine affect all of them equally.

    Args:
      calls: each does its work and waits until it has finished.
      seconds: the time for which rounds are repeated.
      min_rounds: the minimum number of rounds, regardless of the time.
      warm_up: the number of rounds that are not timed.
      clock: returns seconds.
      pause: called before each timed call; if None, `wait_for_idle_threads`.

    Returns:
      A `Timing` for each call.
    """
    pause = wait_for_idle_threads if pause is None else pause
    for _ in range(warm_up):
        for call in calls:
            call()
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    end = clock() + seconds
    while len(times[0]) < min_rounds or clock() < end:
        for call, milliseconds in zip(calls, times, strict=True):
            pause()
            start = clock()
            call()
            milliseconds.append(1e3 * (clock() - start))
    return [Timing(statistics.median(found), min(found), len(found)) for found in times]


def wait_for_idle_threads() -> None:
    """Waits until the threads of this process are idle.

    Thread pools spin for a while after their work is done: PyTorch's for about 5 ms, onnxruntime's for 25 ms. On two
    cores, a spinning thread takes one core away from the next program.
    """
    for _ in range(round(MAX_PAUSE_SECONDS / POLL_SECONDS)):
        before = time.process_time()
        time.sleep(POLL_SECONDS)
        if time.process_time() - before < IDLE_LOAD * POLL_SECONDS:
            return


# Memory of libraries without a compiler.

_STATUS, _CLEAR = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")


def peak_growth(make: Callable[..., Callable[[], Any]], *arguments: Any) -> int | None:
    """Returns the peak growth of a new process, in bytes, during the second call of a function.

    Args:
      make: `make(*arguments)` returns the function to call; it must be defined at the top level of a module.
      *arguments: picklable values.

    Returns:
      Bytes; None on systems other than Linux.
    """
    if not _CLEAR.exists():
        return None
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak_growth, args=(sender, make, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()


def _send_peak_growth(sender: Any, make: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    call = make(*arguments)
    call()
    # Memory that the allocator retains after the first call would hide what the second call needs.
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text("5", encoding="utf-8")  # Resets the peak.
    before = _status_bytes("VmRSS")
    call()
    sender.send(_status_bytes("VmHWM") - before)


def _status_bytes(key: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


# Measurements.


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A program to measure, and its expected results.

    Attributes:
      program: the program to time.
      reference: the expected outcome.
      memory, loss: see `Measurement`.
      resident_bytes: measures the memory of a library without a compiler; if None, it is not measured.
      cell, option: see `Measurement`.
    """

    program: Program
    reference: Outcome
    memory: str = "auto"
    loss: str = "mean(ys**2)"
    resident_bytes: Callable[[], int | None] | None = None
    cell: str = "GRU"
    option: str = ""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The results of one program.

    Attributes:
      B, T, I, H: the sizes.
      work: what was computed; see `settings.Work`.
      reset: whether the reset gate acts before or after the recurrent product.
      library: "gru_jax", "torch", ...
      precision: of the matrix products' operands.
      devices: how many JAX devices it ran on.
      memory: the `memory` option of `gru_jax.unroll`, or "plain scan".
      loss: what was differentiated.
      median_ms, minimum_ms: of the rounds' times, per unit of work.
      rounds: how often the program was timed.
      temp_bytes: the compiled program's temporary memory, on all devices.
      resident_bytes: the growth of a process that runs the program, for libraries without a compiler.
      compile_seconds: for tracing and compiling.
      distance: of its results from the reference, relative to its norm.
      cell: the class of the cell.
      option: what else `gru_jax.unroll` was given: "mask", "decay", "zoneout", or nothing.
      kernels: kernels that each loop over time launches per step, from the compiled program; None if not counted.
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
    cell: str = "GRU"
    option: str = ""
    kernels: tuple[int, ...] | None = None

    @property
    def sizes(self) -> Sizes:
        return Sizes(self.B, self.T, self.I, self.H)

    @property
    def name(self) -> str:
        return program_name(self.library, self.precision, self.devices)


def measure(
    sizes: Sizes,
    work: str,
    reset: str,
    candidates: Sequence[Candidate],
    seconds: float,
    min_rounds: int,
    warm_up: int = 2,
) -> list[Measurement]:
    """Checks that all candidates compute their reference, then times them side by side.

    Args:
      sizes, work, reset: see `Measurement`.
      candidates: the programs.
      seconds, min_rounds, warm_up: see `interleave`.

    Raises:
      UserError: if a candidate disagrees with its reference. Nothing is timed then.
    """
    distances = [check(candidate.program, candidate.reference) for candidate in candidates]
    timings = interleave([candidate.program.call for candidate in candidates], seconds, min_rounds, warm_up)
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
                cell=candidate.cell,
                option=candidate.option,
            )
        )
    return rows
