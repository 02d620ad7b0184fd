"""Time cut into blocks, and put together again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax._unroll.blocks import INFERENCE_ARRAYS, choose_length, cut, join, scan_blocks


@pytest.mark.parametrize(("T", "length", "number", "rest"), [(6, 3, 2, 0), (7, 3, 2, 1), (5, 5, 1, 0), (4, 1, 4, 0)])
def test_cut_and_join(T, length, number, rest):
    tree = {"a": np.arange(T * 2).reshape(T, 2), "none": None, "b": np.arange(T)}
    blocks = cut(tree, length)
    assert blocks.main["a"].shape == (number, length, 2)
    assert (blocks.tail is None) == (rest == 0)
    np.testing.assert_array_equal(blocks.main["b"][-1], np.arange((number - 1) * length, number * length))
    if rest:
        np.testing.assert_array_equal(blocks.tail["b"], np.arange(T - rest, T))
    again = join(blocks)
    np.testing.assert_array_equal(again["a"], tree["a"])
    np.testing.assert_array_equal(again["b"], tree["b"])
    assert again["none"] is None


def test_join_of_an_empty_batch():
    assert join(cut(jnp.zeros((6, 0, 3)), 4)).shape == (6, 0, 3)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "length"), [(6, 6), (6, 2), (7, 3), (7, 5)])
def test_scan_blocks_visits_time_in_order(T, length, reverse):
    """The carry numbers the steps in the order in which they come: 10 carry + value is not commutative."""

    def body(carry, block):
        return jax.lax.scan(lambda c, x: (10 * c + x, 10 * c + x), carry, block, reverse=reverse)

    carry, blocks = scan_blocks(body, jnp.int32(0), cut(jnp.arange(1, T + 1), length), reverse=reverse)
    digits = "7654321"[-T:] if reverse else "1234567"[:T]
    assert int(carry) == int(digits)
    visited = [int(digits[: k + 1]) for k in range(T)]
    np.testing.assert_array_equal(join(blocks), visited[::-1] if reverse else visited)


def test_block_length_is_all_of_time_while_it_is_small():
    assert choose_length(100, 32 * 128 * 4, "cpu") == 100
    assert choose_length(1, 10**9, "cpu") == 1
    assert choose_length(100, 32 * 256 * 4, "cpu") == 20
    assert choose_length(100, 32 * 256 * 4, "cpu", INFERENCE_ARRAYS) == 100


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("T", [1000, 1024, 1009, 65536])
def test_block_length_of_long_sequences_fits_its_budget_or_is_small(T, platform):
    state_bytes = 64 * 512 * 4
    length = choose_length(T, state_bytes, platform)
    budget = 10e6 if platform == "cpu" else 2.5e8
    assert 8 <= length <= T
    assert length == T or length <= 2 * max(16, budget / (16 * state_bytes))
    if T in (1024, 65536):
        assert T % length == 0


def test_block_length_divides_where_a_divisor_is_near():
    assert choose_length(1000, 64 * 512 * 4, "cpu") == 20
    assert choose_length(1009, 64 * 512 * 4, "cpu") == 16  # a prime


@pytest.mark.parametrize("memory", ["save", "recompute", "checkpoint"])
@pytest.mark.parametrize("cell", [gru_jax.GRU(), gru_jax.LSTM(), gru_jax.Elman()], ids=lambda cell: type(cell).__name__)
def test_programs_do_not_grow_with_time(cell, memory):
    """What is compiled depends on whether there are blocks and a rest, not on how many steps there are."""
    params = cell.init(jax.random.key(0), input_size=16, hidden_size=32)

    def operations(T):
        def loss(params, xs):
            return (gru_jax.unroll(cell, params, xs, memory=memory)[0] ** 2).mean()

        lowered = jax.jit(jax.grad(loss)).lower(params, jax.ShapeDtypeStruct((4, T, 16), jnp.float32))
        return lowered.as_text().count(" = ")

    assert operations(100) == operations(1_000)  # one block
    most = operations(10_007)  # blocks and a rest
    assert most < 3 * operations(100)
    assert all(operations(T) <= most for T in (2**16, 100_003, 2**18))
