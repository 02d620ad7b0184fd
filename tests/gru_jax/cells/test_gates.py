"""Matrix products in bfloat16 with a float32 state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import (
    GRU,
    LEM,
    LSTM,
    BlockGRU,
    Elman,
    LayerNormGRU,
    LayerNormLSTM,
    LSTMState,
    Stack,
    gru_step,
    lstm_step,
    unroll,
)
from gru_jax.cells.gates import matmul, matmul_input_gradient, matmul_weight_gradient
from tests.gru_jax import oracle
from tests.gru_jax.problems import CELLS, Problem, draw, library_params, library_state, oracle_answer, state_names

RNG = np.random.default_rng(0)
NAMES = ("gru_before", "gru_after", "lstm", "elman")


def rounded(array):
    return np.asarray(array).astype(jnp.bfloat16).astype(np.float64)


def evaluate(problem: Problem, backend, matmul_dtype):
    def loss(arrays):
        params, h0 = library_params(problem.name, arrays), library_state(problem.name, arrays)
        options = {"lengths": problem.lengths, "backend": backend, "matmul_dtype": matmul_dtype, "block_length": 5}
        ys, h_last = unroll(CELLS[problem.name], params, arrays["xs"], h0, **options)
        weights = [jnp.asarray(weight, jnp.float32) for weight in problem.weights]
        terms = zip((ys, *jax.tree.leaves(h_last)), weights, strict=True)
        return sum((array * weight).sum() for array, weight in terms), (ys, h_last)

    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("name", NAMES)
def test_matmul_dtype_rounds_only_the_operands(name, backend):
    problem = draw(name, (4,), T=12, I=8, H=16, lengths=True, seed=1)
    problem.arrays["U"] *= 0.3  # Small enough that errors of the state do not grow over time.
    gradient, (ys, h_last) = evaluate(problem, backend, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, ys, h_last))} == {jnp.dtype(jnp.float32)}

    arrays, options = oracle.one_copy(problem.arrays), oracle.Options(problem.lengths)
    start = tuple(arrays[key] for key in state_names(name))
    times = lambda a, matrix: oracle.product(rounded(a), rounded(matrix))  # noqa: E731
    expected = oracle.unroll(name, arrays, arrays["xs"], start, options, times)[0][0]
    # The states agree up to float32 rounding. This can change how a state is rounded to bfloat16. The relative error of
    # an operand below 1 is then 2^-8, and weights are about 1, so later states have a similar error.
    difference = np.abs(np.asarray(ys, np.float64) - expected)
    assert np.median(difference) < 1e-6
    assert difference.max() < 2**-8

    exact = oracle_answer(problem)
    assert np.abs(exact.ys - ys).max() > 1e-3
    for key, wanted in exact.gradient.items():
        error = np.linalg.norm(gradient[key] - wanted) / np.linalg.norm(wanted)
        assert error < 4 * 2**-8, key


def products(jaxpr):
    """Yields the dtypes of the operands and the result of every matrix product, including those in loops and calls."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield (*(str(var.aval.dtype) for var in equation.invars), str(equation.outvars[0].aval.dtype))
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "jaxpr")):
            if hasattr(inner, "eqns"):
                yield from products(inner)
            elif hasattr(inner, "jaxpr"):
                yield from products(inner.jaxpr)


@pytest.mark.parametrize(
    "cell",
    [GRU(), GRU("after"), LSTM(), Elman(), LayerNormGRU(), LayerNormLSTM(), BlockGRU(3), BlockGRU(3, "rms"), LEM()],
)
def test_all_products_of_the_fused_gradient_have_bfloat16_operands(cell):
    params = cell.init(jax.random.key(0), 2, 3)

    def loss(params, xs):
        return unroll(cell, params, xs, matmul_dtype=jnp.bfloat16, backend="fused")[0].sum()

    found = list(products(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(params, jnp.ones((4, 5, 2))).jaxpr))
    assert len(found) >= 5
    assert set(found) == {("bfloat16", "bfloat16", "float32")}


def test_steps_and_stacks_accept_matmul_dtype():
    x, h = jnp.asarray(RNG.normal(size=(2, 3)), jnp.float32), jnp.asarray(RNG.normal(size=(2, 4)), jnp.float32)
    params = GRU().init(jax.random.key(0), 3, 4)
    plain, narrow = gru_step(params, h, x), gru_step(params, h, x, matmul_dtype=jnp.bfloat16)
    assert narrow.dtype == jnp.float32
    assert 1e-5 < np.abs(plain - narrow).max() < 2e-2
    state = lstm_step(LSTM().init(jax.random.key(0), 3, 4), LSTMState(h, h), x, matmul_dtype="bfloat16")
    assert {leaf.dtype for leaf in state} == {jnp.dtype(jnp.float32)}
    stack = Stack(Elman(), 2, bidirectional=True)
    ys, _ = unroll(stack, stack.init(jax.random.key(0), 3, 4), x[None], matmul_dtype=jnp.bfloat16)
    assert ys.dtype == jnp.float32


def test_bfloat16_parameters_give_a_bfloat16_state():
    params = GRU().init(jax.random.key(0), 3, 4)
    xs = jnp.asarray(RNG.normal(size=(2, 6, 3)), jnp.float32)
    expected, _ = unroll(GRU(), params, xs)
    ys, h_last = unroll(GRU(), jax.tree.map(lambda a: a.astype(jnp.bfloat16), params), xs.astype(jnp.bfloat16))
    assert ys.dtype == h_last.dtype == jnp.bfloat16
    np.testing.assert_allclose(ys.astype(jnp.float32), expected, atol=0.03)


def test_products_and_their_gradients_equal_einsum():
    x, w, g = (jnp.asarray(RNG.normal(size=shape), jnp.float32) for shape in ((2, 5, 3), (3, 4), (2, 5, 4)))
    np.testing.assert_allclose(matmul(x, w), np.einsum("btk,kn->btn", x, w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(matmul_input_gradient(g, w), np.einsum("btn,kn->btk", g, w), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(matmul_weight_gradient(x, g), np.einsum("btk,btn->kn", x, g), rtol=1e-5, atol=1e-5)
