"""Splitting, joining and scanning blocks of time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax._unroll.blocks import join, scan_blocks, split


@pytest.mark.parametrize(("T", "length", "number", "rest"), [(6, 3, 2, 0), (7, 3, 2, 1), (5, 5, 1, 0), (4, 1, 4, 0)])
def test_join_inverts_split(T, length, number, rest):
    tree = {"a": np.arange(T * 2).reshape(T, 2), "none": None, "b": np.arange(T)}
    blocks = split(tree, length)
    assert blocks.main["a"].shape == (number, length, 2)
    assert (blocks.tail is None) == (rest == 0)
    np.testing.assert_array_equal(blocks.main["b"][-1], np.arange((number - 1) * length, number * length))
    if rest:
        np.testing.assert_array_equal(blocks.tail["b"], np.arange(T - rest, T))
    again = join(blocks)
    np.testing.assert_array_equal(again["a"], tree["a"])
    np.testing.assert_array_equal(again["b"], tree["b"])
    assert again["none"] is None


def test_join_accepts_an_empty_batch():
    assert join(split(jnp.zeros((6, 0, 3)), 4)).shape == (6, 0, 3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "length"), [(6, 6), (6, 2), (7, 3), (7, 5)])
def test_scan_blocks_visits_time_in_order(T, length, reverse):
    """The carry records the order of the steps, since 10 carry + value is not commutative."""

    def body(carry, block):
        return jax.lax.scan(lambda c, x: (10 * c + x, 10 * c + x), carry, block, reverse=reverse)

    carry, blocks = scan_blocks(body, jnp.int32(0), split(jnp.arange(1, T + 1), length), reverse=reverse)
    digits = "7654321"[-T:] if reverse else "1234567"[:T]
    assert int(carry) == int(digits)
    visited = [int(digits[: k + 1]) for k in range(T)]
    np.testing.assert_array_equal(join(blocks), visited[::-1] if reverse else visited)


@pytest.mark.parametrize("memory", ["save", "recompute", "checkpoint"])
@pytest.mark.parametrize("cell", [gru_jax.GRU(), gru_jax.LSTM(), gru_jax.Elman()], ids=lambda cell: type(cell).__name__)
def test_programs_do_not_grow_with_time(cell, memory):
    """A program depends on whether there are several blocks and a tail, but not on the number of steps."""
    params = cell.init(jax.random.key(0), input_size=16, hidden_size=32)

    def operations(T):
        def loss(params, xs):
            return (gru_jax.unroll(cell, params, xs, memory=memory)[0] ** 2).mean()

        lowered = jax.jit(jax.grad(loss)).lower(params, jax.ShapeDtypeStruct((4, T, 16), jnp.float32))
        return lowered.as_text().count(" = ")

    assert operations(100) == operations(1_000)  # one block
    most = operations(100_003)  # blocks and a tail
    assert most < 3 * operations(100)
    assert all(operations(T) <= most for T in (10_007, 2**16, 2**18, 1_000_003))
