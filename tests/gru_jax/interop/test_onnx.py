"""ONNX models that are not a `Stack` raise one line with the name of the node."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.onnx import from_model, read_nodes, to_file, to_model
from tests.conformance.agreement import draw_params

onnx = pytest.importorskip("onnx", reason="needs ONNX: make test-peers")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

I, H = 2, 3
AFTER = gru_jax.GRU(reset="after")
STACK = gru_jax.Stack(AFTER, 2, bidirectional=True)


def written(cell=AFTER, **options):
    return to_model(cell, draw_params(cell, I, H), **options)


def node_of(model, number=0):
    return [node for node in model.graph.node if node.op_type in ("GRU", "LSTM", "RNN")][number]


def set_attributes(model, **attributes):
    """Sets attributes of the first recurrent node."""
    node = node_of(model)
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *[helper.make_attribute(name, value) for name, value in attributes.items()]])
    return model


def set_constant(model, name, array):
    """Replaces a constant or an input by a constant."""
    for group in (model.graph.initializer, model.graph.input):
        for found in [entry for entry in group if entry.name == name]:
            group.remove(found)
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def without_constant(model, name):
    (found,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    model.graph.initializer.remove(found)
    return model


def between(model, *nodes):
    """Inserts nodes between the layers, from ys_0 to ys_0_done."""
    after = node_of(model, 1)
    after.input[0] = "ys_0_done"
    at = list(model.graph.node).index(after)
    for node in reversed(nodes):
        model.graph.node.insert(at, node)
    return model


def one_length(model):
    node_of(model, 1).input[4] = ""
    return model


GRU = "GRU node 'Y_0'"
NO_SUCH = "expected no such attribute, since no cell here has it, got"
TOO_LARGE = "one too large to have an effect in float32"
ONES = np.ones((1, 9, 3), np.float32)
REFUSED = {
    "no model": (3, "model: expected a ModelProto, bytes or a path, got int"),
    "no recurrent node": (
        helper.make_model(helper.make_graph([helper.make_node("Add", ["a", "b"], ["c"])], "sum", [], [])),
        "model: expected a GRU, LSTM or RNN node, got Add",
    ),
    "clip": (set_attributes(written(), clip=3.0), f"model: {GRU}: clip: expected none, or {TOO_LARGE}, got 3.0"),
    "clip that a gate may feel": (
        set_attributes(written(gru_jax.LSTM()), clip=80.0),
        f"model: LSTM node 'Y_0': clip: expected none, or {TOO_LARGE}, got 80.0",
    ),
    "clip of a ReLU": (
        set_attributes(written(gru_jax.Elman("relu")), clip=9999.0),
        f"model: RNN node 'Y_0': clip: expected none, or {TOO_LARGE}, got 9999.0",
    ),
    "clip below zero": (
        set_attributes(written(), clip=-1.0),
        f"model: {GRU}: clip: expected none, or {TOO_LARGE}, got -1.0",
    ),
    "two activations": (
        set_attributes(written(gru_jax.Stack(gru_jax.Elman(), 1, True)), activations=["Tanh", "Relu"]),
        "model: RNN node 'Y_0': activations: expected tanh or relu, got Tanh, Relu",
    ),
    "an activation of an RNN": (
        set_attributes(written(gru_jax.Elman()), activations=["Softsign"]),
        "model: RNN node 'Y_0': activations: expected tanh or relu, got Softsign",
    ),
    "slopes": (
        set_attributes(written(), activation_alpha=[0.25]),
        f"model: {GRU}: activation_alpha: {NO_SUCH} [0.25]",
    ),
    "activations": (
        set_attributes(written(), activations=["Sigmoid", "Relu"]),
        f"model: {GRU}: activations: expected sigmoid, tanh, got Sigmoid, Relu",
    ),
    "coupled gates": (
        set_attributes(written(gru_jax.LSTM()), input_forget=1),
        "model: LSTM node 'Y_0': input_forget: expected one of 0, got 1",
    ),
    "output_sequence": (
        set_attributes(written(), output_sequence=1),
        f"model: {GRU}: output_sequence: {NO_SUCH} 1",
    ),
    "hidden_size": (
        set_attributes(written(), hidden_size=4),
        f"model: {GRU}: hidden_size: expected 3, that of R (1, 9, 3), got 4",
    ),
    "linear_before_reset": (
        set_attributes(written(), linear_before_reset=2),
        f"model: {GRU}: linear_before_reset: expected one of 0, 1, got 2",
    ),
    "direction": (
        set_attributes(written(), direction="sideways"),
        f"model: {GRU}: direction: expected one of 'forward', 'reverse', 'bidirectional', got 'sideways'",
    ),
    "reverse alone": (
        set_attributes(written(), direction="reverse"),
        f'model: {GRU}: direction: expected "forward" or "bidirectional", got "reverse": take the node from '
        "read_nodes, and unroll with reverse=True",
    ),
    "gates": (
        set_constant(written(), "R_0", ONES[:, :8]),
        f"model: {GRU}: R: expected shape (1, 9, 3), got (1, 8, 3)",
    ),
    "directions": (
        set_constant(written(), "R_0", ONES[[0, 0]]),
        f"model: {GRU}: R: expected shape (1, 3H, H), got (2, 9, 3)",
    ),
    "bias": (
        set_constant(written(), "B_0", ONES[0, :, 0][None]),
        f"model: {GRU}: B: expected shape (1, 18), got (1, 9)",
    ),
    "dtype": (
        set_constant(written(), "R_0", ONES.astype(np.int64)),
        f"model: {GRU}: R: expected a floating-point dtype, got int64",
    ),
    "no weights": (
        without_constant(written(), "W_0"),
        f"model: {GRU}: W_0: expected a constant, got a tensor that depends on the model's inputs",
    ),
    "fixed lengths": (
        set_constant(written(lengths=True), "lengths", np.array([2, 1], np.int32)),
        f"model: {GRU}: sequence_lens: expected an input of the model, got a constant: take the node from read_nodes, "
        "and call it with the constant",
    ),
    "fixed state": (
        set_constant(written(h0=True), "h0", ONES[:, :2]),
        f"model: {GRU}: initial_h: expected an input of the model, got a constant: take the node from read_nodes, "
        "and call it with the constant",
    ),
    "lengths of one layer alone": (
        one_length(written(STACK, lengths=True)),
        f"model: GRU node 'Y_1': sequence_lens: expected lengths, as in {GRU}, got None",
    ),
    "something between layers": (
        between(written(STACK), helper.make_node("Tanh", ["ys_0"], ["ys_0_done"])),
        f"model: GRU node 'Y_1': X: expected the outputs of {GRU} with merge='concat' and otherwise unchanged, "
        "got 'ys_0_done'",
    ),
    "a layer beside another": (
        between(written(STACK), helper.make_node("Add", ["ys_0", "h_last_0"], ["ys_0_done"])),
        f"model: GRU node 'Y_1': X: expected the outputs of {GRU} only, as in a stack, got 'ys_0_done'",
    ),
    "an unknown operator between layers": (
        between(written(STACK), helper.make_node("Fancy", ["ys_0"], ["ys_0_done"])),
        "model: ys_0_done: cannot be evaluated: ",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_raise_one_line(name):
    model, line = REFUSED[name]
    end = "" if line.endswith(": ") else "$"
    with pytest.raises((TypeError, ValueError), match=rf"^{re.escape(line)}[^\n]*{end}"):
        from_model(model)


def test_constant_initial_states_of_zeros_are_accepted():
    model = set_constant(written(h0=True), "h0", np.zeros((1, 2, H), np.float32))
    assert from_model(model)[0] == AFTER


def test_reverse_node_is_read_by_read_nodes():
    (node,) = read_nodes(set_attributes(written(), direction="reverse"))
    xs = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2, I)), jnp.float32)
    Y, Y_h = node(xs)
    expected, h_last = gru_jax.unroll(AFTER, draw_params(AFTER, I, H), xs, time_major=True, reverse=True)
    np.testing.assert_array_equal(Y[:, 0], expected)
    np.testing.assert_array_equal(Y_h[0], h_last)


def test_wrong_arguments_of_a_node_raise_one_line():
    lstm, both = gru_jax.LSTM(), gru_jax.Stack(gru_jax.LSTM(), bidirectional=True)
    nodes = [read_nodes(written(cell))[0] for cell in (AFTER, lstm, both)]
    X, one, two, three = jnp.ones((5, 2, I)), *(jnp.ones((d, 2, H)) for d in (1, 2, 3))
    for node, arguments, error in (
        (nodes[0], (X[:, 0],), rf"X: expected shape (T, B, I), got (5, {I})"),
        (nodes[0], (X, None, two), f"initial_h: expected shape (1, 2, {H}), got (2, 2, {H})"),
        (nodes[0], (X, None, one[0, 0]), f"initial_h: expected shape (1, 2, {H}), got ({H},)"),
        (nodes[0], (X, None, [[1.0]]), "initial_h: expected an array, got list"),
        (nodes[0], (X, None, None, one), "initial_c: expected None for a cell other than an LSTM, got a state"),
        (nodes[1], (X, None, two, one), f"initial_h: expected shape (1, 2, {H}), got (2, 2, {H})"),
        (nodes[2], (X, None, two, three), f"initial_c: expected shape (2, 2, {H}), got (3, 2, {H})"),
    ):
        with pytest.raises((TypeError, ValueError)) as raised:
            node(*arguments)
        assert str(raised.value) == error


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "gru.onnx"
    with pytest.raises(FileNotFoundError, match=re.escape(str(path))):
        from_model(path)
    to_file(path, AFTER, draw_params(AFTER, I, H))
    whole = path.read_bytes()
    for damaged in (whole[:100], whole[:-1], b"\x89PNG\r\n" + whole):
        path.write_bytes(damaged)
        with pytest.raises(
            ValueError, match=rf"^{re.escape(str(path))}: expected an ONNX model, got DecodeError: [^\n]+$"
        ):
            from_model(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: expected a GRU, LSTM or RNN node, got no nodes$"):
        from_model(path)


def test_external_weights_are_read(tmp_path):
    path = tmp_path / "gru.onnx"
    model = written()
    onnx.save(model, path, save_as_external_data=True, location="gru.weights", size_threshold=0)
    read = from_model(path)[1]
    np.testing.assert_array_equal(read.W, draw_params(AFTER, I, H).W)
    (tmp_path / "gru.weights").unlink()
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))}: expected an ONNX model, got [^\n]*gru\.weights[^\n]*$"
    ):
        from_model(path)


def test_nan_weights_are_a_warning():
    model = set_constant(written(), "R_0", np.full((1, 9, 3), np.nan, np.float32))
    with pytest.warns(UserWarning, match=r"^GRU node 'Y_0': R: 27 of 27 weights are NaN or infinite$"):
        from_model(model)


def test_bfloat16_cannot_be_written():
    cell = gru_jax.Elman()
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), draw_params(cell, I, H))
    with pytest.raises(
        TypeError, match=r"^params: expected float32, float64 or float16, as ONNX's operators have them, got"
    ):
        to_model(cell, params)
    with pytest.raises(TypeError, match=r"^lengths: expected True or False, got 1$"):
        to_model(cell, draw_params(cell, I, H), lengths=1)
