"""Writes a cell or a `Stack` as an ONNX model."""

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._types import Params
from gru_jax.cells import GRU, LSTM, Elman
from gru_jax.interop._arrays import require_package, write_atomically
from gru_jax.interop._gate_layout import Layers, split_layers
from gru_jax.interop.onnx._node import OPERATORS, write_weights

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # Supported by current runtimes, and new enough for every operator used here.
DTYPES = (jnp.float32, jnp.float64, jnp.float16)


def to_model(
    cell: Any, params: Params, *, lengths: bool = False, h0: bool = False, time_major: bool = False
) -> "onnx.ModelProto":
    """Writes a cell or a `Stack` as a model for any batch size and number of steps.

    Args:
      cell: a GRU, LSTM or Elman, or a `Stack` of them. Dropout is not written.
      params: its parameters, float32, float64 or float16.
      lengths: whether the model has an input `lengths (B,)` int32, from 1 to T. For an empty sequence onnxruntime
        returns a final state of zeros, `gru_jax.unroll` its h0.
      h0: whether the model has an input `h0 (L D, B, H)`, and `c0` for an LSTM. If False, they are zeros.
      time_major: whether xs and ys are (T, B, ...) rather than (B, T, ...).

    Returns:
      A model from `xs (B, T, I)` to `ys (B, T, D H)` and `h_last (L D, B, H)`, and `c_last` for an LSTM. States are
      ordered by layer, forward before backward. ys is (B, T, H) unless the directions are concatenated.

    Raises:
      ValueError, TypeError: another cell, or a dtype that ONNX's recurrent operators do not support.

    Example:
      >>> onnx.save(to_model(cell, params), "gru.onnx")
      >>> ys, h_last = onnxruntime.InferenceSession("gru.onnx").run(None, {"xs": xs})
    """
    for name, value in (("lengths", lengths), ("h0", h0), ("time_major", time_major)):
        arguments.boolean(name, value)
    return _build_model(split_layers(cell, params), lengths, h0, time_major)


def to_file(
    path: str | os.PathLike[str],
    cell: Any,
    params: Params,
    *,
    lengths: bool = False,
    h0: bool = False,
    time_major: bool = False,
) -> None:
    """Writes a model to a file; the other arguments are those of `to_model`."""
    model = to_model(cell, params, lengths=lengths, h0=h0, time_major=time_major)
    with write_atomically(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _build_model(layers: Layers, lengths: bool, h0: bool, time_major: bool) -> "onnx.ModelProto":
    with require_package("onnx", "to write ONNX models"):
        from onnx import helper, numpy_helper

    I, H, dtype = layers.cell.infer_sizes(layers.params[0][0])
    if dtype not in DTYPES:
        raise TypeError(f"params: expected float32, float64 or float16, as ONNX's operators have them, got {dtype}")
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    L, D = len(layers.params), layers.directions
    states = ("h", "c") if isinstance(layers.cell, LSTM) else ("h",)
    steps = ("T", "B") if time_major else ("B", "T")
    width = D * H if layers.merge == "concat" else H

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
        split = constant("states_per_layer", np.full(L, D, np.int64))
        for state in states:
            node("Split", [f"{state}0", split], [f"{state}0_{layer}" for layer in range(L)], axis=0)
    options: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if D == 2 else "forward"}
    if isinstance(layers.cell, GRU):
        options["linear_before_reset"] = int(layers.cell.reset == "after")
    if isinstance(layers.cell, Elman):
        options["activations"] = D * [layers.cell.activation.capitalize()]
    for layer, params in enumerate(layers.params):
        weights = [constant(f"{name}_{layer}", array) for name, array in write_weights(layers.cell, params).items()]
        starts = [f"{state}0_{layer}" if L > 1 else f"{state}0" for state in states] if h0 else []
        lasts = [f"{state}_last_{layer}" if L > 1 else f"{state}_last" for state in states]
        tensors = [xs, *weights, "lengths" if lengths else "", *starts]
        while not tensors[-1]:
            tensors.pop()
        Y = node(OPERATORS[type(layers.cell)], tensors, [f"Y_{layer}", *lasts], **options)
        last = layer == L - 1 and time_major
        xs = _merge(node, constant, layers, Y, "ys" if last else f"ys_{layer}", H)
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
    """Returns the version of gru_jax; "" if it is not installed, but run from its folder."""
    try:
        return metadata.version("gru_jax")
    except metadata.PackageNotFoundError:
        return ""


def _merge(node: Any, constant: Any, layers: Layers, Y: str, ys: str, H: int) -> str:
    """Adds the nodes from Y (T, D, B, H) to ys (T, B, ...)."""
    if layers.directions == 1:
        return node("Squeeze", [Y, constant(f"{ys}_axis", np.array([1]))], [ys])
    if layers.merge == "sum":
        return node("ReduceSum", [Y, constant(f"{ys}_axis", np.array([1]))], [ys], keepdims=0)
    if layers.merge in ("ave", "mul"):  # Their axes are an attribute in this opset.
        return node("ReduceMean" if layers.merge == "ave" else "ReduceProd", [Y], [ys], axes=[1], keepdims=0)
    side_by_side = node("Transpose", [Y], [f"{ys}_pairs"], perm=[0, 2, 1, 3])
    return node("Reshape", [side_by_side, constant(f"{ys}_shape", np.array([0, 0, 2 * H]))], [ys])
