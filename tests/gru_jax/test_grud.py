"""GRU-D against a loop in NumPy, and missing values that never enter the computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

import gru_jax.nnx
from gru_jax.nnx import GRUDState

B, T, I, H = 3, 7, 2, 5


def problem(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    xs = rng.normal(size=(B, T, I)).astype(dtype)
    observed = rng.random((B, T, I)) < 0.6
    observed[0, :, 1] = False  # A variable that is never observed.
    deltas = rng.uniform(0, 2, (B, T, I)).astype(dtype)
    return xs, observed, deltas


def make(dtype=jnp.float64):
    layer = gru_jax.nnx.GRUD(I, H, mean=jnp.asarray([0.3, -0.2], dtype), param_dtype=dtype, rngs=nnx.Rngs(0))
    keys = iter(jax.random.split(jax.random.key(1), 20))
    state = jax.tree.map(
        lambda a: a + 0.1 * jax.random.normal(next(keys), a.shape, a.dtype), nnx.state(layer, nnx.Param)
    )
    nnx.update(layer, state)  # So that no bias is zero.
    return layer


def loop(layer, xs, observed, deltas, lengths):
    """The equations of Che et al. (2018), step by step."""

    def decay(rate):
        return np.exp(-np.maximum(0, rate))

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    pick = {name: np.asarray(layer.gru[name][...]) for name in ("W", "U", "b")}
    (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = (np.split(pick[name], 3, -1) for name in ("W", "U", "b"))
    w_x, b_x, W_h, b_h, mean = (np.asarray(getattr(layer, name)[...]) for name in ("w_x", "b_x", "W_h", "b_h", "mean"))
    ys, last_h, last_x = np.zeros((B, T, H)), np.zeros((B, H)), np.tile(mean, (B, 1))
    for n in range(B):
        h, last = np.zeros(H), mean.copy()
        for t in range(lengths[n]):
            d, m = deltas[n, t], observed[n, t]
            gamma = decay(w_x * d + b_x)
            x = np.where(m, np.nan_to_num(xs[n, t]), gamma * last + (1 - gamma) * mean)
            last = np.where(m, np.nan_to_num(xs[n, t]), last)
            h = decay(d @ W_h + b_h) * h
            v = np.concatenate([x, m])
            r, z = sigmoid(v @ W_r + h @ U_r + b_r), sigmoid(v @ W_z + h @ U_z + b_z)
            h = (1 - z) * h + z * np.tanh(v @ W_n + (r * h) @ U_n + b_n)
            ys[n, t] = h
        last_h[n], last_x[n] = h, last
    return ys, last_h, last_x


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("lengths", [None, [7, 4, 0]])
def test_outputs_and_state_equal_the_equations(lengths):
    layer, given = make(), problem()
    ys, state = layer(*map(jnp.asarray, given), lengths=None if lengths is None else jnp.asarray(lengths))
    expected = loop(layer, *given, lengths or [T] * B)
    np.testing.assert_allclose(ys, expected[0], atol=1e-12)
    np.testing.assert_allclose(state.h, expected[1], atol=1e-12)
    np.testing.assert_allclose(state.last, expected[2], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_gradients_equal_finite_differences():
    layer, (xs, observed, deltas) = make(), problem()
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params, xs, deltas):
        ys, state = nnx.merge(graphdef, params, rest)(xs, jnp.asarray(observed), deltas)
        return (ys**2).sum() + state.h.sum()

    check_grads(loss, (params, jnp.asarray(xs), jnp.asarray(deltas)), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


def test_unobserved_values_change_neither_outputs_nor_gradients():
    layer, (xs, observed, deltas) = make(jnp.float32), problem(dtype=np.float32)
    graphdef, params, rest = nnx.split(layer, nnx.Param, ...)

    def loss(params, xs):
        ys, state = nnx.merge(graphdef, params, rest)(xs, jnp.asarray(observed), jnp.asarray(deltas))
        return (ys**2).sum() + state.last.sum()

    value_and_grad = jax.value_and_grad(loss, argnums=(0, 1))
    expected, gradient = value_and_grad(params, jnp.asarray(xs))
    for hidden in (np.nan, np.inf, 1e30):
        value, (g_params, g_xs) = value_and_grad(params, jnp.asarray(np.where(observed, xs, hidden).astype(np.float32)))
        assert value == expected
        jax.tree.map(np.testing.assert_array_equal, g_params, gradient[0])
        np.testing.assert_array_equal(g_xs, gradient[1])
        assert not np.asarray(g_xs)[~observed].any()


def test_chunks_with_a_carried_state_equal_one_pass():
    layer, given = make(jnp.float32), [jnp.asarray(array) for array in problem(dtype=np.float32)]
    expected, final = layer(*given)
    state, parts = None, []
    for start in (0, 3, 4):
        stop = {0: 3, 3: 4, 4: T}[start]
        ys, state = layer(*(array[:, start:stop] for array in given), state)
        parts.append(ys)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), expected, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, final)


def test_mean_is_a_buffer_and_not_a_parameter():
    layer = gru_jax.nnx.GRUD(I, H, mean=jnp.ones(I), rngs=nnx.Rngs(0))
    names = {path[0] for path, _ in nnx.to_flat_state(nnx.state(layer, nnx.Param))}
    assert names == {"gru", "w_x", "b_x", "W_h", "b_h"}
    assert "mean" in nnx.state(layer)


def test_initial_state_without_batch_axes_can_be_donated():
    layer = gru_jax.nnx.GRUD(I, H, mean=jnp.ones(I), rngs=nnx.Rngs(0))
    jax.block_until_ready(
        jax.jit(lambda state: jax.tree.map(jnp.negative, state), donate_argnums=0)(layer.initial_state())
    )
    np.testing.assert_array_equal(layer.mean[...], np.ones(I))


def test_layer_works_under_jit_and_vmap():
    layer, given = make(jnp.float32), [jnp.asarray(array) for array in problem(dtype=np.float32)]
    expected, _ = layer(*given)
    ys, _ = nnx.jit(lambda layer, *given: layer(*given))(layer, *given)
    np.testing.assert_allclose(ys, expected, atol=1e-6)
    alone, _ = jax.vmap(lambda *row: layer(*row))(*given)
    np.testing.assert_allclose(alone, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"xs": np.ones((B, T, I + 1), np.float32)}, r"xs: expected shape \(\.\.\., T, 2\), got \(3, 7, 3\)"),
        ({"observed": np.ones((B, T, I), np.float32)}, "observed: expected booleans, got float32"),
        ({"observed": np.ones((B, T), bool)}, r"observed: expected shape \(3, 7, 2\), the shape of xs, got \(3, 7\)"),
        ({"deltas": np.ones((B, 1, I), np.float32)}, r"deltas: expected shape \(3, 7, 2\), the shape of xs"),
        ({"deltas": np.ones((B, T, I), np.int32)}, "deltas: expected a floating-point dtype, got int32"),
        ({"state": np.ones((B, H), np.float32)}, r"state: expected GRUDState\(h, last\), got ndarray"),
        (
            {"state": GRUDState(np.ones((B, H), np.float32), np.ones(I, np.float32))},
            r"state.last: expected shape \(3, 2\)",
        ),
        (
            {"state": GRUDState(np.ones((B, I), np.float32), np.ones((B, I), np.float32))},
            r"state.h: expected shape \(3, 5\)",
        ),
        ({"state": GRUDState(np.ones((B, H), np.float32), [0.0])}, "state.last: expected an array, got list"),
        (
            {"state": GRUDState(np.ones((B, H), np.float32), np.ones((B, I), np.int32))},
            "state.last: expected a floating-point dtype, got int32",
        ),
        ({"lengths": np.ones(B + 1, int)}, r"lengths: expected shape \(3,\), the batch axes of xs, got \(4,\)"),
        ({"lengths": np.ones(B)}, "lengths: expected integers, got float"),
        ({"mask": np.ones((B, T), bool)}, "gru_jax.nnx.GRUD: expected one of xs, observed, .*, got mask="),
    ],
)
def test_invalid_argument_is_named(change, message):
    given = dict(zip(("xs", "observed", "deltas"), problem(dtype=np.float32), strict=True)) | change
    with pytest.raises((TypeError, ValueError), match=message):
        make(jnp.float32)(**given)


@pytest.mark.parametrize(
    ("dtype", "param_dtype", "of_xs", "of_deltas", "expected"),
    [
        (None, jnp.bfloat16, jnp.float32, jnp.float32, jnp.float32),
        (None, jnp.float32, jnp.bfloat16, jnp.float32, jnp.float32),
        (None, jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32),
        (None, jnp.bfloat16, jnp.bfloat16, jnp.bfloat16, jnp.bfloat16),
        (jnp.bfloat16, jnp.float32, jnp.float32, jnp.float32, jnp.bfloat16),
        (jnp.float32, jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32),
    ],
)
def test_dtypes_are_promoted_as_in_flax(dtype, param_dtype, of_xs, of_deltas, expected):
    layer = gru_jax.nnx.GRUD(I, H, dtype=dtype, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    xs, observed, deltas = problem(dtype=np.float32)
    xs, deltas = jnp.asarray(xs, of_xs), jnp.asarray(deltas, of_deltas)
    ys, state = layer(xs, observed, deltas)
    assert (ys.dtype, state.h.dtype, state.last.dtype) == (expected,) * 3
    initial = layer.initial_state((B,))
    assert (initial.h.dtype, initial.last.dtype) == (dtype or param_dtype,) * 2  # As in the other layers.
    again, _ = layer(xs, observed, deltas, jax.tree.map(lambda a: a.astype(jnp.float32), state))
    assert again.dtype == expected
    wide = gru_jax.nnx.GRUD(I, H, rngs=nnx.Rngs(0))
    nnx.update(wide, jax.tree.map(lambda a: a.astype(jnp.float32), nnx.state(layer)))
    np.testing.assert_allclose(ys.astype(jnp.float32), wide(*problem(dtype=np.float32))[0], atol=0.02)


def test_no_steps_leave_the_state_as_it_is():
    layer, (xs, observed, deltas) = make(jnp.float32), (a[:, :0] for a in problem(dtype=np.float32))
    before = GRUDState(jnp.ones((B, H)), jnp.full((B, I), 2.0))
    ys, after = layer(xs, observed, deltas, before)
    assert ys.shape == (B, 0, H)
    jax.tree.map(np.testing.assert_array_equal, after, before)
    np.testing.assert_array_equal(layer(xs, observed, deltas)[1].last, np.tile(layer.mean[...], (B, 1)))


@pytest.mark.parametrize("lengths", [None, [7, 4, 0, 2]])
def test_batch_is_sharded_over_an_explicit_mesh(lengths):
    layer = make(jnp.float32)
    given = [jnp.asarray(np.concatenate([array, array[:1]])) for array in problem(dtype=np.float32)]
    lengths = None if lengths is None else jnp.asarray(lengths)
    expected, final = layer(*given, lengths=lengths)
    with jax.set_mesh(jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))):
        rows = jax.tree.map(lambda array: jax.device_put(array, P("data")), given)
        lengths = None if lengths is None else jax.device_put(lengths, P("data"))
        ys, state = layer(*rows, lengths=lengths)
        assert all(jax.typeof(array).sharding.spec[0] == "data" for array in (ys, *state))
    np.testing.assert_allclose(ys, expected, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state, final)


def test_mean_of_a_wrong_size_is_named():
    with pytest.raises(ValueError, match=r"GRUD: mean: expected shape \(2,\), got \(3,\)"):
        gru_jax.nnx.GRUD(I, H, mean=jnp.ones(3), rngs=nnx.Rngs(0))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_slow_decay_is_not_lost_in_16_bits(dtype):
    T, layer = 1000, make(jnp.float32)
    layer.gru["b"][...] = jnp.full_like(layer.gru["b"][...], -12)  # z is zero, so that the cell keeps its state.
    layer.W_h[...], layer.b_h[...] = jnp.ones((I, H)), jnp.zeros(H)
    half = nnx.merge(*nnx.split(layer))
    half.dtype = dtype
    xs, observed, deltas = jnp.zeros((T, I)), jnp.ones((T, I), bool), jnp.full((T, I), 0.00075)
    state = GRUDState(jnp.ones(H), jnp.zeros(I))
    (ys, last), (half_ys, half_last) = (one(xs, observed, deltas, state, return_state=True) for one in (layer, half))
    np.testing.assert_allclose(last.h, np.exp(-1.5), rtol=0.05)
    assert half_ys.dtype == dtype
    np.testing.assert_allclose(half_last.h.astype("float32"), last.h, rtol=0.03)
    np.testing.assert_allclose(half_ys.astype("float32"), ys, rtol=0.03)
