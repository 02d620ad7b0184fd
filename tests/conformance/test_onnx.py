"""ONNX: the node test cases of the operators, onnxruntime, and models exported by PyTorch."""

import io
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.interop.onnx import from_model, read_nodes, to_file, to_model
from gru_jax.interop.onnx._node import INPUTS, WEIGHTS, node_inputs
from tests.conformance.agreement import CELLS, assert_close, assert_same_bits, draw_params, draw_task
from tests.gru_jax.covering import pairwise

onnx = pytest.importorskip("onnx", reason="needs ONNX: make test-peers")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: make test-peers")

I, H = 3, 5


def node_cases():
    """Returns the node test cases of the three operators in the onnx package."""
    from onnx.backend.test.case import node
    from onnx.backend.test.case.node import gru, lstm, rnn

    assert all((gru.GRU, lstm.LSTM, rnn.RNN)), "registered as they are imported"
    made = {case.name: case for case in node._NodeTestCases}
    return [case for case in made.values() if {n.op_type for n in case.model.graph.node} & {"GRU", "LSTM", "RNN"}]


def run_model(model, inputs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(array) for name, array in inputs.items()})


@pytest.mark.parametrize("case", node_cases(), ids=lambda case: case.name)
def test_node_test_cases_have_their_outputs(case, backend):
    """The weights, which are inputs in these cases, become constants of the model."""
    ((inputs, outputs),) = case.data_sets
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    graph = model.graph
    arrays = dict(zip([value.name for value in graph.input], inputs, strict=True))
    given = node_inputs(graph.node[0])
    weights = [given[slot] for slot in WEIGHTS if slot in given]
    graph.initializer.extend(onnx.numpy_helper.from_array(arrays[name], name) for name in weights)
    (layer,) = read_nodes(model.SerializeToString())
    runtime = {slot: jnp.asarray(arrays[name]) for slot, name in given.items() if slot not in WEIGHTS}
    results = layer(**runtime, backend=backend)
    named = dict(zip(graph.node[0].output, results, strict=False))
    for value, expected in zip(graph.output, outputs, strict=True):
        assert_close(named[value.name], expected, "float32", value.name)


def test_every_operator_has_node_test_cases():
    assert {case.model.graph.node[0].op_type for case in node_cases()} == {"GRU", "LSTM", "RNN"}


NODES = pairwise(
    {
        "operator": ["GRU", "GRU-linear", "LSTM", "RNN"],
        "direction": ["forward", "reverse", "bidirectional"],
        "sequence_lens": [False, True],
        "initial": [False, True],
        "bias": [False, True],
    }
) + [
    {"operator": operator, "direction": "bidirectional", "sequence_lens": True, "initial": True, "bias": True}
    for operator in ("GRU", "GRU-linear", "LSTM", "RNN")
]


def node_label(case):
    flags = [name for name in ("sequence_lens", "initial", "bias") if case[name]]
    return "-".join([case["operator"], case["direction"], *flags])


def node_model(case, B=3, T=7, seed=0):
    """Returns a model of one node with random weights, and its inputs."""
    rng = np.random.default_rng(seed)
    operator = case["operator"].partition("-")[0]
    D, G = 2 if case["direction"] == "bidirectional" else 1, {"GRU": 3, "LSTM": 4, "RNN": 1}[operator]

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.5)

    weights = {"W": normal(D, G * H, I), "R": normal(D, G * H, H)}
    weights |= {"B": normal(D, 2 * G * H)} if case["bias"] else {}
    inputs = {"X": normal(T, B, I)}
    inputs |= {"sequence_lens": np.array([7, 1, 4], np.int32)} if case["sequence_lens"] else {}
    states = ("initial_h", "initial_c") if operator == "LSTM" else ("initial_h",)
    inputs |= {state: normal(D, B, H) for state in states} if case["initial"] else {}
    present = weights | inputs
    names = [slot if slot in present else "" for slot in INPUTS]
    while not names[-1]:
        names.pop()
    options = {"hidden_size": H, "direction": case["direction"]}
    options |= {"linear_before_reset": 1} if case["operator"] == "GRU-linear" else {}
    outputs = ["Y", "Y_h"] + (["Y_c"] if operator == "LSTM" else [])
    node = onnx.helper.make_node(operator, names, outputs, **options)
    kinds = {np.dtype("float32"): onnx.TensorProto.FLOAT, np.dtype("int32"): onnx.TensorProto.INT32}
    values = [onnx.helper.make_tensor_value_info(name, kinds[a.dtype], a.shape) for name, a in inputs.items()]
    results = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs]
    constants = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = onnx.helper.make_graph([node], "one_node", values, results, constants)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), inputs


