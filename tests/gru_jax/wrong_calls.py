"""A table of wrong calls: a description, the call, the error, how its message begins, and a part of the given value."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import GRU, LSTM, Elman, LSTMState, Stack, dropout, elman_step, gru_step, lstm_step, step, unroll
from tests.gru_jax.minimal_gated_unit import Minimal

B, T, I, H = 2, 7, 3, 4
KEY = jax.random.key(0)
CELL, PARAMS, XS = GRU(), GRU().init(KEY, I, H), jnp.ones((B, T, I))
AFTER, LSTM_PARAMS, ELMAN_PARAMS = (cell.init(KEY, I, H) for cell in (GRU(reset="after"), LSTM(), Elman()))
STACK = Stack(GRU(), num_layers=2, bidirectional=True, dropout=0.5)
STACK_PARAMS = STACK.init(KEY, I, H)
H0, X = jnp.zeros((B, H)), jnp.ones((B, I))


@dataclass(frozen=True)
class Unhashable(Minimal):
    """A frozen dataclass that is not hashable, since its field is a list."""

    sizes: list[int]


def run(cell=CELL, params=PARAMS, xs=XS, h0=None, **options):
    return lambda: unroll(cell, params, xs, h0, **options)


def replaced(params=PARAMS, **fields):
    return params._replace(**fields)


CALLS = [
    # The cell.
    ("cell is a string", run(cell="gru"), TypeError, "cell: expected a cell such as gru_jax.GRU()", "str"),
    ("cell is None", run(cell=None), TypeError, "cell: expected a cell", "NoneType"),
    ("cell is a class", run(cell=GRU), TypeError, "cell: expected a cell", "the class GRU"),
    ("cell without a hash", run(cell=Unhashable([1])), TypeError, "cell: expected a hashable", "Unhashable"),
    # Hyperparameters.
    ("reset unknown", lambda: GRU(reset="both"), ValueError, "GRU: reset: expected one of 'before', 'after'", "'both'"),
    ("reset is an int", lambda: GRU(reset=1), ValueError, "GRU: reset: expected one of", "1"),
    ("W_init unknown", lambda: GRU(W_init="he"), ValueError, "GRU: W_init: expected one of 'glorot'", "'he'"),
    ("U_init unknown", lambda: LSTM(U_init="eye"), ValueError, "LSTM: U_init: expected one of 'orthogonal'", "'eye'"),
    ("b_init unknown", lambda: LSTM(b_init="ones"), ValueError, "LSTM: b_init: expected one of 'zeros'", "'ones'"),
    ("no chrono for Elman", lambda: Elman(b_init="chrono"), ValueError, "Elman: b_init: expected one of", "'chrono'"),
    ("longest_delay missing", lambda: GRU(b_init="chrono"), ValueError, "GRU: longest_delay: expected", "None"),
    (
        "longest_delay zero",
        lambda: GRU(b_init="chrono", longest_delay=0),
        ValueError,
        "GRU: longest_delay: expected",
        "0",
    ),
    (
        "longest_delay a float",
        lambda: LSTM(b_init="chrono", longest_delay=9.5),
        TypeError,
        "LSTM: longest_delay:",
        "9.5",
    ),
    ("longest_delay alone", lambda: LSTM(longest_delay=9), ValueError, "LSTM: longest_delay: expected None", "9"),
    ("forget_bias a string", lambda: LSTM(forget_bias="1"), TypeError, "LSTM: forget_bias: expected a number", "'1'"),
    ("forget_bias a bool", lambda: LSTM(forget_bias=True), TypeError, "LSTM: forget_bias: expected a number", "True"),
    ("forget_bias nan", lambda: LSTM(np.nan), ValueError, "LSTM: forget_bias: expected a finite number", "nan"),
    # init.
    ("key is an int", lambda: CELL.init(0, I, H), TypeError, "init: key: expected a PRNG key", "int"),
    ("key of floats", lambda: CELL.init(jnp.ones(2), I, H), TypeError, "init: key: expected a PRNG key", "float32"),
    ("several keys", lambda: CELL.init(jax.random.split(KEY), I, H), ValueError, "init: key: expected one", "(2,)"),
    ("raw key too long", lambda: CELL.init(jnp.zeros(4, jnp.uint32), I, H), ValueError, "init: key: expected", "(4,)"),
    ("input_size zero", lambda: CELL.init(KEY, 0, H), ValueError, "init: input_size: expected a positive integer", "0"),
    ("input_size a float", lambda: CELL.init(KEY, 3.0, H), TypeError, "init: input_size: expected a positive", "3.0"),
    ("hidden_size zero", lambda: CELL.init(KEY, I, 0), ValueError, "init: hidden_size: expected a positive", "0"),
    ("hidden_size negative", lambda: LSTM().init(KEY, I, -4), ValueError, "init: hidden_size: expected", "-4"),
    ("hidden_size a bool", lambda: Elman().init(KEY, I, True), TypeError, "init: hidden_size: expected", "True"),
    (
        "dtype int",
        lambda: CELL.init(KEY, I, H, jnp.int32),
        TypeError,
        "init: dtype: expected a floating-point",
        "int32",
    ),
    ("dtype None", lambda: CELL.init(KEY, I, H, None), TypeError, "init: dtype: expected a floating-point", "None"),
    (
        "dtype unknown",
        lambda: CELL.init(KEY, I, H, "real"),
        TypeError,
        "init: dtype: expected a floating-point",
        "'real'",
    ),
    ("dtype too wide", lambda: CELL.init(KEY, I, H, "float64"), ValueError, "init: dtype: expected at most", "float64"),
    ("stack key", lambda: STACK.init(None, I, H), TypeError, "init: key: expected a PRNG key", "NoneType"),
    ("stack hidden_size", lambda: STACK.init(KEY, I, 2.5), TypeError, "init: hidden_size: expected", "2.5"),
    ("stack input_size", lambda: STACK.init(KEY, -1, H), ValueError, "init: input_size: expected", "-1"),
    # Parameters.
    ("params None", run(params=None), TypeError, "params: expected GRUParams", "NoneType"),
    ("params a plain tuple", run(params=tuple(PARAMS)), TypeError, "params: expected GRUParams", "tuple"),
    ("params a dict", run(params=PARAMS._asdict()), TypeError, "params: expected GRUParams", "dict"),
    ("params of another cell", run(params=LSTM_PARAMS), TypeError, "params: expected GRUParams", "LSTMParams"),
    ("W a list", run(params=replaced(W=[[1.0]])), TypeError, "params.W: expected an array", "list"),
    (
        "W of integers",
        run(params=replaced(W=jnp.ones((I, 3 * H), int))),
        TypeError,
        "params.W: expected a floating",
        "int32",
    ),
    ("W of one axis", run(params=replaced(W=jnp.ones(3 * H))), ValueError, "params.W: expected shape (I, 12)", "(12,)"),
    (
        "W too narrow",
        run(params=replaced(W=jnp.ones((I, H)))),
        ValueError,
        "params.W: expected shape (I, 12)",
        "(3, 4)",
    ),
    (
        "U not H by 3H",
        run(params=replaced(U=jnp.ones((H, H)))),
        ValueError,
        "params.U: expected shape (4, 12)",
        "(4, 4)",
    ),
    (
        "U of three axes",
        run(params=replaced(U=jnp.ones((1, H, H)))),
        ValueError,
        "params.U: expected shape (H, 3H)",
        "(1, 4, 4)",
    ),
    (
        "b of two axes",
        run(params=replaced(b=jnp.ones((1, 3 * H)))),
        ValueError,
        "params.b: expected shape (12,)",
        "(1, 12)",
    ),
    ("b None", run(params=replaced(b=None)), TypeError, "params.b: expected an array", "NoneType"),
    (
        "b in another dtype",
        run(params=replaced(b=PARAMS.b.astype("bfloat16"))),
        TypeError,
        "params.b: expected dtype float32",
        "bfloat16",
    ),
    (
        "U in another dtype",
        run(params=replaced(U=PARAMS.U.astype("float16"))),
        TypeError,
        "params.U: expected dtype float32",
        "float16",
    ),
    ("b_hn too much", run(params=AFTER), ValueError, "params.b_hn: expected None", "an array"),
    ("b_hn missing", run(cell=GRU("after")), ValueError, "params.b_hn: expected an array (H,)", "None"),
    (
        "b_hn too short",
        run(GRU("after"), AFTER._replace(b_hn=jnp.ones(2))),
        ValueError,
        "params.b_hn: expected shape (4,)",
        "(2,)",
    ),
    # xs.
    ("xs None", run(xs=None), TypeError, "xs: expected an array", "NoneType"),
    ("xs a list", run(xs=[[1.0] * I] * T), TypeError, "xs: expected an array", "list"),
    ("xs of integers", run(xs=jnp.ones((B, T, I), int)), TypeError, "xs: expected a floating-point dtype", "int32"),
    ("xs complex", run(xs=XS.astype(complex)), TypeError, "xs: expected a floating-point dtype", "complex64"),
    ("xs of strings", run(xs=np.full((T, I), "a")), TypeError, "xs: expected an array of numbers", "<U1"),
    ("xs of objects", run(xs=np.full((T, I), None)), TypeError, "xs: expected an array of numbers", "object"),
    ("xs in another dtype", run(xs=XS.astype("bfloat16")), TypeError, "xs: expected dtype float32", "bfloat16"),
    ("xs of one axis", run(xs=jnp.ones(I)), ValueError, "xs: expected shape (..., T, 3)", "(3,)"),
    ("xs of no axis", run(xs=jnp.ones(())), ValueError, "xs: expected shape (..., T, 3)", "()"),
    ("xs with other features", run(xs=jnp.ones((B, T, 5))), ValueError, "xs: expected shape (..., T, 3)", "(2, 7, 5)"),
    (
        "xs time-major, features",
        run(xs=XS[..., :2], time_major=True),
        ValueError,
        "xs: expected shape (T, ..., 3)",
        "(2, 7, 2)",
    ),
    # h0.
    ("h0 of another batch", run(h0=jnp.zeros((B + 1, H))), ValueError, "h0: expected shape (2, 4)", "(3, 4)"),
    ("h0 of another width", run(h0=jnp.zeros((B, H + 1))), ValueError, "h0: expected shape (2, 4)", "(2, 5)"),
    ("h0 without batch", run(h0=jnp.zeros(H)), ValueError, "h0: expected shape (2, 4)", "(4,)"),
    ("h0 a list", run(h0=[0.0] * H), TypeError, "h0: expected an array", "list"),
    ("h0 a number", run(h0=0.0), TypeError, "h0: expected an array", "float"),
    ("h0 a tuple", run(h0=(H0,)), TypeError, "h0: expected an array", "a tuple of (an array)"),
    ("h0 of integers", run(h0=jnp.zeros((B, H), int)), TypeError, "h0: expected a floating-point dtype", "int32"),
    ("h0 in another dtype", run(h0=H0.astype("float16")), TypeError, "h0: expected dtype float32", "float16"),
    ("h0 of an LSTM an array", run(LSTM(), LSTM_PARAMS, h0=H0), TypeError, "h0: expected LSTMState(h, c)", "an array"),
    (
        "h0 of an LSTM a pair",
        run(LSTM(), LSTM_PARAMS, h0=(H0, H0)),
        TypeError,
        "h0: expected LSTMState(h, c)",
        "a tuple",
    ),
    (
        "c of another width",
        run(LSTM(), LSTM_PARAMS, h0=LSTMState(H0, H0[:, :2])),
        ValueError,
        "h0.c: expected shape (2, 4)",
        "(2, 2)",
    ),
    ("h0 of a stack an array", run(STACK, STACK_PARAMS, h0=H0), TypeError, "h0: expected a tuple of", "an array"),
    (
        "h0 of a stack too short",
        run(STACK, STACK_PARAMS, h0=((H0, H0),)),
        TypeError,
        "h0: expected a tuple of",
        "a tuple",
    ),
    (
        "h0 of a layer wrong",
        run(STACK, STACK_PARAMS, h0=((H0, H0), (H0, H0[:1]))),
        ValueError,
        "h0[1][1]: expected shape (2, 4)",
        "(1, 4)",
    ),
    # lengths and resets.
    ("lengths a dict", run(lengths={3: 7}), TypeError, "lengths: expected an array", "dict"),
    ("lengths a number", run(lengths=3), TypeError, "lengths: expected an array", "int"),
    ("lengths of floats", run(lengths=jnp.array([3.0, 7.0])), TypeError, "lengths: expected integers", "float32"),
    ("lengths of booleans", run(lengths=jnp.array([True, False])), TypeError, "lengths: expected integers", "bool"),
    ("lengths of another batch", run(lengths=jnp.array([3])), ValueError, "lengths: expected shape (2,)", "(1,)"),
    ("lengths of two axes", run(lengths=jnp.ones((B, T), int)), ValueError, "lengths: expected shape (2,)", "(2, 7)"),
    (
        "lengths negative",
        run(lengths=jnp.array([3, -1])),
        ValueError,
        "lengths: expected values from 0 to 7",
        "from -1 to 3",
    ),
    (
        "lengths too large",
        run(lengths=np.array([8, 7])),
        ValueError,
        "lengths: expected values from 0 to 7",
        "from 7 to 8",
    ),
    (
        "lengths too large in jit",
        lambda: jax.jit(run(lengths=np.array([9, 1])))(),
        ValueError,
        "lengths: expected values from 0 to 7",
        "from 1 to 9",
    ),
    ("resets of integers", run(resets=jnp.zeros((B, T), int)), TypeError, "resets: expected booleans", "int32"),
    ("resets a list of integers", run(resets=[[1] * T] * B), TypeError, "resets: expected booleans", "int32"),
    ("resets of one axis", run(resets=jnp.zeros(T, bool)), ValueError, "resets: expected shape (2, 7)", "(7,)"),
    (
        "resets not time-major",
        run(xs=XS.swapaxes(0, 1), time_major=True, resets=jnp.zeros((B, T), bool)),
        ValueError,
        "resets: expected shape (7, 2)",
        "(2, 7)",
    ),
    # Options.
    ("reverse a string", run(reverse="yes"), TypeError, "reverse: expected True or False", "'yes'"),
    ("reverse a number", run(reverse=1), TypeError, "reverse: expected True or False", "1"),
    ("time_major None", run(time_major=None), TypeError, "time_major: expected True or False", "None"),
    ("backend unknown", run(backend="cuda"), ValueError, "backend: expected one of 'auto', 'scan', 'fused'", "'cuda'"),
    ("backend None", run(backend=None), ValueError, "backend: expected one of 'auto', 'scan', 'fused'", "None"),
    ("backend without a TPU", run(backend="pallas"), ValueError, 'backend: expected a TPU for "pallas"', '"cpu"'),
    (
        "memory unknown",
        run(memory="none"),
        ValueError,
        "memory: expected one of 'auto', 'save', 'recompute', 'checkpoint'",
        "'none'",
    ),
    ("block_length zero", run(block_length=0), ValueError, "block_length: expected a positive integer", "0"),
    ("block_length a float", run(block_length=2.0), TypeError, "block_length: expected a positive integer", "2.0"),
    (
        "matmul_dtype int",
        run(matmul_dtype=jnp.int8),
        TypeError,
        "matmul_dtype: expected a floating-point dtype",
        "int8",
    ),
    (
        "matmul_dtype unknown",
        run(matmul_dtype="half-ish"),
        TypeError,
        "matmul_dtype: expected a floating-point",
        "'half-ish'",
    ),
    ("matmul_dtype a number", run(matmul_dtype=16), TypeError, "matmul_dtype: expected a floating-point dtype", "16"),
    ("key an int", run(STACK, STACK_PARAMS, key=1), TypeError, "key: expected a PRNG key", "int"),
    (
        "key a raw key of another size",
        run(STACK, STACK_PARAMS, key=jnp.zeros(4, jnp.uint32)),
        ValueError,
        "key: expected shape (2,)",
        "(4,)",
    ),
    (
        "several keys for dropout",
        run(STACK, STACK_PARAMS, key=jax.random.split(KEY, 3)),
        ValueError,
        "key: expected one",
        "(3,)",
    ),
    # Stacks.
    ("num_layers zero", lambda: Stack(CELL, 0), ValueError, "Stack: num_layers: expected a positive integer", "0"),
    ("num_layers a float", lambda: Stack(CELL, 2.0), TypeError, "Stack: num_layers: expected a positive", "2.0"),
    (
        "bidirectional a number",
        lambda: Stack(CELL, 1, 2),
        TypeError,
        "Stack: bidirectional: expected True or False",
        "2",
    ),
    (
        "merge unknown",
        lambda: Stack(CELL, merge="mean"),
        ValueError,
        "Stack: merge: expected one of 'concat', 'sum'",
        "'mean'",
    ),
    (
        "dropout of one",
        lambda: Stack(CELL, dropout=1.0),
        ValueError,
        "Stack: dropout: expected a number in [0, 1)",
        "1.0",
    ),
    (
        "dropout negative",
        lambda: Stack(CELL, dropout=-0.1),
        ValueError,
        "Stack: dropout: expected a number in [0, 1)",
        "-0.1",
    ),
    ("dropout a string", lambda: Stack(CELL, dropout="0.5"), TypeError, "Stack: dropout: expected a number", "'0.5'"),
    ("a stack of a class", lambda: Stack(GRU), TypeError, "Stack: cell: expected a cell", "the class GRU"),
    ("a stack of stacks", lambda: Stack(STACK), TypeError, "Stack: cell: expected a cell", "Stack"),
    ("stack params of a cell", run(STACK), ValueError, "params: expected a tuple of 2 layers", "GRUParams"),
    (
        "stack params a list",
        run(STACK, list(STACK_PARAMS)),
        ValueError,
        "params: expected a tuple of 2 layers",
        "list of 2",
    ),
    (
        "stack params, a layer too few",
        run(STACK, STACK_PARAMS[:1]),
        ValueError,
        "params: expected a tuple of 2 layers",
        "tuple of 1",
    ),
    (
        "stack params, a direction too few",
        run(STACK, (STACK_PARAMS[0], STACK_PARAMS[1][:1])),
        ValueError,
        "params[1]: expected a tuple of 2 directions",
        "tuple of 1",
    ),
    (
        "stack params, layer a cell's",
        run(Stack(CELL), (PARAMS,)),
        ValueError,
        "params[0]: expected a tuple of 1 directions",
        "GRUParams",
    ),
    (
        "stack params, first layer twice",
        run(STACK, STACK_PARAMS[:1] * 2),
        ValueError,
        "params[1][0]: expected I, H and dtype 8, 4, float32",
        "3, 4, float32",
    ),
    (
        "stack params, b wrong",
        run(Stack(CELL), ((replaced(b=None),),)),
        TypeError,
        "params[0][0]: params.b: expected an array",
        "NoneType",
    ),
    (
        "stack params, another dtype",
        run(Stack(CELL, 2), ((PARAMS,), (GRU().init(KEY, H, H, "bfloat16"),))),
        ValueError,
        "params[1][0]: expected I, H and dtype 4, 4, float32",
        "bfloat16",
    ),
    # Steps.
    (
        "step x of one feature too few",
        lambda: gru_step(PARAMS, H0, X[:, 1:]),
        ValueError,
        "x: expected shape (..., 3)",
        "(2, 2)",
    ),
    ("step x a number", lambda: gru_step(PARAMS, H0, 1.0), TypeError, "x: expected an array", "float"),
    (
        "step x of integers",
        lambda: elman_step(ELMAN_PARAMS, H0, X.astype(int)),
        TypeError,
        "x: expected a floating-point",
        "int32",
    ),
    ("step h of another batch", lambda: gru_step(PARAMS, H0[:1], X), ValueError, "h: expected shape (2, 4)", "(1, 4)"),
    ("step h None", lambda: elman_step(ELMAN_PARAMS, None, X), TypeError, "h: expected an array", "NoneType"),
    (
        "step state an array",
        lambda: lstm_step(LSTM_PARAMS, H0, X),
        TypeError,
        "state: expected LSTMState(h, c)",
        "an array",
    ),
    (
        "step c of another batch",
        lambda: lstm_step(LSTM_PARAMS, LSTMState(H0, H0[:1]), X),
        ValueError,
        "state.c: expected shape",
        "(1, 4)",
    ),
    (
        "step reset unknown",
        lambda: gru_step(PARAMS, H0, X, reset="none"),
        ValueError,
        "GRU: reset: expected one of",
        "'none'",
    ),
    (
        "step params of another reset",
        lambda: gru_step(AFTER, H0, X, reset="before"),
        ValueError,
        "params.b_hn: expected None",
        "an array",
    ),
    (
        "step matmul_dtype",
        lambda: gru_step(PARAMS, H0, X, matmul_dtype=int),
        TypeError,
        "matmul_dtype: expected a floating",
        "int",
    ),
    ("step of two directions", lambda: step(STACK, STACK_PARAMS, H0, X), ValueError, "cell: expected a stack", "True"),
    ("step of a string", lambda: step("gru", PARAMS, H0, X), TypeError, "cell: expected a cell such as", "str"),
    ("step of no state", lambda: step(CELL, PARAMS, None, X), TypeError, "state: expected an array", "NoneType"),
    # Dropout.
    (
        "dropout rate of one",
        lambda: dropout(X, 1.0, KEY),
        ValueError,
        "dropout: rate: expected a number in [0, 1)",
        "1.0",
    ),
    ("dropout key an int", lambda: dropout(X, 0.5, 3), TypeError, "dropout: key: expected a PRNG key", "int"),
    ("dropout x a list", lambda: dropout([1.0], 0.5, KEY), TypeError, "dropout: x: expected an array", "list"),
]
