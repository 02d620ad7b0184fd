"""The sizes, problems and options of every suite."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

import gru_jax
from experiments.schema import UserError

Work: TypeAlias = Literal["forward", "gradient", "step", "training step"]
"""What is timed: the outputs, the gradients of `mean(ys**2)` in all parameters, one step, or one training step."""

Precision: TypeAlias = Literal["float32", "bfloat16"]
"""The dtype of the matrix products' operands."""


class Sizes(NamedTuple):
    """The sizes of a layer: batch B, steps T, input features I, hidden units H."""

    B: int
    T: int
    I: int
    H: int

    @classmethod
    def parse(cls, text: str) -> "Sizes":
        """Parses "32,100,64,128"."""
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){3}", text):
            raise UserError(f"--shapes: expected B,T,I,H, four positive integers, got {text!r}")
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ", ".join(map(str, self))


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of one run of a suite.

    Attributes:
      shapes: the sizes to measure; if None, the suite's default sizes.
      peers: the names of the libraries to compare with.
      seconds: how long the programs of one problem are timed.
      min_rounds: the minimum number of times that each program is timed.
      backends: the backends of our layer to measure, of the suite "layer".
      devices: how many JAX devices a batch may be sharded over.
      resident: whether to measure the memory of libraries without a compiler, each in a separate process.
      say: called with a line of progress.
    """

    shapes: tuple[Sizes, ...] | None
    peers: tuple[str, ...]
    seconds: float
    min_rounds: int = 5
    backends: tuple[str, ...] = ("fused", "scan")
    devices: int = 1
    resident: bool = True
    say: Callable[[str], None] = print


class Problem(NamedTuple):
    """A GRU layer with weights and inputs, and what to compute.

    Attributes:
      sizes: B, T, I, H.
      cell: a GRU.
      params: its parameters; all biases are random, so that a missing or misplaced bias is detected.
      xs: inputs (T, B, I), float32, NumPy.
      work: what is computed.
    """

    sizes: Sizes
    cell: gru_jax.GRU
    params: gru_jax.GRUParams
    xs: np.ndarray
    work: Work

    @property
    def reset(self) -> str:
        return self.cell.reset


def make_problem(sizes: Sizes, reset: str, work: Work, seed: int = 0) -> Problem:
    """Draws weights uniformly from ±1/sqrt(H), as PyTorch does, and inputs from the standard normal distribution."""
    cell = gru_jax.GRU(reset=reset, W_init="uniform", U_init="uniform", b_init="uniform")
    key_params, key_xs = jax.random.split(jax.random.key(seed))
    params = cell.init(key_params, sizes.I, sizes.H)
    xs = np.asarray(jax.random.normal(key_xs, (sizes.T, sizes.B, sizes.I)))
    return Problem(sizes, cell, params, xs, work)


def mean_square(ys: Any) -> Any:
    """Returns `mean(ys**2)`, the loss of every gradient that is timed."""
    return (ys * ys).mean()