@pytest.mark.parametrize("case", NODES, ids=node_label)
def test_nodes_equal_onnxruntime(case, backend):
    model, inputs = node_model(case)
    (layer,) = read_nodes(model.SerializeToString())
    ours = layer(**{name: jnp.asarray(array) for name, array in inputs.items()}, backend=backend)
    for name, a, b in zip(("Y", "Y_h", "Y_c"), ours, run_model(model, inputs), strict=False):
        assert_close(a, b, "float32", name)


EXPORTS = pairwise(
    {
        "name": list(CELLS),
        "num_layers": [1, 2, 3],
        "directions": ["one", "concat", "sum", "ave", "mul"],
        "lengths": [False, True],
        "h0": [False, True],
        "time_major": [False, True],
    }
)


def export_label(case):
    flags = [name for name in ("lengths", "h0", "time_major") if case[name]]
    return "-".join([case["name"], str(case["num_layers"]), case["directions"], *flags])


def states_to_onnx(states):
    """Converts states to [h] or [h, c], each (L D, B, H)."""
    cells = [state for layer in states for state in layer]
    parts = zip(*cells, strict=True) if isinstance(cells[0], gru_jax.LSTMState) else [cells]
    return [np.stack(part) for part in parts]


@pytest.mark.parametrize("case", EXPORTS, ids=export_label)
def test_written_models_equal_onnxruntime(case):
    """One model runs with three batch sizes and numbers of steps. It is read back bit for bit."""
    name, time_major = case["name"], case["time_major"]
    merge = "concat" if case["directions"] == "one" else case["directions"]
    stack = gru_jax.Stack(CELLS[name], case["num_layers"], case["directions"] != "one", merge)
    params = draw_params(stack, I, H)
    model = to_model(stack, params, lengths=case["lengths"], h0=case["h0"], time_major=time_major)
    onnx.checker.check_model(model, full_check=True)
    for B, T in ((3, 7), (1, 4), (4, 1)):
        task = draw_task(stack, I, H, B=B, T=T, lengths=case["lengths"], h0=case["h0"])
        xs = jnp.swapaxes(task.xs, 0, 1) if time_major else task.xs
        ys, h_last = gru_jax.unroll(stack, params, xs, task.h0, lengths=task.lengths, time_major=time_major)
        inputs = {"xs": xs} | ({"lengths": task.lengths} if case["lengths"] else {})
        inputs |= dict(zip(("h0", "c0"), states_to_onnx(task.h0), strict=False)) if case["h0"] else {}
        theirs = run_model(model, inputs)
        for a, b in zip([ys, *states_to_onnx(h_last)], theirs, strict=True):
            assert_close(a, b, "float32", f"B = {B}, T = {T}")
    read, params_read = from_model(model, merge=merge)
    single = case["num_layers"] == 1 and case["directions"] == "one"
    assert read == (stack.cell if single else stack)
    assert_same_bits(params_read, params[0][0] if single else params)


