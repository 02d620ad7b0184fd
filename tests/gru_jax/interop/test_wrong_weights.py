"""Missing, unknown and wrong weights raise one line with the key, the expected and the given value."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.flax import from_linen, from_nnx, to_linen
from gru_jax.interop.haiku import from_params, to_params
from gru_jax.interop.keras import from_weights, to_weights
from gru_jax.interop.torch import from_state_dict, to_state_dict
from tests.conformance.agreement import draw_params

I, H = 3, 4
BEFORE, AFTER, LSTM, ELMAN = gru_jax.GRU(), gru_jax.GRU(reset="after"), gru_jax.LSTM(), gru_jax.Elman()


def numbers(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def torch(change, cell=AFTER):
    """Reads a state dict with some entries changed; None removes one."""
    changed = to_state_dict(cell, draw_params(cell, I, H)) | change
    kept = {key: array for key, array in changed.items() if array is not None}
    return lambda: from_state_dict(kept, nonlinearity="tanh" if cell in (ELMAN, BOTH_WAYS) else None)


def keras(change, cell=AFTER, **options):
    """Reads a list of weights with some changed."""
    weights = to_weights(cell, draw_params(cell, I, H))
    for number, array in change.items():
        weights[number] = array
    return lambda: from_weights(weights, **options)


def linen(change, cell=AFTER):
    """Reads nested dicts with some paths changed."""

    def changed(tree, path=""):
        items = (
            {key: changed(child, f"{path}{key}/") for key, child in tree.items()} if isinstance(tree, dict) else tree
        )
        return items if not isinstance(tree, dict) else items | change.get(path, {})

    tree = changed(to_linen(cell, draw_params(cell, I, H)))
    return lambda: from_linen(tree, module=nn.SimpleCell(H) if cell == ELMAN else None)


def haiku(change, cell=BEFORE):
    """Reads dicts of dicts with some modules changed; None removes one."""
    tree = to_params(cell, draw_params(cell, I, H))
    for module, arrays in change.items():
        tree[module] = {k: a for k, a in (tree.get(module, {}) | arrays).items() if a is not None}
    return lambda: from_params(tree)


IN_GRU = "there is weight_ih_l0, weight_hh_l0, bias_ih_l0"
TWO_LAYERS = gru_jax.Stack(LSTM, 2)
BOTH_WAYS = gru_jax.Stack(ELMAN, bidirectional=True)
GATE_COUNTS = "expected shape (3H, H) or (4H, H) or (H, H)"

REFUSED = {
    "torch: no mapping": (
        lambda: from_state_dict([1]),
        "state_dict: expected a mapping from names to arrays, got list",
    ),
    "torch: nothing": (
        lambda: from_state_dict({}),
        "state_dict: weight_hh_l0: expected an array (GH, H), got none; there is nothing",
    ),
    "torch: missing": (
        torch({"bias_hh_l0": None}),
        f"state_dict: bias_hh_l0: expected an array (12), got none; {IN_GRU}",
    ),
    "torch: too many": (
        torch({"head": numbers(2, 4), "tail": numbers(2)}),
        "state_dict: head: expected no such array beside bias_hh_l0, bias_ih_l0, weight_hh_l0, weight_ih_l0, got one "
        "(2 in all)",
    ),
    "torch: gates": (torch({"weight_hh_l0": numbers(8, 4)}), f"state_dict: weight_hh_l0: {GATE_COUNTS}, got (8, 4)"),
    "torch: rank": (
        torch({"weight_hh_l0": numbers(12)}),
        "state_dict: weight_hh_l0: expected shape (GH, H), got (12,)",
    ),
    "torch: shape": (
        torch({"weight_ih_l0": numbers(9, 3)}),
        "state_dict: weight_ih_l0: expected shape (12, I), got (9, 3)",
    ),
    "torch: width of a layer": (
        torch({"weight_ih_l1": numbers(16, 3)}, TWO_LAYERS),
        "state_dict: weight_ih_l1: expected shape (16, 4), got (16, 3)",
    ),
    "torch: a layer less": (
        torch({"weight_hh_l0": None}, TWO_LAYERS),
        "state_dict: weight_hh_l0: expected an array (GH, H), got none; there is weight_ih_l0, bias_ih_l0, "
        "bias_hh_l0, weight_ih_l1, weight_hh_l1, bias_ih_l1, bias_hh_l1",
    ),
    "torch: half of a direction": (
        torch({"weight_ih_l0_reverse": None}, BOTH_WAYS),
        "state_dict: weight_ih_l0_reverse: expected an array (4, I), got none; there is weight_ih_l0, weight_hh_l0, "
        "bias_ih_l0, bias_hh_l0, weight_hh_l0_reverse, bias_ih_l0_reverse, bias_hh_l0_reverse",
    ),
    "torch: projection": (
        torch({"weight_hr_l0": numbers(2, 4)}, LSTM),
        "state_dict: weight_hr_l0: expected an LSTM without projections, got proj_size > 0",
    ),
    "torch: two kinds": (
        torch(
            {"weight_ih_l1": numbers(12, 4), "weight_hh_l1": numbers(12, 4)}
            | dict.fromkeys(["bias_ih_l1", "bias_hh_l1"], numbers(12)),
            LSTM,
        ),
        f"layer 1: expected {LSTM}, as in layer 0, got {AFTER}",
    ),
    "torch: integers": (
        torch({"weight_hh_l0": numbers(12, 4, dtype=np.int32)}),
        "state_dict: weight_hh_l0: expected a floating-point dtype, got int32",
    ),
    "torch: two dtypes": (
        torch({"bias_ih_l0": numbers(12, dtype=np.float16)}),
        "state_dict: bias_ih_l0: expected dtype float32, as weight_hh_l0, got float16",
    ),
    "torch: double": (
        torch({"weight_hh_l0": numbers(12, 4, dtype=np.float64)}),
        "state_dict: weight_hh_l0: expected float32 while jax_enable_x64 is off, got float64",
    ),
    "torch: no array": (torch({"weight_hh_l0": "U"}), "state_dict: weight_hh_l0: expected an array, got str"),
    "torch: empty": (
        torch({"weight_ih_l0": numbers(12, 0)}),
        "state_dict: weight_ih_l0: expected numbers, got an empty array (12, 0)",
    ),
    "torch: prefix": (
        lambda: from_state_dict({"rnn.weight_hh": numbers(3, 1)}, prefix="gru."),
        "prefix: expected a prefix of a name in the state dict, got 'gru.'; choose prefix='rnn.'",
    ),
    "torch: a larger model": (
        lambda: from_state_dict({f"{name}.weight_hh_l0": numbers(12, 4) for name in ("a.rnn", "b")} | {"c": 1}),
        "state_dict: expected the names of one recurrent layer, got those of a larger model; choose prefix='a.rnn.' or "
        "prefix='b.'",
    ),
    "torch: a larger model below a prefix": (
        lambda: from_state_dict(
            {f"module.{k}.parametrizations.weight_hh_l0.original1": numbers(12, 4) for k in range(6)}, prefix="module."
        ),
        "state_dict['module.'...]: expected the names of one recurrent layer, got those of a larger model; choose "
        "prefix='module.0.' or prefix='module.1.' or prefix='module.2.' or prefix='module.3.', or one of 2 more",
    ),
    "torch: nonlinearity unsaid": (
        lambda: from_state_dict(to_state_dict(ELMAN, draw_params(ELMAN, I, H))),
        'nonlinearity: expected "tanh" or "relu", which the state dict of a torch.nn.RNN does not tell, got None',
    ),
    "torch: another nonlinearity": (
        lambda: from_state_dict(to_state_dict(ELMAN, draw_params(ELMAN, I, H)), nonlinearity="gelu"),
        "nonlinearity: expected one of 'tanh', 'relu', got 'gelu'",
    ),
    "torch: nonlinearity of a GRU": (
        lambda: from_state_dict(to_state_dict(AFTER, draw_params(AFTER, I, H)), nonlinearity="tanh"),
        "nonlinearity: expected None for a GRU, got 'tanh'",
    ),
    "torch: another parametrization": (
        torch({"weight_hh_l0": None, "parametrizations.weight_hh_l0.original": numbers(12, 4)}),
        "state_dict: weight_hh_l0: expected a weight, or the parts of weight_norm or prune, got original: "
        "in PyTorch remove the parametrization first",
    ),
    "torch: spectral norm": (
        torch({"weight_hh_l0": None, "weight_hh_l0_orig": numbers(12, 4)} | {"weight_hh_l0_u": numbers(12)}),
        "state_dict: weight_hh_l0: expected a weight, or the parts of weight_norm or prune, got orig, u: in "
        "PyTorch remove the parametrization first",
    ),
    "torch: a weight and its parts": (
        torch({"weight_hh_l0_g": numbers(12, 1), "weight_hh_l0_v": numbers(12, 4)}),
        "state_dict: weight_hh_l0: expected a weight or its parts, got both: g, v",
    ),
    "torch: parts that do not fit": (
        torch({"weight_hh_l0": None, "weight_hh_l0_g": numbers(12, 4), "weight_hh_l0_v": numbers(12, 3)}),
        "state_dict: weight_hh_l0: expected g and v of one weight, got shapes (12, 4) and (12, 3)",
    ),
    "torch: a mask that does not fit": (
        torch({"weight_hh_l0": None, "weight_hh_l0_orig": numbers(12, 4), "weight_hh_l0_mask": numbers(12, 1)}),
        "state_dict: weight_hh_l0_mask: expected shape (12, 4), got (12, 1)",
    ),
    "torch: a quantized layer": (
        lambda: from_state_dict({"_all_weight_values.0.param": 1}),
        "state_dict: _all_weight_values.0.param: expected weights, got a quantized layer: read the layer "
        "before quantization",
    ),
    "keras: no list": (lambda: from_weights({}), "weights: expected a list of arrays, got dict"),
    "keras: number of arrays": (
        keras({}, num_layers=2),
        "weights: expected 6 arrays, or 4 without biases, for 2 layers of 1 directions, got 3",
    ),
    "keras: gates": (
        keras({1: numbers(4, 8)}),
        "weights: [1] recurrent_kernel: expected shape (H, 3H) or (H, 4H) or (H, H), got (4, 8)",
    ),
    "keras: kernel": (keras({0: numbers(3, 9)}), "weights: [0] kernel: expected shape (I, 12), got (3, 9)"),
    "keras: bias": (keras({2: numbers(2, 9)}), "weights: [2] bias: expected shape (2, 12), got (2, 9)"),
    "keras: bias of an LSTM": (
        keras({2: numbers(2, 16)}, LSTM),
        "weights: [2] bias: expected shape (16,), got (2, 16)",
    ),
    "keras: reset unsaid": (
        lambda: from_weights([numbers(3, 12), numbers(4, 12)]),
        'reset: expected "before" or "after" for a GRU without a bias, got None',
    ),
    "keras: reset": (
        keras({}, reset="before"),
        'reset: expected "after", from the shape of [2] bias, got "before"',
    ),
    "keras: reset of an LSTM": (
        keras({}, LSTM, reset="before"),
        "reset: expected None for a layer that is no GRU, got 'before'",
    ),
    "keras: activation unsaid": (
        lambda: from_weights(to_weights(ELMAN, draw_params(ELMAN, I, H))),
        'activation: expected "tanh" or "relu", which the list of a SimpleRNN\'s weights does not tell, got None',
    ),
    "keras: activation of a GRU": (
        keras({}, activation="relu"),
        "activation: expected None or 'tanh' for a GRU, got 'relu'",
    ),
    "keras: activation of gates": (
        keras({}, recurrent_activation="hard_sigmoid"),
        "recurrent_activation: expected one of None, 'sigmoid', got 'hard_sigmoid'",
    ),
    "torch: prefix to read": (
        lambda: from_state_dict(to_state_dict(AFTER, draw_params(AFTER, I, H)), prefix=1),
        "prefix: expected a string, got int",
    ),
    "torch: prefix to write": (
        lambda: to_state_dict(AFTER, draw_params(AFTER, I, H), prefix=None),
        "prefix: expected a string, got NoneType",
    ),
    "keras: merge": (
        keras({}, merge="max"),
        "merge: expected one of 'concat', 'sum', 'ave', 'mul', got 'max'",
    ),
    "keras: bias of a CuDNNGRU with the other reset": (
        keras({2: numbers(24)}, reset="before"),
        'reset: expected "after", from the shape of [2] bias, got "before"',
    ),
    "keras: no array": (keras({2: None}), "weights: [2] bias: expected an array, got NoneType"),
    "linen: no dict": (lambda: from_linen(3), "params: expected a dict of parameters, got int"),
    "linen: nothing": (
        lambda: from_linen({"params": {}}),
        "params: expected a GRUCell, LSTMCell or SimpleCell at 'the top', got nothing",
    ),
    "linen: missing": (
        linen({"hn/": {"bias": None}}),
        "params: hn/bias: expected an array (4), got none; there is ir/kernel, ir/bias, hr/kernel, iz/kernel, iz/bias, "
        "hz/kernel, in/kernel, in/bias, and 1 more",
    ),
    "linen: too many": (
        linen({"": {"head": {"kernel": numbers(4, 2)}}}, ELMAN),
        "params: head/kernel: expected no such array beside h/kernel, i/bias, i/kernel, got one",
    ),
    "linen: shape": (linen({"iz/": {"kernel": numbers(3, 5)}}), "params: iz/kernel: expected shape (3, 4), got (3, 5)"),
    "linen: two widths": (
        linen({"iz/": {"kernel": numbers(2, 4)}}),
        "params: iz/kernel: expected shape (3, 4), got (2, 4)",
    ),
    "linen: a gate wider": (
        linen({"hz/": {"kernel": numbers(4, 8)}}),
        "params: hz/kernel: expected shape (4, 4), got (4, 8)",
    ),
    "linen: layers apart": (
        lambda: from_linen({f"layers_{k}": {"cell": to_linen(ELMAN, draw_params(ELMAN, I, H))} for k in (0, 2)}),
        "params: expected recurrent layers numbered 0, 1, 2 without gaps, got layers 0, 2",
    ),
    "linen: merge": (
        lambda: from_linen({}, merge="max"),
        "merge: expected one of 'concat', 'sum', 'ave', 'mul', got 'max'",
    ),
    "linen: activation unsaid": (
        lambda: from_linen(to_linen(ELMAN, draw_params(ELMAN, I, H))),
        "module: expected the module of a SimpleCell, whose parameters do not tell tanh or relu, got None",
    ),
    "linen: no module": (
        lambda: from_linen(to_linen(ELMAN, draw_params(ELMAN, I, H)), module="tanh"),
        "module: expected a module of flax.linen, got str",
    ),
    "nnx: no module": (lambda: from_nnx({}), "module: expected a module or a state of flax.nnx, got dict"),
    "haiku: no dict": (lambda: from_params([]), "params: expected a dict of parameters, got list"),
    "haiku: nothing": (lambda: from_params({}), "params: expected modules numbered as gru, gru_1, gru_2, got none"),
    "haiku: numbers": (
        haiku({"gru_2": {"w_h": numbers(4, 12)}}),
        "params: expected modules numbered as gru, gru_1, gru_2, got gru, gru_2",
    ),
    "haiku: missing": (
        haiku({"gru": {"b": None}}),
        "params: gru: b: expected an array (12), got none; there is gru: w_i, gru: w_h",
    ),
    "haiku: too many": (
        haiku({"gru": {"c": numbers(2)}}),
        "params: gru: c: expected no such array beside gru: b, gru: w_h, gru: w_i, got one",
    ),
    "haiku: gates": (haiku({"gru": {"w_h": numbers(4, 16)}}), "params: gru: w_h: expected shape (H, 3H), got (4, 16)"),
    "haiku: gates of an LSTM": (
        haiku({"lstm/linear": {"w": numbers(7, 15)}}, LSTM),
        "params: lstm/linear: w: expected shape (I + H, 4H), got (7, 15)",
    ),
    "haiku: width of a layer": (
        haiku({"lstm_1/linear": {"w": numbers(9, 16)}}, TWO_LAYERS),
        "params: lstm_1/linear: w: expected shape (4 + H, 4H), got (9, 16)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_weights_raise_one_line(name):
    call, line = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=rf"^{re.escape(line)}$"):
        call()


BAD = numbers(12, 4)
BAD[0, :2] = np.nan, np.inf


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (torch({"weight_hh_l0": BAD}), "state_dict: weight_hh_l0"),
        (keras({1: BAD.T}), "weights: [1] recurrent_kernel"),
        (linen({"hz/": {"kernel": BAD[:4]}}), "params: hz/kernel"),
        (haiku({"gru": {"w_h": BAD.T}}), "params: gru: w_h"),
    ],
    ids=["torch", "keras", "linen", "haiku"],
)
def test_nan_weights_are_a_warning(call, key):
    size = 16 if "hz" in key else 48
    with pytest.warns(UserWarning, match=rf"^{re.escape(key)}: 2 of {size} weights are NaN or infinite$"):
        _, params = call()
    assert np.isnan(params.U).any()


def test_sparse_and_meta_tensors_raise_one_line():
    module = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    line = r"^state_dict: weight_hh_l0: expected a dense tensor, got torch\.float32, [^\n]+$"
    for tensor in (module.ones(12, 4).to_sparse(), module.ones(12, 4, device="meta")):
        with pytest.raises(TypeError, match=line):
            torch({"weight_hh_l0": tensor})()


def test_tracers_raise_one_line():
    weights = to_weights(ELMAN, draw_params(ELMAN, I, H))
    with pytest.raises(
        TypeError, match=r"^weights: \[1\] recurrent_kernel: expected a concrete array, got a tracer inside"
    ):
        jax.jit(lambda U: from_weights([weights[0], U, weights[2]])[1])(jnp.asarray(weights[1]))
