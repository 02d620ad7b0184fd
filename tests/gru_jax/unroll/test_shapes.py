"""Unusual shapes: no steps, no sequences, sizes of one, blocks longer than T."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jax import export

from gru_jax import LSTM, Stack, unroll
from tests.gru_jax.problems import CELLS, assert_answers_agree, draw, library_answer, oracle_answer

CASES = st.fixed_dictionaries(
    {
        "name": st.sampled_from(sorted(CELLS)),
        "batch_shape": st.sampled_from([(), (1,), (2,), (5,), (0,), (2, 3), (2, 0), (1, 2, 1)]),
        "T": st.integers(0, 9),
        "I": st.integers(1, 4),
        "H": st.integers(1, 4),
        "lengths": st.booleans(),
        "resets": st.sampled_from([False, True, "state", "state per mark"]),
        "seed": st.integers(0, 1000),
    }
).filter(lambda case: case["H"] % getattr(CELLS[case["name"]], "blocks", 1) == 0)
OPTIONS = st.fixed_dictionaries(
    {
        "backend": st.sampled_from(["fused", "fused", "fused", "scan"]),
        "memory": st.sampled_from(["auto", "save", "recompute", "checkpoint"]),
        "block_length": st.none() | st.integers(1, 10),
        "reverse": st.booleans(),
        "time_major": st.booleans(),
    }
)
PLAIN = {"backend": "fused", "memory": "checkpoint", "block_length": 2, "reverse": False, "time_major": False}
NO_STEPS = {"name": "lstm", "batch_shape": (2,), "T": 0, "I": 2, "H": 3, "lengths": True, "resets": True, "seed": 0}


@given(CASES, OPTIONS)
@example(NO_STEPS, PLAIN)
@example(NO_STEPS | {"T": 5, "batch_shape": (0,)}, PLAIN)
@example(NO_STEPS | {"T": 1, "batch_shape": (1,), "name": "gru_before"}, PLAIN)
def test_any_shape_equals_the_oracle(case, options):
    problem = draw(**case)
    with jax.enable_x64(True):
        answer = library_answer(problem, jnp.float64, **options)
    assert_answers_agree(answer, oracle_answer(problem, options["reverse"]), jnp.float64, values=1e-10, gradients=1e-10)


@pytest.mark.parametrize("names", ["B, T", "B", "T"])
def test_programs_are_exported_with_symbolic_sizes(names):
    cell = Stack(LSTM(), bidirectional=True)
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3))
    sizes = dict(zip(names.split(", "), export.symbolic_shape(names), strict=True))
    described = jax.ShapeDtypeStruct((sizes.get("B", 2), sizes.get("T", 5), 3), jnp.float32)
    program = export.export(jax.jit(lambda xs: unroll(cell, params, xs)))(described)
    np.testing.assert_allclose(program.call(xs)[0], unroll(cell, params, xs)[0], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r'^backend: expected "auto" or "scan" for symbolic sizes, got "fused"'):
        export.export(jax.jit(lambda xs: unroll(cell, params, xs, backend="fused")))(described)
