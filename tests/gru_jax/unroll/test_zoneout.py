"""Zoneout: its rate, its masks, their keys, and what is stored for the backward pass."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from gru_jax import GRU, LSTM, Elman, LSTMState, Stack, linen, unroll
from gru_jax._zoneout import draw_zoneout, zoneout_key
from tests.gru_jax.minimal_gated_unit import Minimal

B, T, I, H = 3, 7, 2, 4
KEY = jax.random.key(5)
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
BACKENDS = {
    "scan": {"backend": "scan"},
    "save": {"backend": "fused", "memory": "save"},
    "recompute": {"backend": "fused", "memory": "recompute", "block_length": 3},
    "checkpoint": {"backend": "fused", "memory": "checkpoint", "block_length": 3},
}


@dataclass(frozen=True)
class Clock(Minimal):
    """A cell that adds one to its state at each step."""

    def project(self, params, xs, matmul_dtype=None):
        return ()

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        return state + 1


def ticks(key, rate=0.3, stack=None, **options):
    """Returns the final states of a stack of clocks: the numbers of steps at which units were not kept."""
    stack = stack or Stack(Clock(), num_layers=2, bidirectional=True)
    params = stack.init(jax.random.key(0), I, H)
    return unroll(stack, params, XS, zoneout=rate, key=key, **options)[1]


@pytest.mark.parametrize("rates", [(0.1,), (0.5,), (0.05, 0.6)])
def test_units_are_kept_at_the_rate(rates):
    state = (jnp.zeros((50, 30)),) * len(rates)
    for rate, kept in zip(rates, draw_zoneout(KEY, rates, 40, state), strict=True):
        assert kept.shape == (40, 50, 30)
        assert kept.dtype == jnp.bool_
        assert abs(np.asarray(kept).mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / kept.size)


def test_masks_of_steps_and_arrays_are_independent():
    kept = [np.asarray(a, np.float64).ravel() for a in draw_zoneout(KEY, (0.5, 0.5), 99, (jnp.zeros((11, 31)),) * 2)]
    spread = 1 / np.sqrt(kept[0].size)
    assert abs(np.corrcoef(*kept)[0, 1]) < 5 * spread
    assert abs(np.corrcoef(kept[0][: -11 * 31], kept[0][11 * 31 :])[0, 1]) < 5 * spread


@pytest.mark.parametrize(
    "rates", [{}, {"dropout": 0.5}, {"weight_dropout": 0.5}, {"dropout": 0.2, "weight_dropout": 0.1}]
)
@pytest.mark.parametrize("num_layers", [2, 3])
def test_masks_depend_on_the_key_the_layer_and_the_direction_only(rates, num_layers):
    final = ticks(KEY, stack=Stack(Clock(), num_layers, bidirectional=True, **rates))
    masks = set()
    for layer in range(num_layers):
        for direction in range(2):
            kept = draw_zoneout(zoneout_key(KEY, layer, direction), (0.3,), T, jnp.zeros((B, H)))
            np.testing.assert_array_equal(final[layer][direction], T - np.asarray(kept).sum(0))
            masks.add(np.asarray(kept).tobytes())
    assert len(masks) == 2 * num_layers


def test_masks_do_not_depend_on_the_backend_or_the_layout():
    expected = ticks(KEY)
    for options in BACKENDS.values():
        jax.tree.map(np.testing.assert_array_equal, ticks(KEY, **options), expected)
    jax.tree.map(np.testing.assert_array_equal, ticks(jax.random.PRNGKey(5)), expected)
    cell = Clock()
    ys, _ = unroll(cell, cell.init(KEY, I, H), XS.swapaxes(0, 1), time_major=True, zoneout=0.3, key=KEY)
    kept = draw_zoneout(zoneout_key(KEY), (0.3,), T, jnp.zeros((B, H)))
    np.testing.assert_array_equal(ys, np.cumsum(~np.asarray(kept), 0))


def test_zoneout_does_not_change_the_masks_of_dropout():
    stack = Stack(GRU(), num_layers=2, dropout=0.5, weight_dropout=0.3)
    params = stack.init(jax.random.key(0), I, H)
    expected = unroll(stack, params, XS, key=KEY)[0]
    np.testing.assert_array_equal(unroll(stack, params, XS, key=KEY, zoneout=1e-9)[0], expected)
    assert not np.array_equal(unroll(stack, params, XS, key=KEY, zoneout=0.1)[0], expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_expectation_is_used_without_a_key(backend):
    for state in jax.tree.leaves(ticks(None, 0.25, **BACKENDS[backend])):
        np.testing.assert_allclose(state, T * 0.75, rtol=1e-6)


def test_rates_of_an_lstm_may_be_a_pair():
    cell = LSTM()
    params = cell.init(jax.random.key(0), I, H)
    pair, named, same, both = (
        unroll(cell, params, XS, zoneout=rates, key=KEY) for rates in ((0.2, 0.5), LSTMState(0.2, 0.5), 0.2, [0.2, 0.2])
    )
    jax.tree.map(np.testing.assert_array_equal, pair, named)
    jax.tree.map(np.testing.assert_array_equal, same, both)
    assert not np.array_equal(pair[0], same[0])
    ys, h_last = unroll(cell, params, XS, zoneout=(0, 0.0), key=KEY)
    jax.tree.map(np.testing.assert_array_equal, (ys, h_last), unroll(cell, params, XS))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("memory", ["save", "recompute", "checkpoint"])
def test_masks_are_stored_in_one_byte_per_unit(memory, masked):
    cell, steps = Elman(), {"mask": XS[..., 0] > 0} if masked else {}
    params = cell.init(jax.random.key(0), I, H)

    def outputs(params, options):
        return unroll(cell, params, XS, backend="fused", memory=memory, block_length=2, **steps, **options)

    def stored(options):
        _, vjp = jax.vjp(lambda params: outputs(params, options), params)
        return sum(leaf.nbytes for leaf in jax.tree.leaves(vjp))

    # A mask (T, B) is part of the drawn one.
    extra = stored({"zoneout": 0.3, "key": KEY}) - stored({})
    assert extra == T * B * H - (T * B if masked else 0)


@pytest.mark.parametrize("cell", [GRU(), LSTM()])
def test_no_key_is_used_twice(cell):
    stack = Stack(cell, num_layers=2, bidirectional=True, dropout=0.5, weight_dropout=0.5)
    with jax.debug_key_reuse(True):
        ys, _ = unroll(stack, stack.init(jax.random.key(0), I, H), XS, zoneout=0.2, key=jax.random.key(1))
    assert np.isfinite(ys).all()


def test_nnx_layers_draw_in_training_mode_and_use_the_expectation_otherwise():
    layer = gru_jax.nnx.LSTM(I, H, num_layers=2, zoneout=LSTMState(h=0.1, c=0.5), rngs=nnx.Rngs(0))
    assert not np.array_equal(layer(XS)[0], layer(XS)[0])
    drawn = unroll(layer.stack, layer.parameters(), XS, zoneout=(0.1, 0.5), key=KEY)[0]
    np.testing.assert_array_equal(layer(XS, rngs=KEY)[0], drawn)
    layer.eval()
    expected = unroll(layer.stack, layer.parameters(), XS, zoneout=(0.1, 0.5))[0]
    np.testing.assert_array_equal(layer(XS)[0], expected)
    np.testing.assert_allclose(nnx.jit(lambda layer, xs: layer(xs)[0])(layer, XS), expected, rtol=1e-5, atol=1e-6)


def test_linen_layers_draw_in_training_mode_and_use_the_expectation_otherwise():
    layer = linen.GRU(H, zoneout=0.4)
    variables = layer.init(jax.random.key(0), XS, deterministic=True)
    first, again, other = (layer.apply(variables, XS, rngs={"dropout": jax.random.key(n)})[0] for n in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    expected = unroll(layer.stack, layer.parameters(variables), XS, zoneout=0.4)[0]
    np.testing.assert_array_equal(layer.apply(variables, XS, deterministic=True)[0], expected)


@pytest.mark.parametrize(
    ("call", "error", "line"),
    [
        (
            lambda: gru_jax.nnx.GRU(I, H, zoneout=0.1, rngs=nnx.Rngs(params=0))(XS),
            ValueError,
            "gru_jax.nnx.GRU: rngs: expected a stream `dropout` in the constructor or the call in training mode, "
            "got None",
        ),
        (
            lambda: gru_jax.nnx.GRU(I, H, zoneout=0.1, deterministic=None, rngs=nnx.Rngs(0))(XS),
            TypeError,
            "gru_jax.nnx.GRU: deterministic: expected True or False, got None",
        ),
        (
            lambda: gru_jax.nnx.GRU(I, H, zoneout=(0.1, 0.2), rngs=nnx.Rngs(0)),
            ValueError,
            "gru_jax.nnx.GRU: zoneout: expected one rate, as the state is one array, got (0.1, 0.2)",
        ),
        (
            lambda: linen.LSTM(H, zoneout=1.0).init(jax.random.key(0), XS),
            ValueError,
            "gru_jax.linen.LSTM: zoneout: expected a number in [0, 1), got 1.0",
        ),
    ],
)
def test_wrong_zoneout_of_a_layer_raises_one_line(call, error, line):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == line
