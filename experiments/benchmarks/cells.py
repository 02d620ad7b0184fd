"""The suite "cells": every cell on the fast path beside plain scans of its step, and what the options of a run cost."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

import gru_jax
from experiments.benchmarks.harness import Candidate, Measurement, Program, compile_program, leaves, measure
from experiments.benchmarks.libraries import OURS, SCAN, STEPS
from experiments.benchmarks.settings import Settings, Sizes, Work, mean_square

SHAPES = (Sizes(32, 100, 64, 128), Sizes(32, 100, 256, 256))
WORKS: tuple[Work, ...] = ("forward", "gradient")
OPTIONS = ("mask", "decay", "zoneout")
"""Options of `gru_jax.unroll` that are measured with the GRU."""
WIDE = Sizes(16, 64, 1024, 4096)
"""The shape at which the block-diagonal GRU is compared with the dense one, its own case of a single block."""
BLOCKS = (1, 8)


def all_cells() -> dict[str, gru_jax.Cell]:
    """Returns every cell of the library with its defaults, by the name of its class."""
    return {cell.__name__: cell() for cell in gru_jax.CELLS.values()}


def run(settings: Settings) -> list[Measurement]:
    """Measures every cell at every shape, forward and forward+backward, and block-diagonal cells at a large width."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        for name, cell in all_cells().items():
            for work in WORKS:
                settings.say(f"cells {sizes}: {name}, {work}")
                found = candidates(name, cell, sizes, work)
                rows += measure(sizes, work, "", found, settings.seconds, settings.min_rounds)
    for work in () if settings.shapes else WORKS:
        settings.say(f"cells {WIDE}: blocks, {work}")
        rows += measure(WIDE, work, "", block_candidates(WIDE, work), settings.seconds, settings.min_rounds)
    return rows


def draw(cell: gru_jax.Cell, sizes: Sizes) -> tuple[Any, jax.Array]:
    """Returns initial parameters of a cell, and inputs (T, B, I)."""
    key_params, key_xs = jax.random.split(jax.random.key(0))
    xs = jax.random.normal(key_xs, (sizes.T, sizes.B, sizes.I))
    return cell.init(key_params, sizes.I, sizes.H), xs


def block_candidates(sizes: Sizes, work: Work) -> list[Candidate]:
    """Returns the programs of `BlockGRU` with each number of blocks; the option is "1 blocks", "8 blocks"."""
    found = []
    for blocks in BLOCKS:
        cell = gru_jax.BlockGRU(blocks=blocks)
        params, xs = draw(cell, sizes)
        expected = program(cell, params, xs, work, "scan").outcome()
        made = program(cell, params, xs, work, "auto")
        found.append(Candidate(made, expected, cell="BlockGRU", option=f"{blocks} blocks"))
    return found


def candidates(name: str, cell: gru_jax.Cell, sizes: Sizes, work: Work) -> list[Candidate]:
    """Returns the programs of one cell: the fast path, both scans and, for linear cells, the associative scan."""
    params, xs = draw(cell, sizes)
    params = jax.tree.map(lambda a: a / 2, params)  # Otherwise rounding errors grow over time in LayerNormLSTM.
    programs = {
        (SCAN, ""): program(cell, params, xs, work, "scan"),
        (OURS, ""): program(cell, params, xs, work, "auto"),
    }
    programs[STEPS, ""] = program(cell, params, xs, work, "step")
    if isinstance(cell, gru_jax.cells.LinearCell):
        programs[f"{OURS} associative", ""] = program(cell, params, xs, work, "associative")
    expected = programs[SCAN, ""].outcome()
    found = [Candidate(made, expected, cell=name) for made in programs.values()]
    for option, given in options(sizes).items() if name == "GRU" else ():
        made = program(cell, params, xs, work, "auto", **given)
        outcome = program(cell, params, xs, work, "scan", **given).outcome()
        found.append(Candidate(made, outcome, cell=name, option=option))
    return found


def options(sizes: Sizes) -> Mapping[str, Mapping[str, Any]]:
    """Returns the arguments of each option: a tenth of the steps masked, a decay per unit, a rate of zoneout of 0.1."""
    B, T, _, H = sizes
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        "mask": {"mask": jax.random.bernoulli(keys[0], 0.9, (T, B))},
        "decay": {"decay": jax.random.uniform(keys[1], (T, B, H), minval=0.5)},
        "zoneout": {"zoneout": 0.1, "key": keys[2]},
    }


def program(cell: gru_jax.Cell, params: Any, xs: jax.Array, work: Work, backend: str, **options: Any) -> Program:
    """Compiles a cell's outputs or the gradient of its parameters.

    Args:
      cell: the cell.
      params: its parameters.
      xs: (T, B, I).
      work: "forward" or "gradient".
      backend: of `gru_jax.unroll`, or "step" for a plain `lax.scan` of the step.
      **options: more options of `gru_jax.unroll`.
    """

    def layer(params, xs):
        if backend != "step":
            return gru_jax.unroll(cell, params, xs, time_major=True, backend=backend, **options)[0]
        _, hidden_size, dtype = cell.infer_sizes(params)

        def step(state, x):
            state = cell.step(params, state, cell.project(params, x))
            if isinstance(cell, gru_jax.cells.Readout):
                return state, cell.readout(params, state, x)
            return state, cell.output(state)

        return jax.lax.scan(step, cell.initial_state(hidden_size, xs.shape[1:-1], dtype), xs)[1]

    def loss(params, xs):
        return mean_square(layer(params, xs))

    library = {"auto": OURS, "scan": SCAN, "step": STEPS}.get(backend, f"{OURS} {backend}")
    function = jax.grad(loss) if work == "gradient" else layer
    return compile_program(library, "float32", function, (params, jnp.asarray(xs)), leaves)
