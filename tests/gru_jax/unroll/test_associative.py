"""The parallel backend of linear cells against the oracle, the scan backend and single steps."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gru_jax import GRU, LRU, LSTM, MinGRU, MinGRUParams, MinLSTM, Stack, step, unroll
from tests.gru_jax.covering import pairwise
from tests.gru_jax.problems import CELLS, assert_answers_agree, draw, library_params, library_state
from tests.gru_jax.unroll.test_linearization import WAYS, At
from tests.gru_jax.unroll.test_unroll import OPTIONS, answers, label

LINEAR = ["min_gru", "min_lstm", "lru"]
BACKENDS = [{"backend": "associative", "memory": memory} for memory in ("save", "recompute")]
CASES = pairwise(OPTIONS | {"backend": BACKENDS, "name": LINEAR})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("case", CASES, ids=label)
def test_values_and_gradients_equal_the_oracle_in_float64(case):
    answer, expected = answers(case, jnp.float64)
    assert_answers_agree(answer, expected, jnp.float64, values=1e-10, gradients=1e-10)


@pytest.mark.parametrize("case", CASES[::3], ids=label)
def test_values_and_gradients_equal_the_oracle_in_float32(case):
    answer, expected = answers(case, jnp.float32)
    assert_answers_agree(answer, expected, jnp.float32, values=1e-5, gradients=1e-4)


@dataclasses.dataclass(frozen=True)
class PlainMinGRU:
    """A minimal GRU without `Adjoint` methods, as a user would write it."""

    linear = True

    def init(self, key, input_size, hidden_size, dtype=jnp.float32):
        return MinGRU().init(key, input_size, hidden_size, dtype)

    def infer_sizes(self, params):
        return MinGRU().infer_sizes(params)

    def initial_state(self, hidden_size, batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, hidden_size), dtype)

    def project(self, params, xs, matmul_dtype=None):
        a = xs @ params.W
        return a + jnp.broadcast_to(params.b, a.shape)

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        a_z, a_n = jnp.split(gate_inputs, 2, -1)
        z, n = jax.nn.sigmoid(a_z), jnp.where(a_n >= 0, a_n + 0.5, jax.nn.sigmoid(a_n))
        return (1 - z) * state + z * n

    def output(self, state):
        return state


def gradient(cell, **options):
    """Returns the outputs and the gradient of a loss on them, as a compiled function."""

    def loss(params, xs, h0):
        ys, h_last = unroll(cell, params, xs, h0, **options)
        return (ys**2).sum() + sum((leaf**3).sum() for leaf in jax.tree.leaves(h_last)), (ys, h_last)

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))


def problem(cell, B=4, T=6, I=3, H=8, dtype=jnp.float32):
    params = cell.init(jax.random.key(0), I, H, dtype)
    xs = jax.random.normal(jax.random.key(1), (B, T, I), dtype)
    return params, xs, jax.tree.map(lambda a: a + 0.5, cell.initial_state(H, (B,), dtype))


def assert_close(got, expected, tolerance=1e-5):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance), got, expected)


def test_a_cell_without_a_derived_gradient_equals_one_with():
    given = problem(MinGRU())
    lengths = jnp.array([6, 1, 4, 0])
    expected = gradient(MinGRU(), backend="scan", lengths=lengths)(*given)
    assert_close(gradient(PlainMinGRU(), backend="associative", lengths=lengths)(*given), expected)


@pytest.mark.parametrize("cell", [MinGRU(), MinLSTM(), LRU(r_min=0.9, r_max=0.999)], ids=lambda c: type(c).__name__)
def test_backends_and_single_steps_agree(cell):
    stack = Stack(cell, num_layers=2)
    params, xs, h0 = problem(stack, T=50)
    expected, h_last = unroll(stack, params, xs, h0, backend="associative")
    for backend in ("scan", "fused"):
        assert_close(unroll(stack, params, xs, h0, backend=backend), (expected, h_last))
    state, advance = h0, jax.jit(lambda state, x: step(stack, params, state, x))
    for t in range(50):
        y, state = advance(state, xs[:, t])
        np.testing.assert_allclose(y, expected[:, t], rtol=1e-5, atol=1e-5)
    assert_close(state, h_last)


@pytest.mark.parametrize(("bias", "tolerance"), [(-9.0, 1e-4), (-4.0, 1e-5), (6.0, 1e-5)])
def test_ten_thousand_steps_in_float32_equal_float64(bias, tolerance):
    """With z near exp(-9) = 1e-4, the rounding of 1 - z adds up in products of thousands of steps."""
    T, rng = 10_000, np.random.default_rng(0)
    arrays = MinGRUParams(rng.normal(size=(2, 16)) * 0.5, np.repeat([bias, 0.0], 8)), rng.normal(size=(1, T, 2))

    def run(dtype, backend):
        params, xs = jax.tree.map(lambda a: jnp.asarray(a, dtype), arrays)
        evaluate = jax.jit(
            jax.value_and_grad(
                lambda params: ((ys := unroll(MinGRU(), params, xs, backend=backend)[0]).mean(), ys), has_aux=True
            )
        )
        (_, ys), slopes = evaluate(params)
        return ys, slopes

    with jax.enable_x64(True):
        exact, exact_slopes = jax.tree.map(np.asarray, run(jnp.float64, "scan"))
    ys, slopes = run(jnp.float32, "associative")
    np.testing.assert_allclose(ys, exact, rtol=tolerance)
    for got, expected in zip(slopes, exact_slopes, strict=True):
        np.testing.assert_allclose(got, expected, rtol=10 * tolerance, atol=tolerance * np.abs(expected).max())


def losses(name):
    """Returns the loss with the associative and with the scan backend, and a point with a direction."""
    drawn = draw(name, (2,), T=5, I=2, H=2, lengths=True, resets=True, seed=6)
    arrays = jax.tree.map(jnp.asarray, drawn.arrays)
    rng = np.random.default_rng(7)
    xs = arrays.pop("xs")
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), (arrays, xs))

    def loss_on(backend):
        def loss(arrays, xs):
            params, h0 = library_params(name, arrays), library_state(name, arrays)
            options = {"lengths": drawn.lengths, "resets": drawn.resets, "reverse": True}
            ys, h_last = unroll(CELLS[name], params, xs, h0, backend=backend, **options)
            return (ys**2 * drawn.weights[0]).sum() + sum((a**3).sum() for a in jax.tree.leaves(h_last))

        return loss

    return loss_on("associative"), loss_on("scan"), At(arrays, xs, *direction)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "way"), [(("min_gru", "lru")[number % 2], way) for number, way in enumerate(WAYS)], ids=str
)
def test_derivatives_of_every_mode_equal_the_scan_backend(name, way):
    associative, scan, at = losses(name)
    got, expected = jax.jit(lambda at: [WAYS[way](loss, at) for loss in (associative, scan)])(at)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-2
    assert_close(got, expected, 1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("cell", [MinLSTM(), Stack(LRU(), num_layers=2, bidirectional=True)], ids=["cell", "stack"])
def test_gradients_on_a_mesh_with_explicit_axes_equal_one_device(cell):
    mesh = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    given = problem(cell, dtype=jnp.float64)
    expected = gradient(cell, backend="associative")(*given)
    params, *rows = given
    replicated = jax.device_put(params, NamedSharding(mesh, P()))
    got = gradient(cell, backend="associative")(replicated, *jax.device_put(rows, NamedSharding(mesh, P("data"))))
    assert_close(got, expected, 1e-9)
    assert jax.typeof(got[1][0]).sharding.spec == P("data", None, None)


def test_shard_map_over_the_batch_equals_one_device():
    cell = Stack(LRU(), num_layers=2)
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    params, xs, _ = problem(cell)

    def loss(params, xs):
        ys, h_last = unroll(cell, params, xs, lengths=jnp.full(len(xs), 5), backend="associative")
        return (ys**2).sum() + sum((leaf**3).sum() for leaf in jax.tree.leaves(h_last))

    slopes = jax.grad(loss, argnums=(0, 1))
    shared = jax.shard_map(slopes, mesh=mesh, in_specs=(P(), P("batch")), out_specs=(P(), P("batch")))
    assert_close(jax.jit(shared)(params, xs), jax.jit(slopes)(params, xs))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("cell", [MinGRU(), LRU(r_min=0.5)], ids=lambda cell: type(cell).__name__)
def test_narrow_parameters_compute_in_float32_and_round_once(cell, dtype):
    given = problem(cell, dtype=dtype)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), given)
    lengths = jnp.array([6, 1, 4, 0])

    def run(given, **options):
        slopes, outputs = gradient(cell, backend="associative", lengths=lengths, **options)(*given)
        return jax.tree.map(lambda a: a.astype(dtype), outputs), slopes

    (outputs, slopes), (wide_outputs, _) = run(given), run(wide, matmul_dtype=dtype)
    assert {leaf.dtype for leaf in jax.tree.leaves((outputs, slopes))} == {jnp.dtype(dtype)}
    jax.tree.map(np.testing.assert_array_equal, outputs, wide_outputs)
    scan_slopes, _ = gradient(cell, backend="scan", lengths=lengths)(*given)
    for got, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(scan_slopes), strict=True):
        got, expected = np.asarray(got, np.float32), np.asarray(expected, np.float32)
        np.testing.assert_allclose(got, expected, rtol=0.03, atol=0.01 * np.abs(expected).max())


@pytest.mark.parametrize("cell", [MinGRU(), LRU()], ids=lambda cell: type(cell).__name__)
def test_masked_inputs_do_not_change_values_or_gradients(cell):
    params, xs, h0 = problem(cell)
    mask = jax.random.bernoulli(jax.random.key(2), 0.6, xs.shape[:2]).at[1].set(False)
    evaluate = gradient(cell, backend="associative", mask=mask)
    expected = gradient(cell, backend="scan", mask=mask)(params, xs, h0)
    got = evaluate(params, jnp.where(mask[..., None], xs, jnp.nan), h0)
    assert_close(got, expected)
    np.testing.assert_array_equal(got[0][1][~mask], 0)


@pytest.mark.parametrize("cell", [MinGRU(), MinLSTM(), LRU()], ids=lambda cell: type(cell).__name__)
@pytest.mark.parametrize("reverse", [False, True])
def test_values_that_are_not_finite_do_not_cross_a_reset(cell, reverse):
    params, xs, h0 = problem(cell)
    xs, h0 = xs.at[:, 1].set(jnp.nan), jax.tree.map(lambda a: a * jnp.nan, h0)
    resets = jnp.zeros(xs.shape[:2], bool).at[:, jnp.array([0, 3, xs.shape[1] - 1])].set(True)
    ys, state = unroll(cell, params, xs, h0, resets=resets, reverse=reverse, backend="associative")
    expected, last = unroll(cell, params, xs, h0, resets=resets, reverse=reverse, backend="scan")
    assert set(np.isnan(expected).all((0, 2)).tolist()) == {True, False}
    np.testing.assert_array_equal(np.isnan(ys), np.isnan(expected))
    np.testing.assert_allclose(ys, expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state, last)


def test_derivatives_at_a_decay_of_zero_equal_the_scan_backend():
    """A factor of zero hides what was before it, but not that it can be changed."""
    cell = MinGRU()
    params, xs, h0 = problem(cell)
    decay = jnp.full((*xs.shape[:2], 1), 0.5).at[:, 2].set(0)

    def loss(decay, *, backend):
        return (unroll(cell, params, xs, h0, decay=decay, backend=backend)[0] ** 2).sum()

    for derive in (jax.jacfwd, jax.grad, jax.hessian):
        ours, expected = (derive(partial(loss, backend=backend))(decay) for backend in ("associative", "scan"))
        assert np.abs(expected[0, 2]).max() > 1e-3
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", [MinGRU(), LRU()], ids=lambda cell: type(cell).__name__)
def test_gradients_need_no_implicit_promotion(cell):
    params, xs, h0 = problem(cell)
    expected = gradient(cell, backend="scan")(params, xs, h0)
    with jax.numpy_dtype_promotion("strict"):
        assert_close(gradient(cell, backend="associative")(params, xs, h0), expected)


def test_programs_have_an_open_batch_axis_but_a_known_length():
    cell = MinGRU()
    params, xs, _ = problem(cell, B=3)

    def outputs(xs):
        return unroll(cell, params, xs, backend="associative")

    B, T = export.symbolic_shape("B, T")
    program = export.export(jax.jit(outputs))(jax.ShapeDtypeStruct((B, 6, 3), jnp.float32))
    assert_close(program.call(xs), outputs(xs))
    message = r'^backend: expected "auto" or "scan" for symbolic sizes, got "associative" for \(3, T, 3\)'
    with pytest.raises(ValueError, match=message):
        export.export(jax.jit(outputs))(jax.ShapeDtypeStruct((3, T, 3), jnp.float32))


@pytest.mark.parametrize("cell", [GRU(), LSTM(), Stack(GRU(), num_layers=2)], ids=["gru", "lstm", "stack"])
def test_a_cell_that_is_not_linear_raises_one_line(cell):
    params, xs, _ = problem(cell)
    known = '"auto", "scan" or "fused" for a cell that is not linear in its state'
    with pytest.raises(ValueError, match=re.escape(f'backend: expected {known}, got "associative" for {cell!r}') + "$"):
        unroll(cell, params, xs, backend="associative")


def test_sequences_without_steps_return_the_initial_state():
    params, xs, h0 = problem(LRU())
    ys, h_last = unroll(LRU(), params, xs[:, :0], h0, backend="associative")
    assert ys.shape == (4, 0, 8)
    assert_close(h_last, h0)
