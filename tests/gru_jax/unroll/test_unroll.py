"""`unroll` against the oracle. The cases contain every pair of values of any two options."""

import jax.numpy as jnp
import pytest

from tests.gru_jax.covering import pairwise
from tests.gru_jax.problems import CELLS, assert_answers_agree, draw, library_answer, oracle_answer

OPTIONS = {
    "memory": ["scan", "save", "recompute", "checkpoint"],  # What the fused backend stores, or the other backend.
    "block_length": [None, 3, 1],  # For T = 7: one block, blocks with a shorter tail, and blocks of one step.
    "name": list(CELLS),
    "batch_shape": [(3,), (2, 2), ()],
    "lengths": [False, True],
    "mask": [False, True],
    "resets": [False, True, "state", "state per mark"],
    "decay": [False, True, "one"],
    "zoneout": [None, "training", "expectation"],
    "reverse": [False, True],
    "time_major": [False, True],
}
IN_DOUBLE = pairwise(OPTIONS)
IN_SINGLE = pairwise(OPTIONS | {"memory": ["scan", "auto", "checkpoint"], "block_length": [None, 3]})


def label(case):
    block_length = f"-{case['block_length']}" if case["block_length"] else ""
    options = ("lengths", "mask", "resets", "decay", "zoneout", "reverse", "time_major")
    flags = [name if case[name] is True else f"{name} {case[name]}" for name in options if case[name]]
    return "-".join([case["name"], case["memory"] + block_length, f"{len(case['batch_shape'])}", *flags])


def answers(case, dtype):
    drawn = {option: case[option] for option in ("lengths", "mask", "resets", "decay", "zoneout")}
    problem = draw(case["name"], case["batch_shape"], **drawn)
    options = {"reverse": case["reverse"], "time_major": case["time_major"]}
    if case["memory"] == "scan":
        options |= {"backend": "scan"}
    else:
        options |= {"backend": "fused", "memory": case["memory"], "block_length": case["block_length"]}
    return library_answer(problem, dtype, **options), oracle_answer(problem, case["reverse"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", IN_DOUBLE, ids=label)
def test_values_and_gradients_equal_the_oracle_in_float64(case):
    answer, expected = answers(case, jnp.float64)
    assert_answers_agree(answer, expected, jnp.float64, values=1e-10, gradients=1e-10)


@pytest.mark.parametrize("case", IN_SINGLE, ids=label)
def test_values_and_gradients_equal_the_oracle_in_float32(case):
    answer, expected = answers(case, jnp.float32)
    assert_answers_agree(answer, expected, jnp.float32, values=1e-5, gradients=1e-4)
