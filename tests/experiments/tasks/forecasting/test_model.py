"""The forecaster: causality, channels, quantiles, decoding, the linear map, reversible normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.forecasting.model import EPSILON, Forecaster, ForecasterConfig, ReversibleNormalization, ordered
from experiments.tasks.forecasting.series import windows

LEVELS = (0.1, 0.5, 0.9)
WINDOW, HORIZON, VARIABLES, ROWS = 8, 5, 2, 30
VARIANTS = [
    ("direct", "shared", "mean"),
    ("direct", "joint", "last"),
    ("stepwise", "shared", "last"),
    ("stepwise", "joint", "none"),
]


def make(decoder="direct", channels="shared", normalization="mean", **options):
    config = ForecasterConfig(
        hidden_size=6, segment=2, decoder=decoder, channels=channels, normalization=normalization, **options
    )
    return Forecaster(config, WINDOW, HORIZON, VARIABLES, LEVELS, nnx.Rngs(0))


@pytest.mark.parametrize(("decoder", "channels", "normalization"), VARIANTS)
def test_forecasts_are_causal(decoder, channels, normalization):
    model = make(decoder, channels, normalization)
    series = jax.random.normal(jax.random.key(1), (ROWS, VARIABLES))
    origin = 15

    @jax.jit
    @jax.jacrev
    def by_row(series):
        # Forecasts (K, V, Q) of the window at the origin: their derivatives by every row of the whole series.
        return model(windows(series, np.array([origin]), WINDOW, HORIZON)[0])[0]

    derivative = np.abs(by_row(series))  # (K, V, Q, N, V)
    assert derivative[..., origin:, :].max() == 0.0
    assert derivative[..., : origin - WINDOW, :].max() == 0.0
    per_row = derivative.max(axis=(0, 1, 2, 4))
    assert (per_row[origin - WINDOW : origin] > 0).all()
    across = derivative[:, 0, :, :, 1].max(), derivative[:, 1, :, :, 0].max()
    assert across == (0.0, 0.0) if channels == "shared" else min(across) > 0


def test_quantiles_never_cross():
    model = make("stepwise")
    model.normalization.log_gain = nnx.Param(jnp.array([2.0, -3.0]))
    quantiles = nnx.jit(model)(10.0 * jax.random.normal(jax.random.key(2), (50, WINDOW, VARIABLES)))
    assert quantiles.shape == (50, HORIZON, VARIABLES, len(LEVELS))
    assert (jnp.diff(quantiles, axis=-1) > 0).all()


def test_ordered_quantiles_of_known_values():
    one = np.log1p(np.e)  # softplus(1)
    np.testing.assert_allclose(
        ordered(jnp.array([[1.0, 1.0, 5.0, 1.0, 1.0]]), 2),
        [[5 - 2 * one, 5 - one, 5, 5 + one, 5 + 2 * one]],
        rtol=1e-6,
    )


@pytest.mark.parametrize(("cell", "channels"), [("gru", "shared"), ("lstm", "joint")])
def test_stepwise_decoding_feeds_back_medians(cell, channels):
    # The same forecast by hand: each segment's medians are appended to the window, and the whole is read again.
    model = make("stepwise", channels, "none", cell=cell, num_layers=2)
    xs = jax.random.normal(jax.random.key(3), (4, WINDOW, VARIABLES))

    @jax.jit
    def both(xs):
        whole, forecasts = model(xs), []
        for _ in range(3):
            first = model(xs)[:, :2]
            forecasts.append(first)
            xs = jnp.concatenate([xs, first[..., 1]], axis=1)
        return whole, jnp.concatenate(forecasts, axis=1)[:, :HORIZON]

    np.testing.assert_allclose(*both(xs), rtol=1e-5, atol=1e-6)


def test_untrained_forecasts_are_near_the_last_value():
    model = make(normalization="last")
    xs = jax.random.normal(jax.random.key(5), (20, WINDOW, VARIABLES))
    difference = nnx.jit(model)(xs)[..., 1] - xs[:, -1:]
    assert float(jnp.abs(difference).max()) < 0.5


def test_linear_map_of_changes_since_the_last_value_is_added_to_all_quantiles():
    model, plain = (make(normalization="last", linear=linear) for linear in (True, False))
    rng = np.random.default_rng(4)
    W, b = rng.normal(size=(WINDOW, HORIZON)).astype(np.float32), rng.normal(size=HORIZON).astype(np.float32)
    model.linear.kernel, model.linear.bias = nnx.Param(jnp.asarray(W)), nnx.Param(jnp.asarray(b))
    xs = rng.normal(size=(4, WINDOW, VARIABLES)).astype(np.float32)
    spread = np.sqrt(xs.var(axis=1) + EPSILON)[:, None]
    added = np.einsum("btv,tk->bkv", xs - xs[:, -1:], W) + spread * b[None, :, None]
    np.testing.assert_allclose(nnx.jit(model)(xs), nnx.jit(plain)(xs) + added[..., None], rtol=1e-5, atol=1e-5)


def test_linear_map_and_recurrent_layers_both_receive_gradients():
    model = make(normalization="last", linear=True)
    xs = jax.random.normal(jax.random.key(6), (4, WINDOW, VARIABLES))
    gradient = nnx.jit(nnx.grad(lambda model: jnp.square(model(xs) - 1.0).mean()))(model)
    sizes = jax.tree.map(lambda g: float(jnp.abs(g).max()), (gradient["linear"], gradient["recurrent"]))
    assert min(jax.tree.leaves(sizes)) > 0


@pytest.mark.parametrize("options", [{"decoder": "stepwise"}, {"channels": "joint"}])
def test_linear_map_without_direct_forecasts_of_single_variables_is_refused(options):
    with pytest.raises(UserError, match=r"^linear: expected False unless decoder="):
        make(linear=True, **options)


@pytest.fixture
def xs():
    return 3.0 + 5.0 * jax.random.normal(jax.random.key(0), (4, 50, 2))


def learned(center):
    layer = ReversibleNormalization(2, center)
    layer.log_gain, layer.bias = nnx.Param(jnp.array([0.3, -1.2])), nnx.Param(jnp.array([0.5, -2.0]))
    return layer


@pytest.mark.parametrize("center", ["mean", "last"])
def test_inverse_restores_the_windows(center, xs):
    layer = learned(center)
    normalized, level = layer(xs)
    np.testing.assert_allclose(layer.inverse(normalized, level), xs, rtol=1e-5, atol=1e-5)


def test_untrained_normalization_standardizes_each_window(xs):
    normalized, _ = ReversibleNormalization(2, "mean")(xs)
    np.testing.assert_allclose(normalized.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(normalized.std(axis=1), 1.0, rtol=1e-4)
    around_last, _ = ReversibleNormalization(2, "last")(xs)
    np.testing.assert_array_equal(around_last[:, -1], 0.0)
    np.testing.assert_allclose(around_last.std(axis=1), 1.0, rtol=1e-4)


@pytest.mark.parametrize("center", ["mean", "last"])
def test_normalization_removes_level_and_scale(center, xs):
    layer = learned(center)
    normalized, _ = layer(xs)
    moved, level = layer(100.0 * xs - 7.0)
    np.testing.assert_allclose(moved, normalized, rtol=1e-3, atol=1e-4)
    plain = layer.inverse(jnp.ones((4, 3, 2)), layer(xs)[1])
    np.testing.assert_allclose(layer.inverse(jnp.ones((4, 3, 2)), level), 100.0 * plain - 7.0, rtol=1e-4, atol=1e-2)


def test_constant_window_stays_finite():
    layer = ReversibleNormalization(1, "mean")
    normalized, level = layer(jnp.full((1, 8, 1), 2.5))
    np.testing.assert_array_equal(normalized, 0.0)
    np.testing.assert_allclose(layer.inverse(jnp.zeros((1, 3, 1)), level), 2.5)
