"""Single steps: `step` of cells and stacks, and the functions of each cell."""

import chex
import jax
import jax.numpy as jnp
import pytest

import gru_jax
from gru_jax.cells import gates
from tests.gru_jax.minimal_gated_unit import Minimal

H = 256
STEPS = {
    "gru before": (gru_jax.GRU(), lambda params, h, x: gru_jax.gru_step(params, h, x)),
    "gru after": (gru_jax.GRU(reset="after"), lambda params, h, x: gru_jax.gru_step(params, h, x)),
    "lstm": (gru_jax.LSTM(), lambda params, h, x: gru_jax.lstm_step(params, gru_jax.LSTMState(h, h), x)),
    "elman": (gru_jax.Elman(), lambda params, h, x: gru_jax.elman_step(params, h, x)),
    "lem": (gru_jax.LEM(), lambda params, h, x: gru_jax.step(gru_jax.LEM(), params, gru_jax.LEMState(h, h), x)),
}


@pytest.mark.parametrize("name", STEPS)
def test_step_does_not_copy_weights(name):
    cell, step = STEPS[name]
    params = cell.init(jax.random.key(0), input_size=H, hidden_size=H)
    memory = jax.jit(step).lower(params, jnp.ones((1, H)), jnp.ones((1, H))).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < H * H * 4 / 4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", STEPS)
def test_few_and_many_rows_have_the_same_gradients(name):
    """The weights of the gates are split only for many rows."""
    cell, step = STEPS[name]
    key_params, key_h, key_x = jax.random.split(jax.random.key(1), 3)
    params = cell.init(key_params, input_size=5, hidden_size=7, dtype=jnp.float64)
    many = 2 * gates.FEW_ROWS
    h = jax.random.normal(key_h, (many, 7), jnp.float64)
    x = jax.random.normal(key_x, (many, 5), jnp.float64)

    def loss(params, h, x):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(step(params, h, x)))

    assert not gates.few_rows(x)
    together, in_parts = jax.grad(loss)(params, h, x), []
    for start in range(0, many, gates.FEW_ROWS):
        rows = slice(start, start + gates.FEW_ROWS)
        assert gates.few_rows(x[rows])
        in_parts.append(jax.grad(loss)(params, h[rows], x[rows]))
    summed = jax.tree.map(lambda *parts: sum(parts), *in_parts)
    for found, expected in zip(jax.tree.leaves(summed), jax.tree.leaves(together), strict=True):
        assert jnp.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "cell",
    [gru_jax.GRU(), gru_jax.LSTM(), Minimal(), gru_jax.Stack(gru_jax.LSTM(), 2, dropout=0.5)],
    ids=lambda cell: type(cell).__name__,
)
def test_steps_equal_unroll(cell, param_dtype):
    params = cell.init(jax.random.key(0), 3, 4, param_dtype)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3), param_dtype)
    state = cell.initial_state(4, (2,), jnp.float32)
    expected, last = gru_jax.unroll(cell, params, xs, state, backend="scan")
    ys = []
    for t in range(5):
        y, state = gru_jax.step(cell, params, state, xs[:, t])
        ys.append(y)
    tolerance = 1e-6 if param_dtype == jnp.float32 else 2**-7
    chex.assert_trees_all_close(jnp.stack(ys, 1), expected.astype(jnp.float32), rtol=tolerance, atol=tolerance)
    chex.assert_trees_all_close(state, last, rtol=tolerance, atol=tolerance)


def test_gru_step_infers_the_reset_order():
    h, x = jnp.ones((2, 4)), jnp.ones((2, 3))
    for reset, other in (("before", "after"), ("after", "before")):
        params = gru_jax.GRU(reset=reset, b_init="uniform").init(jax.random.key(0), 3, 4)
        expected, _ = gru_jax.step(gru_jax.GRU(reset=reset), params, h, x)
        chex.assert_trees_all_equal(gru_jax.gru_step(params, h, x), expected)
        chex.assert_trees_all_equal(gru_jax.gru_step(params, h, x, reset=reset), expected)
        with pytest.raises(ValueError, match=rf'^params.b_hn: expected .* for reset="{other}", got '):
            gru_jax.gru_step(params, h, x, reset=other)
