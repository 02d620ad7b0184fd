"""The table of cells in docs/cells.md against the code: its rows, numbers of parameters and of operations."""

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import gru_jax

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "cells.md").read_text(encoding="utf-8")
LINES = [[column.strip() for column in line.strip().strip("|").split("|")] for line in TEXT.splitlines() if "|" in line]
HEADER, _, *ROWS = [line for line in LINES if len(line) == 6]
TABLE = {row[0]: dict(zip(HEADER, row, strict=True)) for row in ROWS}
SIZES = [(8, 16), (24, 16), (8, 64)]
ROWS_OF_A_BATCH = 64  # With fewer, some cells compute the products of all gates at once.


def value(formula: str, I: int, H: int) -> float:
    """Evaluates a formula such as 3(I + H + 1)."""
    return eval(re.sub(r"(\d)\s*([(IH])", r"\1 * \2", formula), {}, {"I": I, "H": H})


def operations(jaxpr: Any) -> int:
    """Returns the multiplications and additions of all matrix products of a jaxpr."""
    total = 0
    for equation in jaxpr.eqns:
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "jaxpr") or hasattr(p, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            total += operations(inner) if hasattr(inner, "eqns") else 0
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            length = 1
            for axis in contracted:
                length *= equation.invars[0].aval.shape[axis]
            total += 2 * length * equation.outvars[0].aval.size
    return total


def test_every_cell_has_a_row():
    assert sorted(TABLE) == sorted(kind.__name__ for kind in gru_jax.CELLS.values())


@pytest.mark.parametrize("name", TABLE)
def test_numbers_of_a_row_equal_those_of_the_code(name):
    cell = gru_jax.CELLS[name.lower()]()
    for I, H in SIZES:
        params = jax.eval_shape(lambda I=I, H=H: cell.init(jax.random.key(0), I, H))
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert value(TABLE[name]["parameters per unit"], I, H) == count / H
        state = jax.eval_shape(lambda H=H: cell.initial_state(H, (ROWS_OF_A_BATCH,)))
        x = jax.ShapeDtypeStruct((ROWS_OF_A_BATCH, I), jnp.float32)
        program = jax.make_jaxpr(lambda params, state, x: gru_jax.step(cell, params, state, x))(params, state, x)
        done = operations(program.jaxpr) / ROWS_OF_A_BATCH / H
        assert value(TABLE[name]["FLOPs per unit and step"], I, H) == done


@pytest.mark.parametrize("name", TABLE)
def test_paper_of_a_row_is_that_of_the_docstring(name):
    """Every author with a year in the table is named in the module of the cell."""
    module = gru_jax.CELLS[name.lower()].__module__
    source = Path(__import__(module, fromlist=["__file__"]).__file__).read_text(encoding="utf-8")
    for author, year in re.findall(r"(\w+)[^;]*?, (\d{4})", TABLE[name]["paper"]):
        assert author in source
        assert year in source


def test_example_runs():
    code = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert code is not None
    exec(code.group(1), {})
