"""A program to time: how to run it, what it computed, what it took to compile."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import gru_jax
from experiments.benchmarks.problem import Precision

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
