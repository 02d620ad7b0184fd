"""Linen layers and cells equal `gru_jax.unroll` and work with `RNN` and lifted transformations."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import errors, serialization, traverse_util
from flax.core import freeze

import gru_jax
import gru_jax.linen as modules
from gru_jax import unroll
from gru_jax.interop.flax import to_linen

B, T, I, H = 3, 6, 2, 4
XS = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
LENGTHS = jnp.array([6, 2, 1])
LAYERS = {
    "gru": (modules.GRU(H), gru_jax.GRU()),
    "gru after": (modules.GRU(H, reset="after"), gru_jax.GRU(reset="after")),
    "lstm": (modules.LSTM(H, forget_bias=0.5), gru_jax.LSTM(0.5)),
    "elman": (modules.Elman(H), gru_jax.Elman()),
    "elman relu": (modules.Elman(H, activation="relu"), gru_jax.Elman("relu")),
    "any cell": (modules.Recurrent(gru_jax.LSTM(), H), gru_jax.LSTM()),
}
CELLS = {
    "gru": (modules.GRUCell(H), gru_jax.GRU()),
    "gru after": (modules.GRUCell(H, reset="after"), gru_jax.GRU(reset="after")),
    "lstm": (modules.LSTMCell(H, forget_bias=0.5), gru_jax.LSTM(0.5)),
    "elman": (modules.ElmanCell(H), gru_jax.Elman()),
    "elman relu": (modules.ElmanCell(H, activation="relu"), gru_jax.Elman("relu")),
    "any cell": (modules.RecurrentCell(gru_jax.LSTM(), H), gru_jax.LSTM()),
}

DTYPES = [(None, "bfloat16", "float32"), (None, "float32", "float32"), ("bfloat16", "float32", "bfloat16")]


def close(a, b):
    chex.assert_trees_all_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_equals_unroll(name):
    layer, cell = LAYERS[name]
    variables = layer.init(jax.random.key(0), XS)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"layers"}
    ((params,),) = layer.parameters(variables)
    assert layer.cell == cell
    assert jax.tree.structure(params) == jax.tree.structure(cell.init(jax.random.key(0), I, H))
    ys, ((h_last,),) = layer.apply(variables, XS, lengths=LENGTHS)
    close((ys, h_last), unroll(cell, params, XS, lengths=LENGTHS))


def test_options_are_passed_to_unroll():
    layer = modules.GRU(
        H, num_layers=2, bidirectional=True, merge="sum", matmul_dtype=jnp.bfloat16, backend="scan", reset="after"
    )
    stack = gru_jax.Stack(gru_jax.GRU(reset="after"), 2, bidirectional=True, merge="sum")
    assert layer.stack == stack
    variables = layer.init(jax.random.key(1), XS)
    params = layer.parameters(variables)
    h0 = jax.tree.map(lambda a: a + 0.5, stack.initial_state(H, (B,)))
    options = {"lengths": LENGTHS, "resets": jnp.arange(T)[:, None] == jnp.array([[0, 1, 2]]), "time_major": True}
    xs = XS.swapaxes(0, 1)
    expected = unroll(stack, params, xs, h0, backend="scan", matmul_dtype=jnp.bfloat16, **options)
    close(layer.apply(variables, xs, h0, **options), expected)
    assert "custom_jvp" not in str(jax.make_jaxpr(layer.apply)(variables, XS))  # The default backend has one.


def test_param_dtype_is_the_dtype_of_parameters_and_states():
    layer = modules.LSTM(H, param_dtype=jnp.bfloat16)
    xs = XS.astype(jnp.bfloat16)
    (ys, h_last), variables = layer.init_with_output(jax.random.key(0), xs)
    assert {leaf.dtype for leaf in jax.tree.leaves((variables, ys, h_last))} == {jnp.dtype(jnp.bfloat16)}


def test_initial_carry_has_param_dtype():
    cell = modules.LSTMCell(H, param_dtype=jnp.bfloat16)
    begun = cell.initialize_carry(jax.random.key(0), (B, I))
    rnn = nn.RNN(cell, return_carry=True)
    (carry, ys), variables = rnn.init_with_output(jax.random.key(0), XS.astype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves((begun, variables, carry, ys))} == {jnp.dtype(jnp.bfloat16)}


def test_gradient_equals_the_gradient_of_unroll():
    layer = modules.GRU(H, num_layers=2)
    variables = layer.init(jax.random.key(0), XS)
    gradient = jax.jit(jax.grad(lambda v: (layer.apply(v, XS, lengths=LENGTHS)[0] ** 2).sum()))(variables)

    @jax.jit
    @jax.grad
    def expected(params):
        return (unroll(layer.stack, params, XS, lengths=LENGTHS, backend="scan")[0] ** 2).sum()

    wanted = expected(layer.parameters(variables))
    chex.assert_trees_all_close(layer.parameters(gradient), wanted, rtol=1e-4, atol=1e-5)


def test_vmap_makes_an_ensemble():
    ensemble = nn.vmap(
        modules.GRU, in_axes=None, out_axes=0, axis_size=3, variable_axes={"params": 0}, split_rngs={"params": True}
    )(H)
    variables = ensemble.init(jax.random.key(0), XS)
    ys, _ = ensemble.apply(variables, XS)
    ((params,),) = modules.GRU(H).parameters(variables)
    for member in range(3):
        one = jax.tree.map(lambda a, member=member: a[member], params)
        close(ys[member], unroll(gru_jax.GRU(), one, XS)[0])
    assert not np.allclose(ys[0], ys[1])


@pytest.mark.parametrize("rates", [{"dropout": 0.5}, {"weight_dropout": 0.5}])
def test_dropout_follows_deterministic_and_rngs_as_in_flax(rates):
    layer = modules.GRU(H, num_layers=2, **rates)
    variables = layer.init(jax.random.key(0), XS)

    def run(seed, **options):
        return layer.apply(variables, XS, rngs={} if seed is None else {"dropout": jax.random.key(seed)}, **options)[0]

    still = unroll(gru_jax.Stack(gru_jax.GRU(), 2), layer.parameters(variables), XS)[0]
    close(run(None, deterministic=True), still)
    close(run(1, deterministic=True), still)
    close(layer.copy(deterministic=True).apply(variables, XS)[0], still)
    close(run(1), run(1))
    assert not np.allclose(run(1), still)
    assert not np.allclose(run(1), run(2))
    for module in (layer, nn.Dropout(0.5, deterministic=False)):  # As in Flax.
        with pytest.raises(errors.InvalidRngError, match=r'needs PRNG for "dropout"'):
            module.apply(variables if module is layer else {}, XS)
    with pytest.raises(TypeError, match=r"^gru_jax\.linen\.GRU: deterministic: expected True or False, got None"):
        layer.copy(deterministic=None).apply(variables, XS)


def test_dropout_uses_the_key_of_make_rng():
    """The result equals `unroll` with the key of `make_rng`."""

    class Key(nn.Module):
        @nn.compact
        def __call__(self):
            return self.make_rng("dropout")

    rngs = {"dropout": jax.random.key(5)}
    layer = modules.LSTM(H, num_layers=2, dropout=0.5)
    variables = layer.init(jax.random.key(0), XS)
    expected = unroll(layer.stack, layer.parameters(variables), XS, key=Key().apply({}, rngs=rngs))
    close(layer.apply(variables, XS, rngs=rngs), expected)


def test_parameters_have_the_names_of_weights_files():
    layer = modules.GRU(H, num_layers=2, bidirectional=True, reset="after")
    variables = layer.init(jax.random.key(0), XS)
    named = traverse_util.flatten_dict(variables["params"]["layers"], sep=".")
    assert set(named) == {f"{k}.{way}.{f}" for k in "01" for way in ("forward", "backward") for f in PARAMS}
    params = layer.parameters(variables)
    assert named["1.backward.W"] is params[1][1].W
    assert named["0.forward.b_hn"] is params[0][0].b_hn
    close(params, layer.stack.init(nn_params_key(layer, XS), I, H))
    assert jax.tree.structure(layer.to_variables(params)) == jax.tree.structure(variables)
    doubled = layer.to_variables(jax.tree.map(lambda a: 2 * a, params))
    close(layer.apply(doubled, XS), unroll(layer.stack, jax.tree.map(lambda a: 2 * a, params), XS))


PARAMS = ("W", "U", "b", "b_hn")


def nn_params_key(layer, xs):
    """Returns the key of the first parameter of a module."""

    class First(nn.Module):
        @nn.compact
        def __call__(self):
            return self.param("layers", lambda key: key)

    return First().init(jax.random.key(0))["params"]["layers"]


def test_weight_decay_is_masked_by_name():
    """One step with decay 0.1 and zero gradients scales matrices by 0.9 and keeps biases."""
    layer = modules.LSTM(H, num_layers=2, bidirectional=True)
    params = layer.init(jax.random.key(0), XS)["params"]
    decayed = traverse_util.path_aware_map(lambda path, _: path[-1] in ("W", "U"), params)
    optimizer = optax.add_decayed_weights(0.1, mask=decayed)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    for path, update in traverse_util.flatten_dict(updates).items():
        weight = traverse_util.flatten_dict(params)[path]
        np.testing.assert_allclose(update, 0 * weight if path[-1] == "b" else 0.1 * weight, rtol=1e-6)


@pytest.mark.parametrize("module", [modules.GRU(H, bidirectional=True, reset="after"), modules.LSTMCell(H)])
def test_parameters_restored_without_a_target_are_accepted(module, tmp_path):
    """msgpack and orbax return plain dicts of NumPy arrays."""
    given = (XS,) if isinstance(module, modules.GRU) else (module.initialize_carry(jax.random.key(0), (B, I)), XS[:, 0])
    variables = module.init(jax.random.key(0), *given)
    expected = module.apply(variables, *given)
    close(module.apply(serialization.msgpack_restore(serialization.to_bytes(variables)), *given), expected)
    with ocp.StandardCheckpointer() as files:
        files.save(tmp_path / "variables", variables)
        files.wait_until_finished()
        close(module.apply(files.restore(tmp_path / "variables"), *given), expected)
    other = module.init(jax.random.key(1), *given)
    close(module.apply(serialization.from_bytes(other, serialization.to_bytes(variables)), *given), expected)
    close(module.apply(freeze(variables), *given), expected)


def test_named_tuples_are_accepted_as_variables():
    layer = modules.LSTM(H, num_layers=2)
    params = layer.stack.init(jax.random.key(0), I, H)
    close(layer.apply({"params": {"layers": params}}, XS), unroll(layer.stack, params, XS))
    cell = modules.GRUCell(H)
    close(
        cell.apply({"params": {"weights": CELL_PARAMS}}, jnp.zeros((B, H)), XS[:, 0])[0],
        gru_jax.gru_step(CELL_PARAMS, jnp.zeros((B, H)), XS[:, 0]),
    )


CELL_PARAMS = gru_jax.GRU().init(jax.random.key(0), I, H)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda layers: layers.pop("1"), "params: layers: expected 0, 1, got 0"),
        (lambda layers: layers["0"].update(backward=layers["1"]), "params: layers/0: expected forward, got backward, "),
        (lambda layers: layers["1"]["forward"].pop("U"), "params: layers/1/forward: expected W, U, b, got W, b"),
        (lambda layers: layers["1"].update(forward=3), "params: layers/1/forward: expected a dict of W, U, b, got int"),
    ],
)
def test_parameters_of_another_network_raise_one_line(change, error):
    layer = modules.GRU(H, num_layers=2)
    layers = serialization.msgpack_restore(serialization.to_bytes(layer.init(jax.random.key(0), XS)))["params"][
        "layers"
    ]
    change(layers)
    with pytest.raises((TypeError, ValueError)) as raised:
        layer.parameters({"params": {"layers": layers}})
    assert str(raised.value).startswith(error)


@pytest.mark.parametrize("name", CELLS)
def test_rnn_equals_unroll(name):
    module, cell = CELLS[name]
    rnn = nn.RNN(module, return_carry=True)
    variables = rnn.init(jax.random.key(0), XS)
    params = module.parameters({"params": variables["params"]["cell"]})
    carry, ys = rnn.apply(variables, XS)
    close((ys, carry), unroll(cell, params, XS))
    initial = jax.tree.map(lambda a: a + 0.5, cell.initial_state(H, (B,)))
    carry, ys = rnn.apply(variables, XS, initial_carry=initial, seq_lengths=LENGTHS)
    expected, h_last = unroll(cell, params, XS, initial, lengths=LENGTHS)
    close(carry, h_last)
    for number, length in enumerate(LENGTHS):
        close(ys[number, :length], expected[number, :length])


def test_matmul_dtype_is_used():
    cell = modules.GRUCell(H, matmul_dtype=jnp.bfloat16)
    x, h = XS[:, 0], jnp.full((B, H), 0.3)
    (_, y), variables = cell.init_with_output(jax.random.key(0), h, x)
    params = cell.parameters(variables)
    close(y, gru_jax.gru_step(params, h, x, matmul_dtype=jnp.bfloat16))
    assert np.abs(y - gru_jax.gru_step(params, h, x)).max() > 1e-4


def test_bidirectional_rnn_equals_stack():
    rnn = nn.Bidirectional(nn.RNN(modules.GRUCell(H)), nn.RNN(modules.GRUCell(H)))
    variables = rnn.init(jax.random.key(0), XS)
    params = variables["params"]
    pair = tuple(
        modules.GRUCell(H).parameters({"params": params[name]["cell"]}) for name in ("forward_rnn", "backward_rnn")
    )
    close(rnn.apply(variables, XS), unroll(gru_jax.Stack(gru_jax.GRU(), bidirectional=True), (pair,), XS)[0])


def test_wrong_carry_raises_one_line():
    cell = modules.GRUCell(H)
    variables = cell.init(jax.random.key(0), jnp.zeros((B, H)), XS[:, 0])
    with pytest.raises(
        ValueError, match=r"^carry: expected shape \(3, 4\), the batch axes of the input and H, got \(3, 5\)"
    ):
        cell.apply(variables, jnp.zeros((B, H + 1)), XS[:, 0])


LAYER, CELL = modules.GRU(H), modules.GRUCell(H)
VARIABLES = LAYER.init(jax.random.key(0), XS)
CELL_VARIABLES = CELL.init(jax.random.key(0), jnp.zeros((B, H)), XS[:, 0])
INIT, CARRY = jax.random.key(0), jnp.zeros((B, H))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: LAYER.apply(VARIABLES, jnp.ones((B, T, I + 1))), "xs: expected shape (..., T, 2), got (3, 6, 3)"),
        (lambda: CELL.apply(CELL_VARIABLES, CARRY, jnp.ones((B, 5))), "inputs: expected shape (..., 2), got (3, 5)"),
        (lambda: modules.GRU(9).apply(VARIABLES, XS), "gru_jax.linen.GRU: features: expected 4, as the parameters, g"),
        (lambda: LAYER.init(INIT, [[1.0]]), "xs: expected an array, got list"),
        (lambda: CELL.init(INIT, CARRY, [1.0]), "inputs: expected an array, got list"),
        (lambda: LAYER.init(INIT, jnp.ones(3)), "xs: expected shape (..., T, I), got (3,)"),
        (lambda: LAYER.init(INIT, jnp.float32(1), time_major=True), "xs: expected shape (T, ..., I), got ()"),
        (lambda: LAYER.init(INIT, jnp.ones((B, T, I), int)), "xs: expected a floating-point dtype, got int"),
        (
            lambda: LAYER.parameters(VARIABLES["params"]),
            "variables: expected a dict with the collection `params`, got l",
        ),
        (lambda: CELL.parameters(None), "variables: expected a dict with the collection `params`, got NoneType"),
        (lambda: modules.GRU(0).init(INIT, XS), "gru_jax.linen.GRU: features: expected a positive integer, got 0"),
        (lambda: modules.GRU(H, backend="fast").init(INIT, XS), "gru_jax.linen.GRU: backend: expected one of 'auto', "),
        (lambda: modules.MGU(H, param_dtype=int).init(INIT, XS), "gru_jax.linen.MGU: param_dtype: expected a floating"),
        (lambda: modules.Recurrent("gru", H).init(INIT, XS), "gru_jax.linen.Recurrent: cell: expected a cell such as "),
    ],
)
def test_wrong_arguments_raise_one_line(call, error):
    with pytest.raises((TypeError, ValueError)) as raised:
        call()
    assert str(raised.value).startswith(error)
    assert "\n" not in str(raised.value)


def test_layers_without_states_run_in_sequential():
    model = nn.Sequential([modules.LSTM(H, return_state=False), modules.GRU(H, return_state=False), nn.Dense(2)])
    ys, variables = model.init_with_output(jax.random.key(0), XS)
    layers = [variables["params"][f"layers_{k}"] for k in range(3)]
    inner = unroll(gru_jax.Stack(gru_jax.LSTM()), modules.LSTM(H).parameters({"params": layers[0]}), XS)[0]
    inner = unroll(gru_jax.Stack(gru_jax.GRU()), modules.GRU(H).parameters({"params": layers[1]}), inner)[0]
    close(ys, inner @ layers[2]["kernel"] + layers[2]["bias"][None, None])
    both = modules.LSTM(H, return_state=False).apply({"params": layers[0]}, XS, return_state=True)
    assert isinstance(both[1][0][0], gru_jax.LSTMState)


def test_packed_episodes_equal_single_episodes_in_both_directions():
    layer = modules.LSTM(H, bidirectional=True)
    variables = layer.init(jax.random.key(0), XS)
    fresh = jax.tree.map(lambda a: a + 0.4, layer.initial_state((B,)))
    resets = jnp.zeros((B, T), bool).at[:, 4].set(True)
    packed, _ = layer.apply(variables, XS, fresh, resets=resets, reset_state=fresh)
    alone = [layer.apply(variables, xs, fresh)[0] for xs in (XS[:, :4], XS[:, 4:])]
    close(packed, jnp.concatenate(alone, axis=1))


@pytest.mark.parametrize(("dtype", "inputs", "computed"), DTYPES)
def test_dtypes_are_promoted_as_in_flax(dtype, inputs, computed):
    theirs, _ = nn.Dense(H, dtype=dtype).init_with_output(jax.random.key(0), XS.astype(inputs))
    layer = modules.LSTM(H, dtype=dtype)
    (ys, state), variables = layer.init_with_output(jax.random.key(0), XS.astype(inputs))
    assert {leaf.dtype for leaf in jax.tree.leaves((ys, state))} == {theirs.dtype} == {jnp.dtype(computed)}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    params = jax.tree.map(lambda a: a.astype(computed), layer.parameters(variables))
    close((ys, state), unroll(layer.stack, params, XS.astype(inputs).astype(computed)))
    cell = modules.LSTMCell(H, dtype=dtype)
    (carry, ys), _ = nn.RNN(cell, return_carry=True).init_with_output(jax.random.key(0), XS.astype(inputs))
    assert {leaf.dtype for leaf in jax.tree.leaves((carry, ys))} == {jnp.dtype(computed)}
    assert {leaf.dtype for leaf in jax.tree.leaves(layer.initial_state((B,)))} == {jnp.dtype(dtype or "float32")}


def test_plain_carry_of_an_lstm_has_the_order_of_flax():
    """The LSTMCell of Flax with the same weights has the same carries (c, h)."""
    ours, theirs = modules.LSTMCell(H), nn.LSTMCell(H)
    carry = (jnp.full((B, H), 0.5), jnp.full((B, H), -0.3))
    params = gru_jax.LSTM().init(jax.random.key(0), I, H)
    variables = ours.to_variables(params)
    expected = theirs.apply({"params": to_linen(gru_jax.LSTM(), params)}, carry, XS[:, 0])
    found = ours.apply(variables, carry, XS[:, 0])
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    close(found, expected)
    (c, h), _ = found
    state, _ = ours.apply(variables, gru_jax.LSTMState(h=carry[1], c=carry[0]), XS[:, 0])
    close((state.c, state.h), (c, h))
    run = nn.RNN(ours, return_carry=True).apply({"params": {"cell": variables["params"]}}, XS, initial_carry=carry)
    flax = nn.RNN(theirs, return_carry=True)
    close(run, flax.apply({"params": {"cell": to_linen(gru_jax.LSTM(), params)}}, XS, initial_carry=carry))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda layer, _: modules.GRU(H, kernel_init=nn.initializers.zeros), "GRU: expected W_init=, got kernel_init="),
        (lambda layer, _: modules.Elman(H, nonlinearity="relu"), "Elman: expected activation=, got nonlinearity="),
        (lambda layer, _: modules.LSTM(H, bias_init=0), "LSTM: expected b_init=, got bias_init="),
        (lambda layer, _: modules.Elman(hidden_size=H), "Elman: expected features=, got hidden_size="),
        (lambda layer, _: modules.GRU(H, rngs=0), "GRU: expected rngs= of init or apply, got rngs="),
        (
            lambda layer, _: modules.GRUCell(H, gate_fn=nn.relu),
            "GRUCell: expected no function, since the cell has fixed",
        ),
        (lambda layer, _: modules.GRU(H, time_major=True), "GRU: expected time_major= in the call, got time_major="),
        (
            lambda layer, v: layer.apply(v, XS, seq_lengths=LENGTHS),
            "GRU: expected lengths= (padding at the end), got seq",
        ),
        (lambda layer, v: layer.apply(v, XS, initial_carry=0), "GRU: expected h0=, got initial_carry="),
        (
            lambda layer, v: layer.apply(v, XS, train=True),
            "GRU: expected deterministic= (True for no dropout), got train=",
        ),
        (lambda layer, v: layer.apply(v, XS, bogus=1), "GRU: expected one of xs, h0, lengths, mask, resets, "),
    ],
)
def test_unknown_keyword_raises_one_line_with_the_replacement(call, error):
    layer = modules.GRU(H)
    variables = layer.init(jax.random.key(0), XS)
    with pytest.raises(TypeError) as raised:
        call(layer, variables)
    assert str(raised.value).startswith(f"gru_jax.linen.{error}")
