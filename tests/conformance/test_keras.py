"""Keras on JAX: `GRU` with both resets, `LSTM` and `SimpleRNN`, masked, stacked, bidirectional."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.keras import from_layer, from_weights, to_weights
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve
from tests.gru_jax.covering import pairwise

keras = pytest.importorskip("keras", reason="needs Keras: make test-peers")

# Keras copies variables in a way that is deprecated in NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H = 3, 5
KINDS = {
    "gru_before": (keras.layers.GRU, {"reset_after": False}),
    "gru_after": (keras.layers.GRU, {"reset_after": True}),
    "lstm": (keras.layers.LSTM, {}),
    "elman": (keras.layers.SimpleRNN, {}),
    "elman_relu": (keras.layers.SimpleRNN, {"activation": "relu"}),
}
# Arguments that a list of weights does not determine.
TOLD = {"elman": {"activation": "tanh"}, "elman_relu": {"activation": "relu"}}
CASES = pairwise(
    {
        "name": list(KINDS),
        "num_layers": [1, 2, 3],
        "directions": ["one", "concat", "sum", "ave", "mul"],
        "lengths": [False, True],
        "h0": [False, True],
        "use_bias": [True, False],
    }
)


def label(case):
    flags = [key for key in ("lengths", "h0", "use_bias") if case[key]]
    return "-".join([case["name"], str(case["num_layers"]), case["directions"], *flags])


def make_layer(name, directions="one", width=I, **options):
    kind, fixed = KINDS[name]
    layer = kind(
        H,
        return_sequences=True,
        return_state=True,
        zero_output_for_mask=True,
        bias_initializer="normal",
        **fixed,
        **options,
    )
    layer = layer if directions == "one" else keras.layers.Bidirectional(layer, merge_mode=directions)
    layer.build((None, None, width))
    return layer


def states_to_keras(states):
    """Converts states to a list for each layer: h, or h and c, of each direction."""
    return [
        [array for state in layer for array in (state if isinstance(state, tuple) else (state,))] for layer in states
    ]


def put_to_keras(layers, task):
    """Returns outputs, final states and the gradients of weights, inputs and initial states."""
    T = task.xs.shape[1]
    mask = None if task.lengths is None else jnp.arange(T)[None] < task.lengths[:, None]
    h0 = None if task.h0 is None else states_to_keras(task.h0)

    def run(weights, xs, h0):
        h_last = []
        for number, layer in enumerate(layers):
            options = {} if h0 is None else {"initial_state": h0[number]}
            outputs, _ = layer.stateless_call(weights[number], layer.non_trainable_variables, xs, mask=mask, **options)
            xs = outputs[0]
            h_last.append(list(outputs[1:]))
        return xs, h_last

    weights = [[variable.value for variable in layer.trainable_variables] for layer in layers]
    (ys, h_last), pull = jax.vjp(jax.jit(run), weights, task.xs, h0)
    return ys, h_last, *pull((task.ys_weights, states_to_keras(task.last_weights)))


@pytest.mark.parametrize("case", CASES, ids=label)
def test_outputs_states_and_gradients_are_equal(case, backend):
    name, directions, L = case["name"], case["directions"], case["num_layers"]
    width = 2 * H if directions == "concat" else H
    layers = [make_layer(name, directions, width if number else I, use_bias=case["use_bias"]) for number in range(L)]
    merge = "concat" if directions == "one" else directions
    reset = {"gru_before": "before", "gru_after": "after"}.get(name) if not case["use_bias"] else None
    cell, params = from_weights(
        [array for layer in layers for array in layer.get_weights()],
        num_layers=L,
        bidirectional=directions != "one",
        merge=merge,
        reset=reset,
        **TOLD.get(name, {}),
    )
    if directions == "one" and L == 1:
        cell, params = gru_jax.Stack(cell), ((params,),)
    assert cell == gru_jax.Stack(CELLS[name], L, directions != "one", merge)
    task = draw_task(cell, I, H, h0=case["h0"], lengths=case["lengths"])
    ours = solve(cell, params, task, backend)
    ys, h_last, gradients, xs_gradient, h0_gradient = put_to_keras(layers, task)
    assert_close(ours.ys, ys, "float32", "outputs")
    jax.tree.map(lambda a, b: assert_close(a, b, "float32", "final state"), states_to_keras(ours.h_last), h_last)
    pairs = [(ours.xs_gradient, xs_gradient)]
    if case["h0"]:
        pairs += zip(jax.tree.leaves(states_to_keras(ours.h0_gradient)), jax.tree.leaves(h0_gradient), strict=True)
    ours_gradients = to_weights(cell, ours.params_gradient)
    if not case["use_bias"]:
        ours_gradients = [array for number, array in enumerate(ours_gradients) if number % 3 != 2]
    for array in ours_gradients:
        if array.shape == (2, 3 * H):  # Keras has two biases, gru_jax has one and b_hn.
            array[1, : 2 * H] = array[0, : 2 * H]
    pairs += zip(ours_gradients, jax.tree.leaves(gradients), strict=True)
    for a, b in pairs:
        assert_close(a, b, "float32", "gradient", gradient=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_model_of_layers_is_read(bidirectional):
    def layer():
        gru = keras.layers.GRU(H, return_sequences=True, bias_initializer="normal")
        return keras.layers.Bidirectional(gru) if bidirectional else gru

    model = keras.Sequential([keras.Input((7, I)), layer(), layer(), layer()])
    stack, params = from_weights(model.get_weights(), num_layers=3, bidirectional=bidirectional)
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(stack, params, jnp.asarray(xs))
    assert_close(ys, model(xs), "float32", "outputs")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_round_trip_is_exact(name, bidirectional):
    stack = gru_jax.Stack(CELLS[name], 2, bidirectional)
    params = draw_params(stack, I, H)
    read, params_read = from_weights(
        to_weights(stack, params), num_layers=2, bidirectional=bidirectional, **TOLD.get(name, {})
    )
    assert read == stack
    assert_same_bits(params_read, params)


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_of_keras_weights_rounds_only_biases(name):
    """The weights of Keras are equal bit for bit, except for two biases, whose sum is rounded once."""
    layer = make_layer(name)
    weights = layer.get_weights()
    told = TOLD.get(name, {})
    again = to_weights(*from_weights(weights, **told))
    once_more = to_weights(*from_weights(again, **told))
    assert_same_bits(once_more, again)
    assert_same_bits(again[:2], weights[:2])
    if name != "gru_after":
        assert_same_bits(again, weights)
    layer.set_weights(again)
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(*from_weights(weights, **told), jnp.asarray(xs))
    assert_close(ys, layer(xs)[0], "float32", "outputs")


def recurrent(kind, **options):
    return kind(H, return_sequences=True, bias_initializer="normal", **options)


LAYERS = {
    "relu": lambda: recurrent(keras.layers.SimpleRNN, activation="relu"),
    "relu function": lambda: recurrent(keras.layers.SimpleRNN, activation=keras.activations.relu),
    "tanh, no bias": lambda: recurrent(keras.layers.SimpleRNN, use_bias=False),
    "reset before, no bias": lambda: recurrent(keras.layers.GRU, reset_after=False, use_bias=False),
    "reset after, no bias": lambda: recurrent(keras.layers.GRU, use_bias=False),
    "forget bias of zero": lambda: recurrent(keras.layers.LSTM, unit_forget_bias=False, dropout=0.5),
    "average": lambda: keras.layers.Bidirectional(recurrent(keras.layers.GRU), merge_mode="ave"),
    "product": lambda: keras.layers.Bidirectional(recurrent(keras.layers.LSTM), merge_mode="mul"),
    "two layers": lambda: keras.Sequential([LAYERS["average"](), LAYERS["average"]()]),
    "two relu layers": lambda: keras.Sequential([LAYERS["relu"](), LAYERS["relu"]()]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_from_layer_reads_activation_reset_and_merge(name):
    layer = LAYERS[name]()
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    expected = layer(xs)
    ys, _ = gru_jax.unroll(*from_layer(layer), jnp.asarray(xs))
    assert_close(ys, expected, "float32", "outputs")


@pytest.mark.parametrize("num_layers", [1, 2])
def test_two_outputs_are_the_halves_of_a_concatenation(num_layers):
    layers = [keras.layers.Bidirectional(recurrent(keras.layers.GRU)) for _ in range(num_layers - 1)]
    layers.append(keras.layers.Bidirectional(recurrent(keras.layers.GRU), merge_mode=None))
    layer = layers[0] if num_layers == 1 else keras.Sequential([keras.Input((7, I)), *layers])
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    expected = layer(xs)
    for stack, params in (
        from_layer(layer),
        from_weights(layer.get_weights(), num_layers=num_layers, bidirectional=True, merge=None),
    ):
        ys, _ = gru_jax.unroll(stack, params, jnp.asarray(xs))
        for half, output in zip(jnp.split(ys, 2, axis=-1), expected, strict=True):
            assert_close(half, output, "float32", "one direction")


def bidirectional(one, other, **options):
    return keras.layers.Bidirectional(one, backward_layer=other, **options)


def identity(x):
    return x


GRU, RNN = keras.layers.GRU, keras.layers.SimpleRNN
REFUSED = {
    "gates": (lambda: recurrent(GRU, recurrent_activation="hard_sigmoid"), "recurrent_activation: expected one of"),
    "activation": (lambda: recurrent(keras.layers.LSTM, activation="relu"), "activation: expected one of 'tanh', got"),
    "linear": (lambda: recurrent(RNN, activation=None), "activation: expected one of 'tanh', 'relu', got 'linear'"),
    "own": (lambda: recurrent(RNN, activation=identity), "activation: expected one of 'tanh', 'relu', got 'another"),
    "backwards": (
        lambda: recurrent(GRU, go_backwards=True),
        "go_backwards: expected False, got True: give from_weights",
    ),
    "two resets": (
        lambda: bidirectional(recurrent(GRU), recurrent(GRU, reset_after=False, go_backwards=True)),
        "expected equal settings in both directions, got",
    ),
    "two merges": (
        lambda: keras.Sequential([LAYERS["average"](), keras.layers.Bidirectional(recurrent(GRU), merge_mode="sum")]),
        "expected Settings",
    ),
    "a classifier": (
        lambda: keras.Sequential([recurrent(GRU), keras.layers.Dense(2)]),
        "expected GRU, LSTM, SimpleRNN",
    ),
    "a cell": (lambda: keras.layers.RNN(keras.layers.GRUCell(H)), "expected GRU, LSTM, SimpleRNN, a Bidirectional of"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_layers_raise_one_line(name):
    make, line = REFUSED[name]
    layer = make()
    layer.build((2, 7, I))
    with pytest.raises((TypeError, ValueError), match=rf"^[a-z_0-9]+: {re.escape(line)}[^\n]*$"):
        from_layer(layer)


def test_layer_without_weights_raises_one_line():
    with pytest.raises(
        ValueError, match=r"^g: expected a built layer, got no weights: call the layer or its build\(\)$"
    ):
        from_layer(keras.layers.GRU(H, name="g"))
    with pytest.raises(TypeError, match=r"^layer: expected GRU, LSTM, SimpleRNN, a Bidirectional [^\n]+, got list$"):
        from_layer([])


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("name", ["gru_after", "lstm"])
def test_weights_of_cudnn_layers_are_read(name, bidirectional):
    """Keras stored cuDNN matrices, (H, I) for each gate, with shape (I, H). PyTorch uses the layout of cuDNN."""
    torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    torch.manual_seed(0)
    kind, order = (torch.nn.GRU, (1, 0, 2)) if name == "gru_after" else (torch.nn.LSTM, (0, 1, 2, 3))
    layer = kind(I, H, num_layers=2, bidirectional=bidirectional, batch_first=True)

    def gates(array):
        parts = np.split(array, len(order))
        return [parts[gate] for gate in order]

    weights = []
    for number in range(2):
        for direction in ("", "_reverse")[: 1 + bidirectional]:
            arrays = [
                layer.get_parameter(f"{key}_l{number}{direction}").detach().numpy()
                for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            for matrix in arrays[:2]:
                shape = matrix.shape[1], H
                weights.append(np.concatenate([gate.reshape(shape) for gate in gates(matrix)], axis=1))
            weights.append(np.concatenate([*gates(arrays[2]), *gates(arrays[3])]))
    assert weights[2].shape == (2 * len(order) * H,)
    stack, params = from_weights(weights, num_layers=2, bidirectional=bidirectional)
    assert stack == gru_jax.Stack(CELLS[name], 2, bidirectional)
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(stack, params, jnp.asarray(xs))
    assert_close(ys, layer(torch.from_numpy(xs))[0].detach().numpy(), "float32", "outputs")
