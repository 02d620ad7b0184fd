"""The Linen modules: the functional core behind them, Linen's own `RNN` and lifted transformations around them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import serialization

import gru_jax
import gru_jax.linen as modules
from gru_jax import unroll

B, T, I, H = 3, 6, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
LENGTHS = jnp.array([6, 2, 1])
LAYERS = {
    "gru": (modules.GRU(H), gru_jax.GRU()),
    "gru after": (modules.GRU(H, reset="after"), gru_jax.GRU(reset="after")),
    "lstm": (modules.LSTM(H, forget_bias=0.5), gru_jax.LSTM(0.5)),
    "elman": (modules.Elman(H), gru_jax.Elman()),
}
CELLS = {
    "gru": (modules.GRUCell(H), gru_jax.GRU()),
    "gru after": (modules.GRUCell(H, reset="after"), gru_jax.GRU(reset="after")),
    "lstm": (modules.LSTMCell(H, forget_bias=0.5), gru_jax.LSTM(0.5)),
    "elman": (modules.ElmanCell(H), gru_jax.Elman()),
}


def close(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_unroll_with_parameters(name):
    layer, cell = LAYERS[name]
    variables = layer.init(jax.random.key(0), XS)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"layers"}
    ((params,),) = variables["params"]["layers"]
    assert layer.equations() == cell
    assert jax.tree.structure(params) == jax.tree.structure(cell.init(jax.random.key(0), I, H))
    ys, ((h_last,),) = layer.apply(variables, XS, lengths=LENGTHS)
    close((ys, h_last), unroll(cell, params, XS, lengths=LENGTHS))


def test_every_option_reaches_unroll():
    layer = modules.GRU(
        H, num_layers=2, bidirectional=True, merge="sum", matmul_dtype=jnp.bfloat16, backend="scan", reset="after"
    )
    stack = gru_jax.Stack(gru_jax.GRU(reset="after"), 2, bidirectional=True, merge="sum")
    assert layer.stack() == stack
    variables = layer.init(jax.random.key(1), XS)
    params = variables["params"]["layers"]
    h0 = jax.tree.map(lambda a: a + 0.5, stack.initial_state(H, (B,)))
    options = {"lengths": LENGTHS, "resets": jnp.arange(T)[:, None] == jnp.array([[0, 1, 2]]), "time_major": True}
    xs = XS.swapaxes(0, 1)
    expected = unroll(stack, params, xs, h0, backend="scan", matmul_dtype=jnp.bfloat16, **options)
    close(layer.apply(variables, xs, h0, **options), expected)
    jax.jvp(lambda xs: layer.apply(variables, xs)[0], (XS,), (XS,))  # which the default backend does not take


def test_parameters_in_another_dtype():
    layer = modules.LSTM(H, param_dtype=jnp.bfloat16)
    xs = XS.astype(jnp.bfloat16)
    (ys, h_last), variables = layer.init_with_output(jax.random.key(0), xs)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, ys, h_last))} == {jnp.dtype(jnp.bfloat16)}


def test_a_cell_in_another_dtype_begins_in_it():
    cell = modules.LSTMCell(H, param_dtype=jnp.bfloat16)
    begun = cell.initialize_carry(jax.random.key(0), (B, I))
    rnn = nn.RNN(cell, return_carry=True)
    (carry, ys), variables = rnn.init_with_output(jax.random.key(0), XS.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((begun, variables, carry, ys))} == {jnp.dtype(jnp.bfloat16)}


def test_grad_is_that_of_the_functional_core():
    layer = modules.GRU(H, num_layers=2)
    variables = layer.init(jax.random.key(0), XS)
    gradient = jax.jit(jax.grad(lambda v: (layer.apply(v, XS, lengths=LENGTHS)[0] ** 2).sum()))(variables)

    @jax.jit
    @jax.grad
    def expected(params):
        return (unroll(layer.stack(), params, XS, lengths=LENGTHS, backend="scan")[0] ** 2).sum()

    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(expected(variables["params"]["layers"])), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_an_ensemble_by_vmap():
    ensemble = nn.vmap(
        modules.GRU, in_axes=None, out_axes=0, axis_size=3, variable_axes={"params": 0}, split_rngs={"params": True}
    )(H)
    variables = ensemble.init(jax.random.key(0), XS)
    ys, _ = ensemble.apply(variables, XS)
    ((params,),) = variables["params"]["layers"]
    for member in range(3):
        one = jax.tree.map(lambda a, member=member: a[member], params)
        close(ys[member], unroll(gru_jax.GRU(), one, XS)[0])
    assert not np.allclose(ys[0], ys[1])


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"weight_dropout": 0.5}])
def test_dropout_acts_where_apply_gets_an_rng(rates):
    layer = modules.GRU(H, num_layers=2, **rates)
    variables = layer.init(jax.random.key(0), XS)

    def run(seed):
        return layer.apply(variables, XS, rngs={} if seed is None else {"dropout": jax.random.key(seed)})[0]

    still = unroll(gru_jax.Stack(gru_jax.GRU(), 2), variables["params"]["layers"], XS)[0]
    close(run(None), still)
    close(run(1), run(1))
    assert not np.allclose(run(1), still)
    assert not np.allclose(run(1), run(2))


def test_a_state_dict_there_and_back():
    layer = modules.LSTM(H, bidirectional=True)
    variables = layer.init(jax.random.key(0), XS)
    other = layer.init(jax.random.key(1), XS)
    read = serialization.from_bytes(other, serialization.to_bytes(variables))
    assert jax.tree.structure(read) == jax.tree.structure(variables)
    close(layer.apply(read, XS), layer.apply(variables, XS))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_inside_an_rnn(name):
    module, cell = CELLS[name]
    rnn = nn.RNN(module, return_carry=True)
    variables = rnn.init(jax.random.key(0), XS)
    params = variables["params"]["cell"]["weights"]
    carry, ys = rnn.apply(variables, XS)
    close((ys, carry), unroll(cell, params, XS))
    initial = jax.tree.map(lambda a: a + 0.5, cell.initial_state(H, (B,)))
    carry, ys = rnn.apply(variables, XS, initial_carry=initial, seq_lengths=LENGTHS)
    expected, h_last = unroll(cell, params, XS, initial, lengths=LENGTHS)
    close(carry, h_last)
    for number, length in enumerate(LENGTHS):
        close(ys[number, :length], expected[number, :length])


def test_a_cell_takes_a_matmul_dtype():
    cell = modules.GRUCell(H, matmul_dtype=jnp.bfloat16)
    x, h = XS[:, 0], jnp.full((B, H), 0.3)
    (_, y), variables = cell.init_with_output(jax.random.key(0), h, x)
    params = variables["params"]["weights"]
    close(y, gru_jax.gru_step(params, h, x, matmul_dtype=jnp.bfloat16))
    assert np.abs(y - gru_jax.gru_step(params, h, x)).max() > 1e-4


def test_cells_in_both_directions():
    rnn = nn.Bidirectional(nn.RNN(modules.GRUCell(H)), nn.RNN(modules.GRUCell(H)))
    variables = rnn.init(jax.random.key(0), XS)
    params = variables["params"]
    pair = (params["forward_rnn"]["cell"]["weights"], params["backward_rnn"]["cell"]["weights"])
    close(rnn.apply(variables, XS), unroll(gru_jax.Stack(gru_jax.GRU(), bidirectional=True), (pair,), XS)[0])


def test_a_wrong_state_is_one_line():
    cell = modules.GRUCell(H)
    variables = cell.init(jax.random.key(0), jnp.zeros((B, H)), XS[:, 0])
    with pytest.raises(
        ValueError, match=r"^carry: expected shape \(3, 4\), the batch axes of the input and H, got \(3, 5\)"
    ):
        cell.apply(variables, jnp.zeros((B, H + 1)), XS[:, 0])
    for base in (modules.Recurrent(H), modules.RecurrentCell(H)):
        with pytest.raises(NotImplementedError):
            base.equations()
