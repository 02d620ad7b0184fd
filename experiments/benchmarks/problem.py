"""What all libraries are given: sizes, a cell's weights, inputs."""

import re
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np

import gru_jax
from experiments.schema import ConfigError

Work: TypeAlias = Literal["forward", "gradient", "step", "training step"]
"""What is timed: the outputs; the gradients of mean(ys**2) in all parameters; one step; one step of training."""

Precision: TypeAlias = Literal["float32", "bfloat16"]
"""Of the matrix products' operands."""


class BenchmarkError(ConfigError):
    """What cannot be measured as asked; the message is one line."""


class Sizes(NamedTuple):
    """The axes of a layer."""

    B: int
    T: int
    I: int
    H: int

    @classmethod
    def parse(cls, text: str) -> "Sizes":
        """Reads "32,100,64,128"."""
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){3}", text):
            raise BenchmarkError(f"--shapes: expected B,T,I,H, four positive integers, got {text!r}")
        return cls(*map(int, text.split(",")))

    def __str__(self) -> str:
        return ", ".join(map(str, self))


class Problem(NamedTuple):
    """One layer with its weights and inputs, and what to compute of it.

    Attributes:
      sizes: B, T, I, H.
      cell: a GRU.
      params: its parameters, every bias among them at random: a bias left out or put elsewhere shows.
      xs: (T, B, I), NumPy.
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
    """Draws weights as PyTorch does, uniform in ±1/sqrt(H), and inputs from a normal distribution."""
    cell = gru_jax.GRU(reset=reset, W_init="uniform", U_init="uniform", b_init="uniform")
    key_params, key_xs = jax.random.split(jax.random.key(seed))
    params = cell.init(key_params, sizes.I, sizes.H)
    xs = np.asarray(jax.random.normal(key_xs, (sizes.T, sizes.B, sizes.I)))
    return Problem(sizes, cell, params, xs, work)


def mean_square(ys: Any) -> Any:
    """The loss of every gradient that is timed: `mean(ys**2)`."""
    return (ys * ys).mean()
