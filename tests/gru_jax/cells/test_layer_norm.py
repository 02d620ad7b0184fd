"""The GRU and the LSTM with layer normalization: steps by hand, invariances, parameters, wrong arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, LayerNormGRU, LayerNormLSTM, LSTMState, step, unroll
from gru_jax.cells.normalization import layer_norm, layer_norm_pullback, rms_norm, rms_norm_pullback

CELLS = {"gru": LayerNormGRU(), "lstm": LayerNormLSTM()}
PLAIN = {"gru": GRU(reset="after"), "lstm": LSTM()}
I, H = 3, 5


def random_params(cell, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    drawn = jax.eval_shape(lambda: cell.init(jax.random.key(0), I, H))
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), dtype), drawn)


@pytest.mark.usefixtures("x64")
def test_gru_step_equals_values_computed_by_hand():
    """Entries of two values are normalized to ±1, if epsilon is negligible. H = 2, columns [r1 r2 | z1 z2 | n1 n2].

    W x = (3, -1, -1, 3 | 5, 1): the mean of r and z is 1 and the deviation 2, so their norm is (1, -1, -1, 1). That of
    n is (1, -1). U h = (0, 2, 2, 0 | 0, 4): the norms are (-1, 1, 1, -1) and (-1, 1). With gains 1 for x and 2 for h,
      r = sigmoid(1 - 2, -1 + 2) = sigmoid(-1, 1), z = sigmoid(-1 + 2, 1 - 2) = sigmoid(1, -1)
      reached = 2 * (-1, 1) + (0.5, 0.5) = (-1.5, 2.5)
      n = tanh(1 - 1.5 sigmoid(-1) + 0.25, -1 + 2.5 sigmoid(1) - 0.25)
    """
    cell = LayerNormGRU(epsilon=1e-30)
    params = cell.init(jax.random.key(0), 1, 2, jnp.float64)._replace(
        W=jnp.array([[3.0, -1.0, -1.0, 3.0, 5.0, 1.0]]),
        U=jnp.array([[0.0, 2.0, 2.0, 0.0, 0.0, 4.0], [0.0] * 6]),
        b=jnp.array([0.0, 0.0, 0.0, 0.0, 0.25, -0.25]),
        b_hn=jnp.array([0.5, 0.5]),
        gain_h=jnp.full((6,), 2.0),
    )
    h = np.array([1.0, -3.0])
    y, after = step(cell, params, jnp.asarray(h), jnp.ones((1,)))
    s = 1 / (1 + np.exp(-1.0))
    n = np.tanh([1.25 - 1.5 * (1 - s), -1.25 + 2.5 * s])
    z = np.array([s, 1 - s])
    np.testing.assert_allclose(after, (1 - z) * h + z * n, rtol=1e-14)
    np.testing.assert_array_equal(y, after)


@pytest.mark.usefixtures("x64")
def test_lstm_step_equals_values_computed_by_hand():
    """H = 2, columns [i1 i2 | f1 f2 | g1 g2 | o1 o2]. Both products have two different entries, normalized to ±1.

    The norm of W x is (1, -1, 1, -1, 1, -1, 1, -1), that of U h its negative. With gains 2 and 1 the gates are
    sigmoid(1, -1) and g is tanh(1, -1). The norm of c' = (f1 c1 + i1 g1, f2 c2 + i2 g2) is (1, -1), since c1 is large.
    With gain_c = 0.5 and b_c = 0.25, h' = o * tanh(0.75, -0.25). The memory itself is not normalized.
    """
    cell = LayerNormLSTM(forget_bias=0.0, epsilon=1e-30)
    signs = jnp.array([1.0, -1.0] * 4)
    params = cell.init(jax.random.key(0), 1, 2, jnp.float64)._replace(
        W=(7 * signs + 4)[None],
        U=jnp.stack([2 - 3 * signs, jnp.zeros(8)]),
        gain_x=jnp.full((8,), 2.0),
        gain_c=jnp.full((2,), 0.5),
        b_c=jnp.full((2,), 0.25),
    )
    y, after = step(cell, params, LSTMState(jnp.ones(2), jnp.array([100.0, 0.0])), jnp.ones((1,)))
    s = 1 / (1 + np.exp(-1.0))
    gate, g = np.array([s, 1 - s]), np.tanh([1.0, -1.0])
    np.testing.assert_allclose(after.c, gate * np.array([100.0, 0.0]) + gate * g, rtol=1e-14)
    np.testing.assert_allclose(y, gate * np.tanh([0.75, -0.25]), rtol=1e-12)
    np.testing.assert_array_equal(y, after.h)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("field", ["W", "U"])
def test_outputs_do_not_depend_on_the_scale_of_the_weights(name, field):
    cell = type(CELLS[name])(epsilon=1e-14)
    params = random_params(cell, dtype=jnp.float64)
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(2, 6, I)))
    h0 = jax.tree.map(lambda a: a + jnp.arange(2.0 * H).reshape(2, H), cell.initial_state(H, (2,), jnp.float64))
    expected, _ = unroll(cell, params, xs, h0)
    scaled, _ = unroll(cell, params._replace(**{field: 3 * getattr(params, field)}), xs, h0)
    np.testing.assert_allclose(scaled, expected, rtol=1e-9)
    plain = type(params)._fields[: 4 if name == "gru" else 3]  # Without norms the scale matters.
    weights = {key: getattr(params, key) for key in plain}
    kind = type(PLAIN[name].init(jax.random.key(0), I, H))
    of_plain = [unroll(PLAIN[name], kind(**(weights | {field: scale * weights[field]})), xs, h0)[0] for scale in (1, 3)]
    assert np.abs(of_plain[0] - of_plain[1]).max() > 0.1


@pytest.mark.parametrize("name", CELLS)
def test_initial_parameters_are_those_without_norms_and_gains_of_one(name):
    cell, plain = CELLS[name], PLAIN[name]
    params, weights = (c.init(jax.random.key(3), I, H) for c in (cell, plain))
    for field in weights._fields:
        np.testing.assert_array_equal(getattr(params, field), getattr(weights, field))
    for field in set(params._fields) - set(weights._fields):
        np.testing.assert_array_equal(getattr(params, field), 0.0 if field == "b_c" else 1.0)
    narrow = cell.init(jax.random.key(3), I, H, jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(narrow)} == {jnp.dtype(jnp.bfloat16)}


def test_parameters_have_the_documented_shapes():
    gru, lstm = (jax.tree.map(jnp.shape, CELLS[name].init(jax.random.key(0), I, H)) for name in ("gru", "lstm"))
    assert gru._asdict() == {
        "W": (3, 15), "U": (5, 15), "b": (15,), "b_hn": (5,), "gain_x": (15,), "gain_h": (15,)
    }  # fmt: skip
    assert lstm._asdict() == {
        "W": (3, 20), "U": (5, 20), "b": (20,), "b_c": (5,), "gain_x": (20,), "gain_h": (20,), "gain_c": (5,)
    }  # fmt: skip


def test_defaults_are_those_of_the_paper():
    assert LayerNormGRU().epsilon == LayerNormLSTM().epsilon == 1e-5
    assert LayerNormLSTM().forget_bias == 1.0
    delays = LayerNormGRU(b_init="chrono", longest_delay=100).init(jax.random.key(0), I, H)
    assert (delays.b[H : 2 * H] < 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("norm", "pullback"), [(layer_norm, layer_norm_pullback), (rms_norm, rms_norm_pullback)])
def test_pullbacks_of_norms_equal_automatic_differentiation(norm, pullback):
    rng = np.random.default_rng(0)
    gates, cotangents = (tuple(jnp.asarray(a) for a in rng.normal(size=(3, 2, 4))) for _ in range(2))
    normalized, vjp = jax.vjp(lambda gates: norm(gates, 1e-3).gates, gates)
    for found, expected in zip(pullback(norm(gates, 1e-3), cotangents), vjp(cotangents)[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    together = np.concatenate(normalized, -1)
    np.testing.assert_allclose((together**2).mean(-1), 1, rtol=0.01)
    if norm is layer_norm:
        np.testing.assert_allclose(together.mean(-1), 0, atol=1e-12)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_gradients_are_finite_for_constant_products(name, backend):
    """A state of zeros has a product of zeros, whose variance is zero."""
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), I, H)

    def loss(params, xs):
        return unroll(cell, params, xs, backend=backend)[0].sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(params, jnp.zeros((2, 4, I)))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("kind", [LayerNormGRU, LayerNormLSTM])
@pytest.mark.parametrize(
    ("epsilon", "error", "got"), [(0, ValueError, "0"), (-1e-5, ValueError, "-1e-05"), ("small", TypeError, "'small'")]
)
def test_wrong_epsilon_is_an_error(kind, epsilon, error, got):
    with pytest.raises(error, match=rf"^{kind.__name__}: epsilon: expected a (positive )?number, got {got}$"):
        kind(epsilon=epsilon)


@pytest.mark.parametrize("name", CELLS)
def test_wrong_gains_are_an_error(name):
    cell, params = CELLS[name], random_params(CELLS[name])
    columns = params.W.shape[1]
    with pytest.raises(ValueError, match=rf"^params\.gain_h: expected shape \({columns},\), got \({2 * columns},\)$"):
        cell.infer_sizes(params._replace(gain_h=jnp.ones(2 * columns)))
    with pytest.raises(TypeError, match=r"^params\.gain_x: expected dtype float32, as params\.U, got bfloat16$"):
        cell.infer_sizes(params._replace(gain_x=params.gain_x.astype(jnp.bfloat16)))
    with pytest.raises(TypeError, match=rf"^params: expected {type(params).__name__}, got tuple$"):
        cell.infer_sizes(tuple(params))