@pytest.mark.parametrize("operator", ["GRU", "GRU-linear", "LSTM", "RNN"])
def test_round_trip_of_models_keeps_the_outputs(operator):
    """The outputs of a model do not change. They are equal bit for bit if one of the two biases is zero."""
    options = {"sequence_lens": False, "initial": False, "bias": True}
    model, inputs = node_model({"operator": operator, "direction": "forward", **options})
    for exact in (False, True):
        if exact:
            (bias,) = [tensor for tensor in model.graph.initializer if tensor.name == "B"]
            B = onnx.numpy_helper.to_array(bias).copy()
            B[:, B.size // 2 :] = 0
            bias.CopyFrom(onnx.numpy_helper.from_array(B, "B"))
        expected = run_model(model, inputs)
        found = run_model(to_model(*from_model(model), time_major=True), {"xs": inputs["X"]})
        for a, b in zip(found, [expected[0][:, 0], *expected[1:]], strict=True):
            assert_close(a, b, "float32", operator)
            assert not exact or a.tobytes() == b.tobytes()


def test_files_are_read_back(tmp_path):
    cell = CELLS["gru_before"]
    params = draw_params(cell, I, H)
    to_file(tmp_path / "gru.onnx", cell, params, lengths=True)
    assert [path.name for path in tmp_path.iterdir()] == ["gru.onnx"]
    for source in (tmp_path / "gru.onnx", str(tmp_path / "gru.onnx"), (tmp_path / "gru.onnx").read_bytes()):
        assert_same_bits(from_model(source)[1], params)


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_float64_and_float16_models_equal_the_reference(dtype):
    """Uses the reference implementation of ONNX, since onnxruntime has float32 kernels only."""
    with jax.enable_x64(True):
        cell = CELLS["gru_after"]
        params = draw_params(cell, I, H, dtype)
        xs = draw_task(cell, I, H, dtype).xs
        model = to_model(cell, params)
        assert_same_bits(from_model(model)[1], params)
        ys, h_last = onnx.reference.ReferenceEvaluator(model).run(None, {"xs": np.asarray(xs)})
        ours, ours_last = gru_jax.unroll(cell, params, xs)
        tolerance = 1e-10 if dtype == "float64" else 1e-2
        np.testing.assert_allclose(ours, ys, rtol=0, atol=tolerance)
        np.testing.assert_allclose(ours_last[None], h_last, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "bidirectional", "told"),
    [("GRU", True, {}), ("LSTM", True, {}), ("RNN", False, {}), ("RNN", True, {"nonlinearity": "relu"})],
)
def test_models_exported_by_pytorch_are_read(kind, bidirectional, told):
    torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    from gru_jax.interop.torch import from_module

    torch.manual_seed(0)
    layer = torch.nn.__dict__[kind](I, H, num_layers=2, bidirectional=bidirectional, batch_first=True, **told)
    buffer = io.BytesIO()
    axes = {"xs": {0: "B", 1: "T"}, "ys": {0: "B", 1: "T"}}
    with warnings.catch_warnings():
        # PyTorch warns about this exporter, but the other one needs another package.
        warnings.simplefilter("ignore")
        options = {"input_names": ["xs"], "output_names": ["ys"], "dynamic_axes": axes, "dynamo": False}
        torch.onnx.export(layer, (torch.zeros(2, 6, I),), buffer, **options)
    stack, params = from_model(buffer.getvalue())
    expected, params_expected = from_module(layer)
    assert stack == expected
    assert_same_bits(params, params_expected)


@pytest.mark.parametrize("operator", ["GRU", "GRU-linear", "LSTM", "RNN"])
def test_clip_without_effect_is_accepted(operator):
    """An accepted clip does not change a bit in onnxruntime. The weights are so large that a smaller clip does."""
    options = {"sequence_lens": False, "initial": False, "bias": True}
    model, inputs = node_model({"operator": operator, "direction": "bidirectional", **options})
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor) * np.float32(100)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    (expected,), outputs = read_nodes(model.SerializeToString()), run_model(model, inputs)
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("clip", 1.0))
    for clip in (104.0, 999.0, 9999.0, float("inf")):
        model.graph.node[0].attribute[-1].f = clip
        (layer,) = read_nodes(model.SerializeToString())
        assert layer.cell == expected.cell
        assert_same_bits(layer.params, expected.params)
        assert_same_bits(run_model(model, inputs), outputs)
    model.graph.node[0].attribute[-1].f = 3.0
    assert np.abs(run_model(model, inputs)[0] - outputs[0]).max() > 1e-3


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_relu_networks_equal_onnxruntime(direction, backend):
    case = {"operator": "RNN", "direction": direction, "sequence_lens": True, "initial": True, "bias": True}
    model, inputs = node_model(case)
    activations = ["Relu"] * (1 + (direction == "bidirectional"))
    model.graph.node[0].attribute.append(onnx.helper.make_attribute("activations", activations))
    (layer,) = read_nodes(model.SerializeToString())
    ours = layer(**{name: jnp.asarray(array) for name, array in inputs.items()}, backend=backend)
    for a, b in zip(ours, run_model(model, inputs), strict=True):
        assert_close(a, b, "float32", direction)
