"""Against Keras on JAX: `GRU` with both resets, `LSTM` and `SimpleRNN`, masked, stacked, in two directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.keras import from_weights, to_weights
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task, solve
from tests.gru_jax.covering import pairwise

keras = pytest.importorskip("keras", reason="needs Keras: make test-peers")

# Keras copies its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

I, H = 3, 5
KINDS = {
    "gru_before": (keras.layers.GRU, {"reset_after": False}),
    "gru_after": (keras.layers.GRU, {"reset_after": True}),
    "lstm": (keras.layers.LSTM, {}),
    "elman": (keras.layers.SimpleRNN, {}),
}
CASES = pairwise(
    {
        "name": list(KINDS),
        "num_layers": [1, 2, 3],
        "directions": ["one", "concat", "sum"],
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
    """Ours as a flat list for each layer: h, or h and c, of each direction."""
    return [
        [array for state in layer for array in (state if isinstance(state, tuple) else (state,))] for layer in states
    ]


def put_to_keras(layers, task):
    """Outputs, final states and the gradients of weights, inputs and initial states."""
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
def test_outputs_states_and_gradients(case, backend):
    name, directions, L = case["name"], case["directions"], case["num_layers"]
    width = 2 * H if directions == "concat" else H
    layers = [make_layer(name, directions, width if number else I, use_bias=case["use_bias"]) for number in range(L)]
    merge = "sum" if directions == "sum" else "concat"
    reset = {"gru_before": "before", "gru_after": "after"}.get(name) if not case["use_bias"] else None
    cell, params = from_weights(
        [array for layer in layers for array in layer.get_weights()],
        num_layers=L,
        bidirectional=directions != "one",
        merge=merge,
        reset=reset,
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
        if array.shape == (2, 3 * H):  # the part of a bias that we do not keep
            array[1, : 2 * H] = array[0, : 2 * H]
    pairs += zip(ours_gradients, jax.tree.leaves(gradients), strict=True)
    for a, b in pairs:
        assert_close(a, b, "float32", "gradient", gradient=True)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_model_of_layers(bidirectional):
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
def test_there_and_back_is_the_same_network(name, bidirectional):
    stack = gru_jax.Stack(CELLS[name], 2, bidirectional)
    params = draw_params(stack, I, H)
    read, params_read = from_weights(to_weights(stack, params), num_layers=2, bidirectional=bidirectional)
    assert read == stack
    assert_same_bits(params_read, params)


@pytest.mark.parametrize("name", KINDS)
def test_back_and_there(name):
    """Keras's own weights come back bit for bit, but for the sum of a bias in two parts, which is rounded once."""
    layer = make_layer(name)
    weights = layer.get_weights()
    again = to_weights(*from_weights(weights))
    once_more = to_weights(*from_weights(again))
    assert_same_bits(once_more, again)
    assert_same_bits(again[:2], weights[:2])
    if name != "gru_after":
        assert_same_bits(again, weights)
    layer.set_weights(again)
    xs = np.random.default_rng(0).normal(size=(2, 7, I)).astype(np.float32)
    ys, _ = gru_jax.unroll(*from_weights(weights), jnp.asarray(xs))
    assert_close(ys, layer(xs)[0], "float32", "outputs")
