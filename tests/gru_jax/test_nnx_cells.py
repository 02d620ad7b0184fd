"""NNX cells inside `flax.nnx.RNN` equal `gru_jax.unroll`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
import gru_jax.nnx as modules
from gru_jax import linen, unroll
from gru_jax.interop.flax import to_nnx

B, T, I, H = 3, 6, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)


def close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-6, atol=1e-6)


CELLS = {
    "gru": (lambda rngs: modules.GRUCell(I, H, rngs=rngs), gru_jax.GRU()),
    "gru after": (lambda rngs: modules.GRUCell(I, H, reset="after", rngs=rngs), gru_jax.GRU(reset="after")),
    "lstm": (lambda rngs: modules.LSTMCell(I, H, forget_bias=0.5, rngs=rngs), gru_jax.LSTM(0.5)),
    "elman": (lambda rngs: modules.ElmanCell(I, H, rngs=rngs), gru_jax.Elman()),
    "elman relu": (lambda rngs: modules.ElmanCell(I, H, activation="relu", rngs=rngs), gru_jax.Elman("relu")),
    "any cell": (lambda rngs: modules.RecurrentCell(gru_jax.LSTM(), I, H, rngs=rngs), gru_jax.LSTM()),
}


def test_initial_carry_has_param_dtype():
    cell = modules.LSTMCell(I, H, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    begun = (
        cell.initialize_carry((B, I), nnx.Rngs(0)),
        cell.initialize_carry((B, I), nnx.Rngs(carry=0), nnx.initializers.normal()),
    )
    carry, ys = nnx.RNN(cell, return_carry=True)(XS.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((begun, carry, ys))} == {jnp.dtype(jnp.bfloat16)}


def test_errors_of_a_cell_name_carry_and_inputs():
    cell = modules.GRUCell(I, H, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^inputs: expected shape"):
        cell(jnp.zeros((2, H)), jnp.ones((2, I + 1)))
    with pytest.raises(ValueError, match=r"^carry: expected"):
        cell(jnp.zeros((2, H + 1)), jnp.ones((2, I)))


@pytest.mark.parametrize("name", CELLS)
def test_rnn_equals_unroll(name):
    make, cell = CELLS[name]
    module = make(nnx.Rngs(0))
    rnn = nnx.RNN(module, return_carry=True, rngs=nnx.Rngs(0))
    carry, ys = nnx.jit(lambda rnn, xs: rnn(xs))(rnn, XS)
    close((ys, carry), unroll(cell, module.parameters(), XS))
    initial = jax.tree.map(lambda a: a + 0.5, cell.initial_state(H, (B,)))
    lengths = jnp.array([6, 2, 1])
    carry, ys = rnn(XS, initial_carry=initial, seq_lengths=lengths)
    expected, h_last = unroll(cell, module.parameters(), XS, initial, lengths=lengths)
    close(carry, h_last)
    for number, length in enumerate(lengths):
        close(ys[number, :length], expected[number, :length])


def test_matmul_dtype_is_used():
    cell = modules.GRUCell(I, H, matmul_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x, h = XS[:, 0], jnp.full((B, H), 0.3)
    _, y = cell(h, x)
    close(y, gru_jax.gru_step(cell.parameters(), h, x, matmul_dtype=jnp.bfloat16))
    assert np.abs(y - gru_jax.gru_step(cell.parameters(), h, x)).max() > 1e-4


def test_gradient_of_rnn_equals_the_gradient_of_unroll():
    rnn = nnx.RNN(modules.GRUCell(I, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    gradient = nnx.grad(lambda rnn: (rnn(XS) ** 2).sum())(rnn)
    expected = jax.grad(lambda params: (unroll(gru_jax.GRU(), params, XS)[0] ** 2).sum())(rnn.cell.parameters())
    for name in ("W", "U", "b"):  # NNX sorts the names in a state.
        found = getattr(gradient["cell"]["weights"], name)[...]
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-4, atol=1e-5)


def test_bidirectional_rnn_equals_stack():
    pair = [modules.GRUCell(I, H, rngs=nnx.Rngs(seed)) for seed in range(2)]
    rnn = nnx.Bidirectional(*[nnx.RNN(cell, rngs=nnx.Rngs(0)) for cell in pair], rngs=nnx.Rngs(0))
    params = (tuple(cell.parameters() for cell in pair),)
    close(rnn(XS), unroll(gru_jax.Stack(gru_jax.GRU(), bidirectional=True), params, XS)[0])


def test_carry_init_draws_the_carry():
    cell = modules.LSTMCell(I, H, rngs=nnx.Rngs(0))
    close(cell.initialize_carry((B, I), nnx.Rngs(0)), gru_jax.LSTM().initial_state(H, (B,)))
    drawn = cell.initialize_carry((B, I), nnx.Rngs(carry=3), nnx.initializers.normal())
    assert drawn.h.shape == drawn.c.shape == (B, H)
    assert not np.allclose(drawn.h, drawn.c)
    with pytest.raises(ValueError, match=r"^rngs: expected Rngs with a stream `carry` for carry_init, got None"):
        cell.initialize_carry((B, I), None, nnx.initializers.normal())
    with pytest.raises(TypeError, match=r"^rngs: expected Rngs with a stream `carry` for carry_init, got PRNG"):
        cell.initialize_carry((B, I), jax.random.key(0), nnx.initializers.normal())


def test_plain_carry_of_an_lstm_has_the_order_of_flax():
    """The LSTM cell of Flax with the same weights has the same carries (c, h)."""
    ours = modules.LSTMCell(I, H, rngs=nnx.Rngs(0))
    theirs = to_nnx(gru_jax.LSTM(), ours.parameters())
    carry = (jnp.full((B, H), 0.5), jnp.full((B, H), -0.3))
    found, expected = ours(carry, XS[:, 0]), theirs(carry, XS[:, 0])
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    close(found, expected)
    (c, h), _ = found
    state, _ = ours(gru_jax.LSTMState(h=carry[1], c=carry[0]), XS[:, 0])
    close((state.c, state.h), (c, h))
    run, flax = (nnx.RNN(cell, return_carry=True)(XS, initial_carry=carry) for cell in (ours, theirs))
    close(run, flax)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (
            lambda: modules.GRUCell(I, H, carry_init=0, rngs=nnx.Rngs(0)),
            "GRUCell: expected an initial state in the call",
        ),
        (
            lambda: modules.LSTMCell(I, features=H, rngs=nnx.Rngs(0)),
            "LSTMCell: expected hidden_features=, got features=",
        ),
        (lambda: modules.GRUCell(I, -1, rngs=nnx.Rngs(0)), "GRUCell: hidden_features: expected a positive integer, "),
        (lambda: modules.GRUD(0, H, rngs=nnx.Rngs(0)), "GRUD: in_features: expected a positive integer, got 0"),
        (lambda: modules.ElmanCell(I, H, rngs=jax.random.key(0)), "ElmanCell: rngs: expected flax.nnx.Rngs, such as"),
        (
            lambda: modules.GRUCell(I, H, rngs=nnx.Rngs(0)).initialize_carry(
                (B, I), nnx.Rngs(params=0), nnx.initializers.normal()
            ),
            "GRUCell: rngs: expected a stream `carry` or a default one, got params",
        ),
    ],
)
def test_wrong_argument_raises_one_line_with_the_cell(call, error):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert str(raised.value).startswith(f"gru_jax.nnx.{error}")


@pytest.mark.parametrize(("cell", "got"), [(gru_jax.GRU, "the class GRU"), ("gru", "str"), (None, "NoneType")])
def test_something_else_than_a_cell_is_named(cell, got):
    for make in (
        lambda: modules.RecurrentCell(cell, I, H, rngs=nnx.Rngs(0)),
        lambda: linen.RecurrentCell(cell, H).init(jax.random.key(0), jnp.ones((2, H)), jnp.ones((2, I))),
    ):
        with pytest.raises(TypeError) as raised:
            make()
        assert str(raised.value).endswith(f"RecurrentCell: cell: expected a cell such as gru_jax.GRU(), got {got}")
