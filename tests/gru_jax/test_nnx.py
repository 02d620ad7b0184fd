"""The NNX modules: the functional core behind them, and NNX's own transformations around them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
import gru_jax.nnx as modules
from gru_jax import unroll

B, T, I, H = 3, 6, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
LENGTHS = jnp.array([6, 2, 0])


CELLS = {
    "gru": (lambda rngs: modules.GRUCell(I, H, rngs=rngs), gru_jax.GRU()),
    "gru after": (lambda rngs: modules.GRUCell(I, H, reset="after", rngs=rngs), gru_jax.GRU(reset="after")),
    "lstm": (lambda rngs: modules.LSTMCell(I, H, forget_bias=0.5, rngs=rngs), gru_jax.LSTM(0.5)),
    "elman": (lambda rngs: modules.ElmanCell(I, H, rngs=rngs), gru_jax.Elman()),
    "any cell": (lambda rngs: modules.RecurrentCell(gru_jax.LSTM(), I, H, rngs=rngs), gru_jax.LSTM()),
}


def close(a, b):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)


MODULES = {
    "gru": (lambda rngs: modules.GRU(I, H, rngs=rngs), gru_jax.GRU()),
    "gru after": (lambda rngs: modules.GRU(I, H, reset="after", rngs=rngs), gru_jax.GRU(reset="after")),
    "lstm": (lambda rngs: modules.LSTM(I, H, forget_bias=0.5, rngs=rngs), gru_jax.LSTM(0.5)),
    "elman": (lambda rngs: modules.Elman(I, H, rngs=rngs), gru_jax.Elman()),
    "any cell": (lambda rngs: modules.Recurrent(gru_jax.LSTM(), I, H, rngs=rngs), gru_jax.LSTM()),
}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_unroll_with_parameters(name):
    make, cell = MODULES[name]
    layer = make(nnx.Rngs(0))
    ((params,),) = layer.parameters()
    assert jax.tree.structure(params) == jax.tree.structure(cell.init(jax.random.key(0), I, H))
    close(params, cell.init(jax.random.split(nnx.Rngs(0).params(), 1)[0], I, H))
    ys, ((h_last,),) = layer(XS, lengths=LENGTHS)
    close((ys, h_last), unroll(cell, params, XS, lengths=LENGTHS))
    assert layer.out_features == H


def test_every_option_reaches_unroll():
    layer = modules.GRU(
        I, H, num_layers=2, bidirectional=True, merge="sum", matmul_dtype=jnp.bfloat16, backend="scan", rngs=nnx.Rngs(1)
    )
    stack = gru_jax.Stack(gru_jax.GRU(), 2, bidirectional=True, merge="sum")
    h0 = jax.tree.map(lambda a: a + 0.5, layer.initial_state((B,)))
    options = {"lengths": LENGTHS, "resets": jnp.arange(T)[:, None] == jnp.array([[0, 1, 2]]), "time_major": True}
    expected = unroll(
        stack, layer.parameters(), XS.swapaxes(0, 1), h0, backend="scan", matmul_dtype=jnp.bfloat16, **options
    )
    close(layer(XS.swapaxes(0, 1), h0, **options), expected)
    jax.jvp(lambda xs: layer(xs)[0], (XS,), (XS,))  # which the default backend does not take
    assert expected[0].shape == (T, B, layer.out_features)


def test_parameters_in_another_dtype():
    layer = modules.LSTM(I, H, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param))} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(layer.initial_state((2,)))} == {jnp.dtype(jnp.bfloat16)}
    assert layer(XS.astype(jnp.bfloat16))[0].dtype == jnp.bfloat16


def test_a_cell_in_another_dtype_begins_in_it():
    cell = modules.LSTMCell(I, H, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    begun = (
        cell.initialize_carry((B, I), nnx.Rngs(0)),
        cell.initialize_carry((B, I), nnx.Rngs(carry=0), nnx.initializers.normal()),
    )
    carry, ys = nnx.RNN(cell, return_carry=True)(XS.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((begun, carry, ys))} == {jnp.dtype(jnp.bfloat16)}


def test_split_and_merge():
    layer = modules.GRU(I, H, num_layers=2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    assert sorted(leaf.shape for leaf in jax.tree.leaves(state)) == sorted(
        leaf.shape for leaf in jax.tree.leaves(layer.parameters())
    )
    doubled = nnx.merge(graph, jax.tree.map(lambda a: 2 * a, state))
    close(doubled.parameters(), jax.tree.map(lambda a: 2 * a, layer.parameters()))
    close(nnx.merge(graph, state)(XS), layer(XS))


def test_jit_sees_new_parameters():
    layer = modules.GRU(I, H, rngs=nnx.Rngs(0))
    call = nnx.jit(lambda layer, xs: layer(xs)[0])
    before = call(layer, XS)
    close(before, layer(XS)[0])
    nnx.update(layer, jax.tree.map(lambda a: a + 0.1, nnx.state(layer)))
    after = call(layer, XS)
    assert not np.allclose(before, after)
    close(after, layer(XS)[0])


def test_grad_is_that_of_the_functional_core():
    layer = modules.LSTM(I, H, num_layers=2, rngs=nnx.Rngs(0))
    gradient = nnx.jit(nnx.grad(lambda layer: (layer(XS, lengths=LENGTHS)[0] ** 2).sum()))(layer)

    @jax.jit
    @jax.grad
    def expected(params):
        return (unroll(layer.cell, params, XS, lengths=LENGTHS, backend="scan")[0] ** 2).sum()

    wanted = expected(layer.parameters())
    for number, (params,) in enumerate(wanted):
        assert_gradient(gradient["layers"][number][0], params)


def assert_gradient(found, expected):
    """Compares by name: NNX sorts the names in a state."""
    for key, array in expected._asdict().items():
        if array is not None:
            leaf = found[key] if isinstance(found, dict) else getattr(found, key)
            np.testing.assert_allclose(leaf[...], array, rtol=1e-4, atol=1e-5)


def test_an_optimizer_trains_it():
    optax = pytest.importorskip("optax")
    layer = modules.GRU(I, H, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(layer, optax.adam(0.05), wrt=nnx.Param)

    @nnx.jit
    def train(layer, optimizer):
        loss, gradient = nnx.value_and_grad(lambda layer: ((layer(XS)[0] - 0.3) ** 2).mean())(layer)
        optimizer.update(layer, gradient)
        return loss

    losses = [float(train(layer, optimizer)) for _ in range(30)]
    assert losses[-1] < 0.3 * losses[0]


def test_an_ensemble_by_vmap():
    @nnx.split_rngs(splits=3)
    @nnx.vmap
    def make(rngs):
        return modules.GRU(I, H, rngs=rngs)

    ensemble = make(nnx.Rngs(0))
    ys = nnx.vmap(lambda layer, xs: layer(xs)[0], in_axes=(0, None))(ensemble, XS)
    assert ys.shape == (3, B, T, H)
    ((params,),) = jax.tree.map(lambda p: p[...], ensemble.layers, is_leaf=lambda p: isinstance(p, nnx.Variable))
    for member in range(3):
        one = jax.tree.map(lambda a, member=member: a[member], params)
        close(ys[member], unroll(gru_jax.GRU(), one, XS)[0])
    assert not np.allclose(ys[0], ys[1])


def test_dropout_acts_where_the_call_gets_rngs():
    layer = modules.GRU(I, H, num_layers=2, dropout=0.5, rngs=nnx.Rngs(0))
    still = layer(XS)[0]
    close(still, layer(XS)[0])
    rngs = nnx.Rngs(dropout=7)
    first, second = layer(XS, rngs=rngs)[0], layer(XS, rngs=rngs)[0]
    assert not np.allclose(first, still)
    assert not np.allclose(first, second)  # The stream moves on.
    close(layer(XS, rngs=nnx.Rngs(dropout=7))[0], first)
    key = nnx.Rngs(dropout=7).dropout()
    close(layer(XS, rngs=key)[0], first)
    close(unroll(layer.cell, layer.parameters(), XS, key=key)[0], first)
    layer = modules.GRU(I, H, weight_dropout=0.5, rngs=nnx.Rngs(0))
    assert layer.cell == gru_jax.Stack(gru_jax.GRU(), weight_dropout=0.5)
    assert not np.allclose(layer(XS, rngs=key)[0], layer(XS)[0])


def test_a_stream_of_randomness_is_not_asked_for_where_nothing_is_dropped():
    layer, rngs = modules.GRU(I, H, rngs=nnx.Rngs(0)), nnx.Rngs(dropout=7)
    close(layer(XS, rngs=rngs), layer(XS))
    assert rngs.dropout.count[...] == 0
    close(layer(XS, rngs=nnx.Rngs(params=0)), layer(XS))


def test_a_state_dict_there_and_back():
    layer, other = (modules.LSTM(I, H, num_layers=2, bidirectional=True, rngs=nnx.Rngs(seed)) for seed in range(2))
    state = nnx.state(layer)
    pure = nnx.to_pure_dict(state)
    assert {leaf.shape for leaf in jax.tree.leaves(pure)} == {leaf.shape for leaf in jax.tree.leaves(state)}
    assert not np.allclose(layer(XS)[0], other(XS)[0])
    blank = nnx.state(other)
    nnx.replace_by_pure_dict(blank, jax.tree.map(np.asarray, pure))
    nnx.update(other, blank)
    close(other(XS), layer(XS))
    doubled = jax.tree.map(lambda a: 2 * a, layer.parameters())
    other.set_parameters(doubled)
    close(other(XS), unroll(layer.cell, doubled, XS))
    with pytest.raises(ValueError, match=r"^params: expected I, H and dtype \(2, 4, .*, got \(3, 4, "):
        other.set_parameters(other.cell.init(jax.random.key(0), I + 1, H))


def test_arguments_by_position():
    one = modules.GRU(I, H, 2, True, 0.1, "after", rngs=nnx.Rngs(0))
    other = modules.GRU(I, H, num_layers=2, bidirectional=True, dropout=0.1, reset="after", rngs=nnx.Rngs(0))
    assert one.cell == other.cell == gru_jax.Stack(gru_jax.GRU(reset="after"), 2, True, dropout=0.1)
    assert modules.LSTM(I, H, 2, False, 0.1, 0.5, rngs=nnx.Rngs(0)).cell == gru_jax.Stack(
        gru_jax.LSTM(0.5), 2, dropout=0.1
    )
    assert modules.Elman(I, H, 2, True, 0.1, rngs=nnx.Rngs(0)).cell == gru_jax.Stack(
        gru_jax.Elman(), 2, True, dropout=0.1
    )


def test_layers_that_share_variables_stay_together():
    one, other = (modules.GRU(I, H, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    other.layers = one.layers
    doubled = jax.tree.map(lambda a: 2 * a, one.parameters())
    one.set_parameters(jax.tree.map(np.asarray, doubled))
    for layer in (one, other):
        assert all(map(np.array_equal, jax.tree.leaves(layer.parameters()), jax.tree.leaves(doubled)))


def test_an_error_of_a_cell_names_flax_s_arguments():
    cell = modules.GRUCell(I, H, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"^inputs: expected shape"):
        cell(jnp.zeros((2, H)), jnp.ones((2, I + 1)))
    with pytest.raises(ValueError, match=r"^carry: expected"):
        cell(jnp.zeros((2, H + 1)), jnp.ones((2, I)))


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_inside_an_rnn(name):
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


def test_a_cell_takes_a_matmul_dtype():
    cell = modules.GRUCell(I, H, matmul_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x, h = XS[:, 0], jnp.full((B, H), 0.3)
    _, y = cell(h, x)
    close(y, gru_jax.gru_step(cell.parameters(), h, x, matmul_dtype=jnp.bfloat16))
    assert np.abs(y - gru_jax.gru_step(cell.parameters(), h, x)).max() > 1e-4


def test_the_gradient_of_a_cell_inside_an_rnn():
    rnn = nnx.RNN(modules.GRUCell(I, H, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    gradient = nnx.grad(lambda rnn: (rnn(XS) ** 2).sum())(rnn)
    expected = jax.grad(lambda params: (unroll(gru_jax.GRU(), params, XS)[0] ** 2).sum())(rnn.cell.parameters())
    assert_gradient(gradient["cell"]["weights"], expected)


def test_cells_in_both_directions():
    pair = [modules.GRUCell(I, H, rngs=nnx.Rngs(seed)) for seed in range(2)]
    rnn = nnx.Bidirectional(*[nnx.RNN(cell, rngs=nnx.Rngs(0)) for cell in pair], rngs=nnx.Rngs(0))
    params = (tuple(cell.parameters() for cell in pair),)
    close(rnn(XS), unroll(gru_jax.Stack(gru_jax.GRU(), bidirectional=True), params, XS)[0])


def test_a_drawn_carry():
    cell = modules.LSTMCell(I, H, rngs=nnx.Rngs(0))
    close(cell.initialize_carry((B, I), nnx.Rngs(0)), gru_jax.LSTM().initial_state(H, (B,)))
    drawn = cell.initialize_carry((B, I), nnx.Rngs(carry=3), nnx.initializers.normal())
    assert drawn.h.shape == drawn.c.shape == (B, H)
    assert not np.allclose(drawn.h, drawn.c)
    with pytest.raises(ValueError, match=r"^rngs: expected Rngs with a stream `carry`, for carry_init draws"):
        cell.initialize_carry((B, I), None, nnx.initializers.normal())
