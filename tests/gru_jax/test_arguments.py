"""Wrong calls: each raises one line that names the argument, what was expected and what came."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import LSTM, GRUParams, unroll
from gru_jax.cells import Cell
from tests.gru_jax.wrong_calls import CALLS, CELL, PARAMS, XS, B, H, I, T


@pytest.mark.parametrize(
    ("call", "error", "begins", "quotes"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS]
)
def test_a_wrong_call_raises_one_line(call, error, begins, quotes):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    # Inside a transformation JAX appends a remark of its own, after a rule.
    (line, *rest) = str(caught.value).split("\n")
    assert not rest or rest[0] == "-" * 20
    assert line.startswith(begins)
    expected, got, came = line.rpartition(", got ")
    assert expected.startswith(begins.partition(": expected")[0])
    assert got
    assert quotes in came


def test_the_table_is_as_long_as_it_should_be():
    assert len(CALLS) >= 60
    assert len({row[0] for row in CALLS}) == len(CALLS)


def test_wrong_shapes_are_found_while_tracing_too():
    with pytest.raises(ValueError, match=r"^xs: expected shape \(\.\.\., T, 3\), got \(2, 7, 5\)"):
        jax.jit(lambda xs: unroll(CELL, PARAMS, xs))(jnp.ones((B, T, 5)))
    with pytest.raises(TypeError, match=r"^lengths: expected integers, got float32"):
        jax.vmap(lambda xs, n: unroll(CELL, PARAMS, xs, lengths=n))(XS, jnp.ones(B))


def test_lengths_that_are_not_known_are_not_checked():
    ys, _ = jax.jit(lambda n: unroll(CELL, PARAMS, XS, lengths=n))(jnp.array([9, 1]))
    assert ys.shape == (B, T, H)


def test_right_calls_in_unusual_clothes_pass():
    assert isinstance(CELL, Cell)
    params = GRUParams(*(None if array is None else np.asarray(array) for array in PARAMS))
    lengths, options = np.array([3, 7], np.uint8), {"block_length": np.int64(3), "backend": np.str_("fused")}
    ys, _ = unroll(CELL, params, np.asarray(XS), lengths=lengths, reverse=np.bool_(False), **options)
    expected, _ = unroll(CELL, PARAMS, XS, lengths=jnp.array([3, 7]))
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    assert LSTM(forget_bias=np.float32(1)).init(jax.random.PRNGKey(0), np.int32(I), H).U.shape == (H, 4 * H)


def test_parameters_of_eight_bits_are_refused():
    with pytest.raises(
        TypeError, match=r"^init: dtype: expected a floating-point dtype of 16 bits or more, got float8_e"
    ):
        CELL.init(jax.random.key(0), I, H, "float8_e4m3fn")
