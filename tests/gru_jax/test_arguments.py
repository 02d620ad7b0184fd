"""Wrong calls raise one line with the argument, the expected and the given value."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, GRUParams, Stack, step, unroll
from gru_jax.cells import Cell
from tests.gru_jax.wrong_calls import CALLS, CELL, KEY, PARAMS, STACK, XS, B, H, I, T


@pytest.mark.parametrize(
    ("call", "error", "begins", "quotes"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS]
)
def test_wrong_calls_raise_one_line(call, error, begins, quotes):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    # Inside a transformation, JAX appends a note after a line of dashes.
    (line, *rest) = str(caught.value).split("\n")
    assert not rest or rest[0] == "-" * 20
    assert line.startswith(begins)
    expected, got, came = line.rpartition(", got ")
    assert expected.startswith(begins.partition(": expected")[0])
    assert got
    assert quotes in came


def test_arrays_of_another_byte_order_are_read():
    xs = np.random.default_rng(0).normal(size=XS.shape).astype(np.float32)
    ys, state = unroll(CELL, PARAMS, xs)
    swapped, last = unroll(CELL, PARAMS, xs.astype(">f4"), lengths=np.full(B, T, ">i4"))
    np.testing.assert_array_equal(swapped, ys)
    np.testing.assert_array_equal(last, state)
    params = jax.tree.map(lambda a: np.asarray(a).astype(">f4"), PARAMS)
    np.testing.assert_array_equal(unroll(CELL, params, xs)[0], ys)
    np.testing.assert_array_equal(step(CELL, params, jnp.zeros((B, H)), xs[:, 0])[0], ys[:, 0])


def test_wrong_shapes_raise_during_tracing():
    with pytest.raises(ValueError, match=r"^xs: expected shape \(\.\.\., T, 3\), got \(2, 7, 5\)"):
        jax.jit(lambda xs: unroll(CELL, PARAMS, xs))(jnp.ones((B, T, 5)))
    with pytest.raises(TypeError, match=r"^lengths: expected integers, got float32"):
        jax.vmap(lambda xs, n: unroll(CELL, PARAMS, xs, lengths=n))(XS, jnp.ones(B))


def test_values_of_traced_lengths_are_not_checked():
    ys, _ = jax.jit(lambda n: unroll(CELL, PARAMS, XS, lengths=n))(jnp.array([9, 1]))
    assert ys.shape == (B, T, H)


def test_numpy_scalars_and_arrays_are_accepted():
    assert isinstance(CELL, Cell)
    params = GRUParams(*(None if array is None else np.asarray(array) for array in PARAMS))
    lengths, options = np.array([3, 7], np.uint8), {"block_length": np.int64(3), "backend": np.str_("fused")}
    ys, _ = unroll(CELL, params, np.asarray(XS), lengths=lengths, reverse=np.bool_(False), **options)
    expected, _ = unroll(CELL, PARAMS, XS, lengths=jnp.array([3, 7]))
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    assert LSTM(forget_bias=np.float32(1)).init(jax.random.PRNGKey(0), np.int32(I), H).U.shape == (H, 4 * H)


@pytest.mark.parametrize(
    "lengths", [[3, 7], (3, 7), [np.int8(3), np.uint16(7)], [jnp.array(3), 7]], ids=["list", "tuple", "NumPy", "JAX"]
)
def test_lengths_and_resets_may_be_lists(lengths):
    resets = np.arange(T) % 3 == np.arange(B)[:, None]
    expected, _ = unroll(CELL, PARAMS, XS, lengths=jnp.array([3, 7]), resets=resets)
    assert not np.array_equal(expected, unroll(CELL, PARAMS, XS)[0])
    ys, _ = unroll(CELL, PARAMS, XS, lengths=lengths, resets=resets.tolist())
    np.testing.assert_array_equal(ys, expected)
    ys, _ = jax.jit(unroll)(CELL, PARAMS, XS, lengths=list(lengths), resets=tuple(resets))
    np.testing.assert_allclose(ys, expected, rtol=1e-6, atol=1e-6)


def test_mask_and_decay_may_be_lists():
    mask, decay = np.arange(T) % 3 > np.arange(B)[:, None], np.linspace(0, 1, B * T, dtype=np.float32).reshape(B, T, 1)
    expected, _ = unroll(CELL, PARAMS, XS, mask=mask, decay=decay)
    assert not np.array_equal(expected, unroll(CELL, PARAMS, XS)[0])
    ys, _ = unroll(CELL, PARAMS, XS, mask=mask.tolist(), decay=decay.tolist())
    np.testing.assert_array_equal(ys, expected)


@pytest.mark.parametrize("value", [-0.5, 1.5])
def test_decay_outside_zero_and_one_warns_once(value):
    decay = jnp.full((B, T, 1), 0.5).at[1, 2].set(value)

    def run(decay):
        return unroll(CELL, PARAMS, XS, decay=decay)[0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            ys = run(decay)
    (warning,) = caught
    assert str(warning.message) == "decay: expected factors from 0 to 1, got others"
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(jax.jit(run)(decay), ys, rtol=1e-5, atol=1e-6)  # Its values are not known.
        run(jnp.full((B, T, 1), jnp.nan).at[..., 0].set(1.0))


@pytest.mark.parametrize(
    ("options", "error", "line"),
    [
        ({"lengths": [3.0, 7.0]}, TypeError, "lengths: expected integers, got float32"),
        ({"lengths": [True, False]}, TypeError, "lengths: expected integers, got bool"),
        ({"lengths": ["3", "7"]}, TypeError, "lengths: expected an array of numbers, got an array of <U1"),
        ({"lengths": [3, None]}, TypeError, "lengths: expected an array of numbers, got an array of object"),
        (
            {"lengths": [[3], [7, 1]]},
            ValueError,
            "lengths: expected an array, or lists that make one, got [[3], [7, 1]]",
        ),
        ({"lengths": [3]}, ValueError, "lengths: expected shape (2,), the batch axes of xs, got (1,)"),
        ({"lengths": (3, 8)}, ValueError, "lengths: expected values from 0 to 7, got values from 3 to 8"),
        ({"resets": [True] * T}, ValueError, "resets: expected shape (2, 7), the batch and time axes of xs, got (7,)"),
        ({"resets": [[None] * T] * B}, TypeError, "resets: expected an array of numbers, got an array of object"),
        ({"key": KEY}, ValueError, f"key: expected None for a cell without zoneout, got a key for {CELL}"),
    ],
)
def test_wrong_lists_and_a_key_for_a_cell_raise_one_line(options, error, line):
    with pytest.raises(error) as caught:
        unroll(CELL, PARAMS, XS, **options)
    assert str(caught.value) == line


@pytest.mark.parametrize("transform", [jax.jit, lambda f: lambda *a: jax.eval_shape(f, *a)], ids=["jit", "eval_shape"])
@pytest.mark.parametrize(("cell", "size"), [(CELL, "input_size"), (LSTM(), "input_size"), (STACK, "hidden_size")])
def test_traced_sizes_raise_one_line_with_the_solution(cell, size, transform):
    with pytest.raises(TypeError) as caught:
        transform(cell.init)(KEY, I, H)
    way = "bind it with functools.partial or name it in jit's static_argnames"
    assert str(caught.value) == f"init: {size}: expected a positive integer, got a traced int32: {way}"


def test_lengths_of_an_empty_batch_may_be_an_empty_list():
    assert unroll(CELL, PARAMS, XS[:0], lengths=[])[0].shape == (0, T, H)


@pytest.mark.parametrize("cell", [CELL, STACK], ids=["GRU", "Stack"])
def test_init_runs_under_transformations_with_static_sizes(cell):
    expected = cell.init(KEY, I, H)
    init = partial(cell.init, input_size=I, hidden_size=H)
    for drawn in (jax.jit(init)(KEY), jax.jit(cell.init, static_argnums=(1, 2))(KEY, I, H)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), drawn, expected)
    shapes = jax.eval_shape(init, KEY)
    assert jax.tree.map(jnp.shape, expected) == jax.tree.map(lambda a: a.shape, shapes)


def test_stack_without_dropout_accepts_a_key():
    """The same program then runs stacks with and without dropout."""
    stack = Stack(GRU())
    params = stack.init(KEY, I, H)
    np.testing.assert_array_equal(unroll(stack, params, XS, key=KEY)[0], unroll(stack, params, XS)[0])


def test_eight_bit_dtype_raises_type_error():
    with pytest.raises(
        TypeError, match=r"^init: dtype: expected a floating-point dtype of 16 bits or more, got float8_e"
    ):
        CELL.init(jax.random.key(0), I, H, "float8_e4m3fn")
