"""A network written as an ONNX model."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from gru_jax.cells import GRU, LSTM, Elman
from gru_jax.interop.network import Parts
from gru_jax.interop.onnx._node import OPERATORS, weights_of
from gru_jax.interop.packages import needing

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # Old enough for the runtimes about, new enough for every operator written.
DTYPES = (jnp.float32, jnp.float64, jnp.float16)


def write(parts: Parts, lengths: bool, h0: bool, time_major: bool) -> "onnx.ModelProto":
    """Writes a network: what `gru_jax.interop.onnx.to_model` says."""
    with needing("onnx", "to write ONNX models"):
        from onnx import helper, numpy_helper

    I, H, dtype = parts.cell.check(parts.layers[0][0])
    if dtype not in DTYPES:
        raise TypeError(f"params: expected float32, float64 or float16, which ONNX's operators take, got {dtype}")
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    L, D = len(parts.layers), parts.directions
    states = ("h", "c") if isinstance(parts.cell, LSTM) else ("h",)
    steps = ("T", "B") if time_major else ("B", "T")
    width = D * H if parts.merge == "concat" else H

    def value(name: str, shape: tuple[Any, ...], kind: int = number) -> "onnx.ValueInfoProto":
        return helper.make_tensor_value_info(name, kind, shape)

    inputs = [value("xs", (*steps, I))]
    inputs += [value("lengths", ("B",), helper.np_dtype_to_tensor_dtype(np.dtype(np.int32)))] if lengths else []
    inputs += [value(f"{state}0", (L * D, "B", H)) for state in states] if h0 else []
    outputs = [value("ys", (*steps, width))] + [value(f"{state}_last", (L * D, "B", H)) for state in states]

    nodes, constants = [], []

    def constant(name: str, array: Any) -> str:
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(operator: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    xs = "xs" if time_major else node("Transpose", ["xs"], ["xs_time_major"], perm=[1, 0, 2])
    if h0 and L > 1:
        parted = constant("states_per_layer", np.full(L, D, np.int64))
        for state in states:
            node("Split", [f"{state}0", parted], [f"{state}0_{layer}" for layer in range(L)], axis=0)
    options: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"}
    if isinstance(parts.cell, GRU):
        options["linear_before_reset"] = int(parts.cell.reset == "after")
    if isinstance(parts.cell, Elman):
        options["activations"] = D * [parts.cell.activation.capitalize()]
    for layer, params in enumerate(parts.layers):
        weights = [constant(f"{name}_{layer}", array) for name, array in weights_of(parts.cell, params).items()]
        starts = [f"{state}0_{layer}" if L > 1 else f"{state}0" for state in states] if h0 else []
        lasts = [f"{state}_last_{layer}" if L > 1 else f"{state}_last" for state in states]
        arguments = [xs, *weights, "lengths" if lengths else "", *starts]
        while not arguments[-1]:
            arguments.pop()
        Y = node(OPERATORS[type(parts.cell)], arguments, [f"Y_{layer}", *lasts], **options)
        last = layer == L - 1 and time_major
        xs = _merge(node, constant, parts, Y, "ys" if last else f"ys_{layer}", H)
    if not time_major:
        node("Transpose", [xs], ["ys"], perm=[1, 0, 2])
    if L > 1:
        for state in states:
            node("Concat", [f"{state}_last_{layer}" for layer in range(L)], [f"{state}_last"], axis=0)
    graph = helper.make_graph(nodes, "gru_jax", inputs, outputs, constants)
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="gru_jax",
        producer_version=_installed_version(),
    )


def _installed_version() -> str:
    """Returns the version of gru_jax, "" where it runs from a folder without being installed."""
    try:
        return metadata.version("gru_jax")
    except metadata.PackageNotFoundError:
        return ""


def _merge(node: Any, constant: Any, parts: Parts, Y: str, ys: str, H: int) -> str:
    """Makes ys (T, B, ...) of Y (T, D, B, H)."""
    if parts.directions == 1:
        return node("Squeeze", [Y, constant(f"{ys}_axis", np.array([1]))], [ys])
    if parts.merge == "sum":
        return node("ReduceSum", [Y, constant(f"{ys}_axis", np.array([1]))], [ys], keepdims=0)
    if parts.merge in ("ave", "mul"):  # whose operators take their axes as an attribute in this opset
        return node("ReduceMean" if parts.merge == "ave" else "ReduceProd", [Y], [ys], axes=[1], keepdims=0)
    side_by_side = node("Transpose", [Y], [f"{ys}_pairs"], perm=[0, 2, 1, 3])
    return node("Reshape", [side_by_side, constant(f"{ys}_shape", np.array([0, 0, 2 * H]))], [ys])
