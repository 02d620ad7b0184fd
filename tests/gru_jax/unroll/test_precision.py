"""Values and gradients are within 1 % of float64 for pre-activations from -20 to 11, with parameters of any dtype."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, GRUParams, LSTMParams, LSTMState, Stack, gru_step, lstm_step, unroll
from tests.gru_jax import oracle
from tests.gru_jax.problems import CELLS, GATES, library_params, library_state, state_names

EDGES = (-20.0, -14.0, -11.0, -9.0, -7.0, -3.5, 0.0, 5.0, 8.0, 11.0)
GATED = {"gru_before": 2, "gru_after": 2, "lstm": 3, "minimal": 1}
CANDIDATE = {"gru_before": 2, "gru_after": 2, "lstm": 2, "minimal": 1}
T = 2
BACKENDS = {
    "scan": {"backend": "scan"},
    "save": {"backend": "fused", "memory": "save", "block_length": 1},
    "recompute": {"backend": "fused", "memory": "recompute"},
    "checkpoint": {"backend": "fused", "memory": "checkpoint"},
    "auto": {},
}


def at_the_edges(name, edges):
    """Returns arrays that are exact in every dtype, with a diagonal U.

    For each gate and edge there is a unit whose gate has that bias, while its other gates have a bias of 1. There is no
    cancellation, since all values are positive and the candidate is far from the state.
    """
    gates, candidate = GATES[name], CANDIDATE[name]
    gated = [gate for gate in range(gates) if gate != candidate]
    H = len(gated) * len(edges)
    b = np.ones((gates, H))
    for number, gate in enumerate(gated):
        b[gate, number * len(edges) : (number + 1) * len(edges)] = edges
    b[candidate] = 0.5
    W, u = np.zeros((1, gates, H)), np.zeros((gates, H))
    W[0, candidate], u[candidate] = 0.5, 0.25
    arrays = {"W": W.reshape(1, -1), "u": u, "b": b.ravel(), "xs": np.ones((T, 1)), "h": np.full(H, 0.25)}
    arrays |= {"b_hn": np.full(H, 0.25)} if name == "gru_after" else {}
    return arrays | ({"c": np.full(H, 0.25)} if name == "lstm" else {})


@cache
def expected(name, edges):
    """Returns the outputs, the final state and the gradients of their sum, in float64."""

    def run(arrays):
        N, gates, H = arrays["u"].shape
        U = np.eye(H)[:, None] * arrays["u"][:, None]  # (N, H, gates, H)
        weights = {key: arrays[key] for key in ("W", "b", "b_hn") if key in arrays}
        weights["U"] = U.reshape(N, H, gates * H)
        start = tuple(arrays[key] for key in state_names(name))
        return oracle.unroll(name, weights, arrays["xs"], start, oracle.Options())

    def loss(**arrays):
        ys, final = run(arrays)
        return oracle.weighted_sum((ys, *final), [np.ones(())] * (1 + len(final)))

    arrays = at_the_edges(name, edges)
    ys, final = run(oracle.one_copy(arrays))
    return (ys[0], tuple(array[0] for array in final)), oracle.gradients(loss, arrays)


def assert_within_one_percent(found, wanted, what, scale=1.0):
    """Compares with a relative tolerance of 1 % and the smallest subnormal as absolute tolerance."""
    smallest = float(jnp.finfo(found.dtype).smallest_subnormal)
    np.testing.assert_allclose(
        np.asarray(found, np.float64) / scale, wanted, rtol=0.01, atol=smallest / scale, err_msg=what
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "dtype", "backend"),
    [
        (name, dtype, backend)
        for name in ("gru_before", "lstm")
        for dtype in ("bfloat16", "float16")
        for backend in BACKENDS
    ]
    + [(name, dtype, backend) for name in GATED for dtype in ("float32", "float64") for backend in ("scan", "auto")]
    + [("gru_after", "bfloat16", backend) for backend in ("scan", "recompute")]
    + [("gru_after", "float16", backend) for backend in ("scan", "save")]
    + [("minimal", dtype, backend) for dtype in ("bfloat16", "float16") for backend in ("scan", "save", "recompute")],
)
def test_values_and_gradients_are_accurate_for_gates_near_zero_and_one(name, dtype, backend):
    edges = EDGES[2:] if dtype == "float16" else EDGES  # sigmoid(-20) underflows in float16
    scale = 1024.0 if dtype == "float16" else 1.0  # loss scaling: 6e-8 is the smallest float16
    arrays = {key: jnp.asarray(array, dtype) for key, array in at_the_edges(name, edges).items()}

    def loss(arrays):
        gates, H = arrays["u"].shape
        U = jnp.zeros((H, gates, H), arrays["u"].dtype).at[np.arange(H), :, np.arange(H)].set(arrays["u"].T)
        params = library_params(name, arrays | {"U": U.reshape(H, -1)})
        ys, final = unroll(CELLS[name], params, arrays["xs"], library_state(name, arrays), **BACKENDS[backend])
        leaves = [leaf.astype(jnp.float64) for leaf in (ys, *jax.tree.leaves(final))]
        return scale * sum(leaf.sum() for leaf in leaves), (ys, tuple(jax.tree.leaves(final)))

    gradient, outputs = jax.jit(jax.grad(loss, has_aux=True))(arrays)
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, outputs))} == {jnp.dtype(dtype)}
    wanted, wanted_gradient = expected(name, edges)
    for found, value in zip(jax.tree.leaves(outputs), jax.tree.leaves(wanted), strict=True):
        assert_within_one_percent(found, value, "values")
    for key, value in wanted_gradient.items():
        assert_within_one_percent(gradient[key], value, f"gradient of {key}", scale)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_single_step_is_accurate_for_gates_near_zero(dtype):
    """One step from zero with i = sigmoid(-7), g = tanh(5): c = i g, dc/db_i = i (1 - i) g."""
    params = LSTMParams(jnp.zeros((1, 4), dtype), jnp.zeros((1, 4), dtype), jnp.array([-7, 5, 5, 5], dtype))
    zeros, x = LSTMState(jnp.zeros(1, dtype), jnp.zeros(1, dtype)), jnp.zeros(1, dtype)
    i, g = oracle.sigmoid(-7.0), np.tanh(5.0)
    value, gradient = jax.value_and_grad(lambda p: lstm_step(p, zeros, x).c.astype(jnp.float32).sum())(params)
    assert_within_one_percent(value, i * g, "c")
    assert_within_one_percent(gradient.b[0], i * (1 - i) * g, "gradient of b_i")

    params = GRUParams(jnp.zeros((1, 3), dtype), jnp.zeros((1, 3), dtype), jnp.array([0, -7, 5], dtype))
    value, gradient = jax.value_and_grad(lambda p: gru_step(p, zeros.h, x).astype(jnp.float32).sum())(params)
    assert_within_one_percent(value, i * g, "h")
    assert_within_one_percent(gradient.b[1], i * (1 - i) * g, "gradient of b_z")
    assert value.dtype == jnp.float32
    assert gradient.b.dtype == dtype


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
@pytest.mark.parametrize("name", ["gru_before", "gru_after", "lstm"])
def test_units_with_a_chrono_bias_have_gradients(name, dtype, backend):
    """For delays of 5000, gates are as small as 2e-4. The bias of the candidate is 1; all inputs are zero."""
    cell = {
        "gru_before": GRU(b_init="chrono", longest_delay=5000),
        "gru_after": GRU(reset="after", b_init="chrono", longest_delay=5000),
        "lstm": LSTM(b_init="chrono", longest_delay=5000),
    }[name]
    H = 64
    drawn = cell.init(jax.random.key(0), 1, H, dtype)
    zeros = jax.tree.map(jnp.zeros_like, drawn)
    candidate = slice(2 * H, 3 * H)
    params = zeros._replace(b=drawn.b.at[candidate].set(1))

    def loss(b):
        _, final = unroll(cell, params._replace(b=b), jnp.zeros((3, 1), dtype), backend=backend)
        memory = jax.tree.leaves(final)[-1]
        return memory.astype(jnp.float32).sum(), memory

    gradient, memory = jax.jit(jax.grad(loss, has_aux=True))(params.b)
    weights = {key: np.asarray(a, np.float64)[None] for key, a in params._asdict().items() if a is not None}
    start = (np.zeros((1, H)),) * len(state_names(name))
    _, wanted = oracle.unroll(name, weights, np.zeros((1, 3, 1)), start, oracle.Options())
    assert_within_one_percent(memory, wanted[-1][0], "memory")
    writing = gradient[:H] if name == "lstm" else gradient[H : 2 * H]
    assert (np.asarray(writing, np.float64) > 0).all()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("options", [{"backend": "scan"}, {"backend": "fused", "block_length": 2}])
def test_only_operands_and_results_have_16_bits(dtype, options):
    """All else is in float32: float32 arrays with a 16-bit `matmul_dtype` give the same results after rounding."""
    stack = Stack(LSTM(), num_layers=2, bidirectional=True, merge="sum")
    params = stack.init(jax.random.key(0), 3, 4, dtype)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3), dtype)
    h0 = jax.tree.map(lambda a: a + 0.5, stack.initial_state(4, (2,), dtype))
    options = options | {"lengths": np.array([5, 3]), "resets": np.arange(10).reshape(2, 5) % 3 == 1}

    fresh = jax.tree.map(lambda a: a - 0.25, h0)

    def narrow(params, xs, h0):
        return unroll(stack, params, xs, h0, reset_state=fresh, **options)

    def wide(params, xs, h0):
        params, xs, h0, start = jax.tree.map(lambda a: a.astype(jnp.float32), (params, xs, h0, fresh))
        outputs = unroll(stack, params, xs, h0, reset_state=start, matmul_dtype=dtype, **options)
        return jax.tree.map(lambda a: a.astype(dtype), outputs)

    def loss(run):
        def weighed(*at):
            outputs = run(*at)
            return sum((leaf.astype(jnp.float32) ** 2).sum() for leaf in jax.tree.leaves(outputs)), outputs

        return jax.jit(jax.grad(weighed, argnums=(0, 1, 2), has_aux=True))

    (gradient, outputs), (wide_gradient, wide_outputs) = (loss(run)(params, xs, h0) for run in (narrow, wide))
    assert {leaf.dtype for leaf in jax.tree.leaves((gradient, outputs))} == {jnp.dtype(dtype)}
    for a, b in zip(jax.tree.leaves((gradient, outputs)), jax.tree.leaves((wide_gradient, wide_outputs)), strict=True):
        if a is gradient[1]:  # The gradient of the inputs is the sum of the rounded gradients of both directions.
            np.testing.assert_allclose(*np.asarray((a, b), np.float32), atol=2 * float(jnp.finfo(dtype).eps))
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_float32_state_is_not_rounded_between_chunks(dtype, backend):
    """The state decays by a factor of 1 - sigmoid(-6.5) = 1 - 1/666 per step. In bfloat16 it would stay at 1."""
    params = GRUParams(jnp.zeros((1, 3), dtype), jnp.zeros((1, 3), dtype), jnp.array([0, -6.5, 0], dtype))
    xs, h = jnp.zeros((8, 1), dtype), jnp.ones((1,), jnp.float32)
    expected = (1 - oracle.sigmoid(-6.5)) ** 8
    for step in range(8):
        ys, h = unroll(GRU(), params, xs[step : step + 1], h, backend=backend)
        assert (ys.dtype, h.dtype) == (dtype, jnp.float32)
    np.testing.assert_allclose(h, [expected], rtol=1e-5)
    h = jnp.ones((1,), jnp.float32)
    for step in range(8):
        h = gru_step(params, h, xs[step])
    np.testing.assert_allclose(h, [expected], rtol=1e-5)
