"""ONNX: models with `GRU`, `LSTM` and `RNN` nodes, read from files, and a stack written as one.

What a node's arrays and attributes are is told in `gru_jax.interop.onnx._node`. Of a model, `from_model` reads the chain
of recurrent nodes; what comes before and after it (an embedding, a classifier) is left alone, and what lies between two
nodes must do what a `Stack` does. Lengths and initial states that a graph takes are arguments of `gru_jax.unroll`.
"""

import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._stack import MERGES, Stack, check_merge
from gru_jax._types import Params
from gru_jax.interop._arrays import in_short, naming
from gru_jax.interop.files import written_whole
from gru_jax.interop.network import put_together, take_apart
from gru_jax.interop.onnx._graph import Graph, sizes_to_try
from gru_jax.interop.onnx._node import WEIGHTS, RecurrentNode, from_node, slots, title
from gru_jax.interop.onnx._writer import write
from gru_jax.interop.packages import needing

if TYPE_CHECKING:
    import onnx


def from_model(model: Any, *, merge: str = "concat") -> tuple[Any, Params]:
    """Reads the recurrent layers of a model.

    Args:
      model: a ModelProto, the bytes of one, or a path.
      merge: how the outputs of two directions become one after the last layer, "concat", "sum", "ave" or "mul"; between
        layers it is checked.

    Returns:
      A cell, or a `Stack` where there are several layers or two directions, and its parameters.

    Raises:
      ValueError, TypeError: where the file is none, a node has what no cell here has, or nodes do not make a stack.

    Example:
      >>> cell, params = from_model("gru.onnx")
    """
    check_merge("merge", merge)
    with naming(_source(model)):
        graph = _load(model)
        protos, nodes = graph.recurrent_nodes(), _read_nodes(graph)
        for proto, node in zip(protos, nodes, strict=True):
            if node.reverse:
                raise ValueError(
                    f'{node.name}: direction: expected "forward" or "bidirectional", got "reverse": '
                    "take the node from read_nodes, and unroll with reverse=True"
                )
            _check_start(graph, proto, node.name)
            first, lengths = (slots(each).get("sequence_lens") for each in (protos[0], proto))
            if lengths != first:
                raise ValueError(f"{node.name}: sequence_lens: expected {first}, as in {nodes[0].name}, got {lengths}")
        _check_chain(graph, list(zip(protos, nodes, strict=True)), merge)
        layers = []
        for node in nodes:
            two = isinstance(node.cell, Stack)
            layers.append([(node.cell.cell, p) for p in node.params[0]] if two else [(node.cell, node.params)])
        return put_together(layers, merge)


def read_nodes(model: Any) -> list[RecurrentNode]:
    """Reads every recurrent node of a model on its own, in the order of the graph.

    Args:
      model: a ModelProto, the bytes of one, or a path.

    Returns:
      One layer a node, to be called with the node's own inputs.
    """
    with naming(_source(model)):
        return _read_nodes(_load(model))


def to_model(
    cell: Any, params: Params, *, lengths: bool = False, h0: bool = False, time_major: bool = False
) -> "onnx.ModelProto":
    """Writes a network as a model, with batch size and number of steps open.

    Args:
      cell: a GRU, LSTM or Elman, or a `Stack` of them; its dropout is left out.
      params: its parameters.
      lengths: whether the model takes `lengths (B,)` int32, from 1 to T (onnxruntime gives an empty sequence a final
        state of zeros, `gru_jax.unroll` its h0).
      h0: whether it takes `h0 (L D, B, H)`, and `c0` for an LSTM; else they are zeros.
      time_major: whether xs and ys are (T, B, ...) rather than (B, T, ...).

    Returns:
      A model from `xs (B, T, I)` to `ys (B, T, D H)` and `h_last (L D, B, H)`, and `c_last` for an LSTM; states lie
      layer by layer, forward before backward.

    Raises:
      ValueError, TypeError: for another cell, or parameters in a dtype that ONNX's recurrent operators do not take.

    Example:
      >>> onnx.save(to_model(cell, params), "gru.onnx")
      >>> ys, h_last = onnxruntime.InferenceSession("gru.onnx").run(None, {"xs": xs})
    """
    for name, value in (("lengths", lengths), ("h0", h0), ("time_major", time_major)):
        arguments.boolean(name, value)
    return write(take_apart(cell, params), lengths, h0, time_major)


