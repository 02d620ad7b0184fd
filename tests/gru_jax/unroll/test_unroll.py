"""`unroll` against the oracle. The cases contain every pair of values of any two options."""

import jax.numpy as jnp
import pytest

from tests.gru_jax.covering import pairwise
from tests.gru_jax.problems import CELLS, assert_answers_agree, draw, library_answer, oracle_answer

OPTIONS = {
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
# For T = 7: one block, blocks with a shorter tail, and blocks of one step.
FUSED = {"memory": ["save", "recompute", "checkpoint"], "block_length": [None, 3, 1]}
SCAN = {"backend": "scan"}


def with_blocks(case):
    """Returns a case with the options of the fused backend as one."""
    options = {key: value for key, value in case.items() if key not in FUSED}
    return options | {"backend": {"backend": "fused"} | {key: case[key] for key in FUSED}}


# The scan backend has no blocks, so every pair is a case of the fused backend. Every value is one of the scan, too.
IN_DOUBLE = [with_blocks(case) for case in pairwise(FUSED | OPTIONS)]
IN_DOUBLE += [case for case in pairwise({"backend": [SCAN, *FUSED["memory"]]} | OPTIONS) if case["backend"] == SCAN]
BLOCKS = {"backend": "fused", "memory": "checkpoint", "block_length": 3}
IN_SINGLE = pairwise({"backend": [SCAN, {"backend": "fused"}, BLOCKS]} | OPTIONS)


def label(case):
    backend = "-".join(str(value) for value in case["backend"].values())
    options = ("lengths", "mask", "resets", "decay", "zoneout", "reverse", "time_major")
    flags = [name if case[name] is True else f"{name} {case[name]}" for name in options if case[name]]
    return "-".join([case["name"], backend, f"{len(case['batch_shape'])}", *flags])


def answers(case, dtype):
    drawn = {option: case[option] for option in ("lengths", "mask", "resets", "decay", "zoneout")}
    problem = draw(case["name"], case["batch_shape"], **drawn)
    options = {"reverse": case["reverse"], "time_major": case["time_major"], **case["backend"]}
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
