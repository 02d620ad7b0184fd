"""Equinox: `GRUCell` and `LSTMCell`, scanned over time."""

from contextlib import nullcontext

import jax
import jax.numpy as jnp
import pytest

import gru_jax
from gru_jax.interop.equinox import from_cell, to_cell
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve

eqx = pytest.importorskip("equinox", reason="needs Equinox: make test-peers")

I, H = 3, 5
KINDS = {"gru_after": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}


def scan(module, xs, h0):
    """Runs a cell over one sequence, xs (T, I)."""

    def step(state, x):
        state = module(x, state)
        return state, state[0] if isinstance(state, tuple) else state

    h_last, ys = jax.lax.scan(step, h0, xs)
    return ys, h_last


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_outputs_states_and_gradients_are_equal(name, use_bias, dtype, backend):
    with jax.enable_x64(True) if dtype == "float64" else nullcontext():
        module = KINDS[name](I, H, use_bias=use_bias, dtype=jnp.dtype(dtype), key=jax.random.key(0))
        cell, params = from_cell(module)
        assert cell == CELLS[name]
        task = draw_task(cell, I, H, dtype, lengths=False)
        ours = solve(cell, params, task, backend)

        @eqx.filter_jit
        def run(module, xs, h0):
            return jax.vmap(scan, in_axes=(None, 0, 0))(module, xs, h0)

        arrays, static = eqx.partition(module, eqx.is_array)
        plain = {"gru_after": lambda state: state, "lstm": tuple}[name]
        (ys, h_last), pull = jax.vjp(
            lambda arrays, xs, h0: run(eqx.combine(arrays, static), xs, h0), arrays, task.xs, plain(task.h0)
        )
        gradients, xs_gradient, h0_gradient = pull((task.ys_weights, plain(task.last_weights)))
        assert_close(ours.ys, ys, dtype, "outputs")
        jax.tree.map(lambda a, b: assert_close(a, b, dtype, "final state"), plain(ours.h_last), h_last)
        pairs = [(plain(ours.h0_gradient), h0_gradient), (ours.xs_gradient, xs_gradient)]
        expected = to_cell(cell, ours.params_gradient)
        names = ["weight_ih", "weight_hh"] + (["bias"] if use_bias else [])
        names += ["bias_n"] if use_bias and name == "gru_after" else []
        pairs += [(vars(expected)[key], vars(gradients)[key]) for key in names]
        for a, b in pairs:
            jax.tree.map(lambda a, b: assert_close(a, b, dtype, "gradient", gradient=True), a, b)


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_is_exact(name):
    params = draw_params(CELLS[name], I, H)
    cell, params_read = from_cell(to_cell(CELLS[name], params))
    assert cell == CELLS[name]
    assert_same_bits(params_read, params)
    module = KINDS[name](I, H, key=jax.random.key(0))
    assert_same_bits(to_cell(*from_cell(module)), module)


def test_cells_that_equinox_lacks_raise_one_line():
    stack = gru_jax.Stack(CELLS["lstm"], 2)
    for cell, line in (
        (CELLS["gru_before"], 'expected reset="after", as Equinox has it'),
        (CELLS["elman"], "expected a GRU or an LSTM, as Equinox has them"),
        (CELLS["elman_relu"], "expected a GRU or an LSTM, as Equinox has them"),
        (stack, "expected a single cell, as Equinox has it, got 2 layers of 1 directions"),
    ):
        with pytest.raises(ValueError, match=f"^cell: {line}"):
            to_cell(cell, draw_params(cell, I, H))
    with pytest.raises(TypeError, match=r"^module: expected an equinox\.nn\.GRUCell or LSTMCell, got Linear$"):
        from_cell(eqx.nn.Linear(2, 3, key=jax.random.key(0)))