def to_file(path: str | os.PathLike, cell: Any, params: Params, **options: bool) -> None:
    """Writes `to_model` to a file."""
    model = to_model(cell, params, **options)
    with written_whole(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def _source(model: Any) -> str:
    return os.fspath(model) if isinstance(model, (str, os.PathLike)) else "model"


def _load(model: Any) -> Graph:
    with needing("onnx", "to read ONNX models"):
        import onnx
        from onnx.external_data_helper import load_external_data_for_model

    if isinstance(model, onnx.ModelProto):
        return Graph(model)
    if not isinstance(model, (str, os.PathLike, bytes)):
        raise TypeError(f"expected a ModelProto, bytes or a path, got {type(model).__name__}")
    contents = model if isinstance(model, bytes) else Path(model).read_bytes()
    try:
        loaded = onnx.load_model_from_string(contents)
        if not isinstance(model, bytes):
            load_external_data_for_model(loaded, os.fspath(Path(model).parent))
    except Exception as error:  # Whatever the damage in the file leads to.
        raise ValueError(f"expected an ONNX model, got {in_short(error)}") from None
    return Graph(loaded)


def _read_nodes(graph: Graph) -> list[RecurrentNode]:
    nodes = graph.recurrent_nodes()
    if not nodes:
        operators = sorted({node.op_type for node in graph.model.graph.node})
        raise ValueError(f"expected a GRU, LSTM or RNN node, got {', '.join(operators) or 'no nodes'}")
    read = []
    for node in nodes:
        with naming(title(node)):
            tensors = {slot: tensor for slot, tensor in slots(node).items() if slot in WEIGHTS}
            arrays = {tensor: graph.constant(tensor) for tensor in tensors.values()}
        read.append(from_node(node, arrays))
    return read


def _check_start(graph: Graph, proto: "onnx.NodeProto", name: str) -> None:
    """Refuses what is fixed in the graph and `unroll` is given: lengths, and initial states that are not zero."""
    given = slots(proto)
    for slot in ("initial_h", "initial_c", "sequence_lens"):
        fixed = slot in given and graph.is_constant(given[slot])
        if fixed and (slot == "sequence_lens" or graph.constant(given[slot]).any()):
            raise ValueError(
                f"{name}: {slot}: expected an input of the model, got a constant: take the node from read_nodes, "
                "and give it what is constant"
            )


def _check_chain(graph: Graph, nodes: list[tuple["onnx.NodeProto", RecurrentNode]], merge: str) -> None:
    """Tries on random numbers whether every node is fed what a `Stack` feeds a layer."""
    if len(nodes) == 1:
        return
    rng = np.random.default_rng(0)
    blank = graph.blank_inputs([proto.input[0] for proto, _ in nodes])
    first = graph.evaluate(nodes[0][0].input[0], {name: blank[name] for name in blank})
    if first.ndim != 3:
        raise ValueError(f"{nodes[0][1].name}: X: expected 3 axes, got shape {first.shape}")
    for (before, source), (after, target) in pairwise(nodes):
        fed = f"{target.name}: X: expected the outputs of {source.name}"
        others = {output for proto, _ in nodes for output in proto.output if output} - {before.output[0]}
        made_of = graph.ancestors(after.input[0], stop=[before.output[0], *others])
        if before.output[0] not in made_of or made_of & others or source.time_major != target.time_major:
            raise ValueError(f"{fed} alone, for the layers of a stack lie on each other, got {after.input[0]!r}")
        H, D = source.cell.check(source.params)[1], source.directions
        Y = rng.normal(size=sizes_to_try(f"{source.name}: Y", (*first.shape[:2], D, H))).astype(first.dtype)
        expected = Y[:, :, 0] if D == 1 else np.asarray(MERGES[merge](*map(jnp.asarray, np.moveaxis(Y, 2, 0))))
        feed = np.moveaxis(Y, 2, 1) if source.time_major else Y
        got = graph.evaluate(after.input[0], blank | {before.output[0]: feed})
        if got.shape != expected.shape or not np.allclose(got, expected):
            raise ValueError(f"{fed} with merge={merge!r} and nothing done to them, got {after.input[0]!r}")
