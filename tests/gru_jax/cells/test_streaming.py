"""A streaming step reads its weights where they lie."""

import jax
import jax.numpy as jnp
import pytest

import gru_jax
from gru_jax.cells import gates

H = 256
STEPS = {
    "gru before": (gru_jax.GRU(), lambda params, h, x: gru_jax.gru_step(params, h, x)),
    "gru after": (gru_jax.GRU(reset="after"), lambda params, h, x: gru_jax.gru_step(params, h, x, reset="after")),
    "lstm": (gru_jax.LSTM(), lambda params, h, x: gru_jax.lstm_step(params, gru_jax.LSTMState(h, h), x)),
    "elman": (gru_jax.Elman(), lambda params, h, x: gru_jax.elman_step(params, h, x)),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_weights_are_copied(name):
    cell, step = STEPS[name]
    params = cell.init(jax.random.key(0), input_size=H, hidden_size=H)
    memory = jax.jit(step).lower(params, jnp.ones((1, H)), jnp.ones((1, H))).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < H * H * 4 / 4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", STEPS)
def test_few_rows_and_many_give_the_same(name):
    """Weights are left whole for few rows, and cut for many."""
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
