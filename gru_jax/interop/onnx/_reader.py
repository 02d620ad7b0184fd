"""Reads recurrent layers from an ONNX model."""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from gru_jax._stack import MERGES, Stack, check_merge
from gru_jax._types import Params
from gru_jax.interop._arrays import prefix_errors, require_package, summarize_error
from gru_jax.interop._gate_layout import join_layers
from gru_jax.interop.onnx._node import LAYOUTS, WEIGHTS, RecurrentNode, node_inputs, node_title, read_node

if TYPE_CHECKING:
    import onnx

TRIAL_SIZE = 3
"""The size given to open axes when a part of the graph is evaluated."""

MAX_TRIAL_NUMBERS = 2**28
"""The most numbers of an array in such a trial; only a damaged file has more."""


def from_model(model: Any, *, merge: str = "concat") -> tuple[Any, Params]:
    """Reads the recurrent layers of a model.

    Args:
      model: a ModelProto, its bytes, or a path.
      merge: how the outputs of two directions are merged after the last layer: "concat", "sum", "ave" or "mul". The
        graph must merge them so between layers.

    Returns:
      A cell, or a `Stack` if there are several layers or two directions, and its parameters.

    Raises:
      ValueError, TypeError: not an ONNX model, an attribute that no cell here has, or nodes that are not a stack.

    Example:
      >>> cell, params = from_model("gru.onnx")
    """
    check_merge("merge", merge)
    with prefix_errors(_source(model)):
        graph = _load(model)
        protos, nodes = graph.recurrent_nodes(), _read_nodes(graph)
        for proto, node in zip(protos, nodes, strict=True):
            if node.reverse:
                raise ValueError(
                    f'{node.name}: direction: expected "forward" or "bidirectional", got "reverse": '
                    "take the node from read_nodes, and unroll with reverse=True"
                )
            _check_initial_inputs(graph, proto, node.name)
            first, lengths = (node_inputs(each).get("sequence_lens") for each in (protos[0], proto))
            if lengths != first:
                raise ValueError(f"{node.name}: sequence_lens: expected {first}, as in {nodes[0].name}, got {lengths}")
        _check_chain(graph, list(zip(protos, nodes, strict=True)), merge)
        layers = []
        for node in nodes:
            two = isinstance(node.cell, Stack)
            layers.append([(node.cell.cell, p) for p in node.params[0]] if two else [(node.cell, node.params)])
        return join_layers(layers, merge)


def read_nodes(model: Any) -> list[RecurrentNode]:
    """Reads every recurrent node of a model by itself, in the order of the graph.

    Args:
      model: a ModelProto, its bytes, or a path.

    Returns:
      One layer for each node, to be called with the inputs of the node.
    """
    with prefix_errors(_source(model)):
        return _read_nodes(_load(model))


class Graph:
    """The graph of a model: which tensors depend on which, and their values."""

    def __init__(self, model: "onnx.ModelProto"):
        self.model = model
        self.producers = {output: node for node in model.graph.node for output in node.output if output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value for value in model.graph.input if value.name not in self.constants}

    def recurrent_nodes(self) -> list["onnx.NodeProto"]:
        """Returns the GRU, LSTM and RNN nodes in topological order."""
        return [node for node in self.model.graph.node if node.op_type in LAYOUTS and node.domain in ("", "ai.onnx")]

    def ancestors(self, tensor: str, stop: Iterable[str] = ()) -> set[str]:
        """Returns a tensor and all that it depends on; those that the tensors in `stop` depend on are left out."""
        seen, ahead, stop = set(), [tensor], set(stop)
        while ahead:
            name = ahead.pop()
            if name and name not in seen:
                seen.add(name)
                if name in self.producers and name not in stop:
                    ahead.extend(self.producers[name].input)
        return seen

    def is_constant(self, tensor: str) -> bool:
        """Returns whether a tensor depends on constants only."""
        ancestors = self.ancestors(tensor)
        return not any(
            name in self.inputs or (name not in self.producers and name not in self.constants) for name in ancestors
        )

    def constant(self, tensor: str) -> np.ndarray:
        """Returns the value of a tensor that depends on constants only."""
        from onnx import numpy_helper

        if not self.is_constant(tensor):
            raise ValueError(f"{tensor}: expected a constant, got a tensor that depends on the model's inputs")
        if tensor in self.constants:
            try:
                return numpy_helper.to_array(self.constants[tensor])
            except Exception as error:  # A damaged file can raise any class.
                raise ValueError(f"{tensor}: expected an array, got {summarize_error(error)}") from None
        return self.evaluate(tensor, {})

    def zero_inputs(self, tensors: Iterable[str]) -> dict[str, np.ndarray]:
        """Returns zeros for the graph inputs that `tensors` depend on. Open axes have size `TRIAL_SIZE`."""
        from onnx import helper

        needed = set().union(*map(self.ancestors, tensors))
        zeros = {}
        for name in sorted(needed & set(self.inputs)):
            kind = self.inputs[name].type.tensor_type
            dims = [dim.dim_value or TRIAL_SIZE for dim in kind.shape.dim]
            try:
                dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            except (KeyError, TypeError):
                raise ValueError(f"{name}: expected an input of a known type, got type {kind.elem_type}") from None
            zeros[name] = np.zeros(_check_sizes(name, dims), dtype)
        return zeros

    def evaluate(self, tensor: str, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Computes a tensor from the tensors in `feeds` with ONNX's reference implementation."""
        from onnx import helper, reference

        needed = self.ancestors(tensor, stop=feeds)
        nodes = [
            node for node in self.model.graph.node if any(name in needed and name not in feeds for name in node.output)
        ]
        inputs = [helper.make_empty_tensor_value_info(name) for name in feeds]
        constants = [self.constants[name] for name in sorted(needed) if name in self.constants and name not in feeds]
        graph = helper.make_graph(nodes, "part", inputs, [helper.make_empty_tensor_value_info(tensor)], constants)
        part = helper.make_model(
            graph,
            functions=self.model.functions,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
        )
        try:
            (result,) = reference.ReferenceEvaluator(part).run(None, dict(feeds))
        except Exception as error:  # An unknown operator, shapes that do not fit; any class.
            raise ValueError(f"{tensor}: cannot be evaluated: {summarize_error(error)}") from None
        return np.asarray(result)


def _source(model: Any) -> str:
    return os.fspath(model) if isinstance(model, (str, os.PathLike)) else "model"


def _load(model: Any) -> Graph:
    with require_package("onnx", "to read ONNX models"):
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
    except Exception as error:  # A damaged file can raise any class.
        raise ValueError(f"expected an ONNX model, got {summarize_error(error)}") from None
    return Graph(loaded)


def _read_nodes(graph: Graph) -> list[RecurrentNode]:
    nodes = graph.recurrent_nodes()
    if not nodes:
        operators = sorted({node.op_type for node in graph.model.graph.node})
        raise ValueError(f"expected a GRU, LSTM or RNN node, got {', '.join(operators) or 'no nodes'}")
    read = []
    for node in nodes:
        with prefix_errors(node_title(node)):
            tensors = {name: tensor for name, tensor in node_inputs(node).items() if name in WEIGHTS}
            arrays = {tensor: graph.constant(tensor) for tensor in tensors.values()}
        read.append(read_node(node, arrays))
    return read


def _check_initial_inputs(graph: Graph, proto: "onnx.NodeProto", name: str) -> None:
    """Raises ValueError if lengths or nonzero initial states are constants: `unroll` gets them as arguments."""
    given = node_inputs(proto)
    for key in ("initial_h", "initial_c", "sequence_lens"):
        fixed = key in given and graph.is_constant(given[key])
        if fixed and (key == "sequence_lens" or graph.constant(given[key]).any()):
            raise ValueError(
                f"{name}: {key}: expected an input of the model, got a constant: take the node from read_nodes, "
                "and call it with the constant"
            )


def _check_chain(graph: Graph, nodes: list[tuple["onnx.NodeProto", RecurrentNode]], merge: str) -> None:
    """Checks with random numbers that every node gets the inputs that a `Stack` gives a layer."""
    if len(nodes) == 1:
        return
    rng = np.random.default_rng(0)
    zeros = graph.zero_inputs([proto.input[0] for proto, _ in nodes])
    first = graph.evaluate(nodes[0][0].input[0], zeros)
    if first.ndim != 3:
        raise ValueError(f"{nodes[0][1].name}: X: expected 3 axes, got shape {first.shape}")
    for (before, source), (after, target) in pairwise(nodes):
        expectation = f"{target.name}: X: expected the outputs of {source.name}"
        others = {output for proto, _ in nodes for output in proto.output if output} - {before.output[0]}
        ancestors = graph.ancestors(after.input[0], stop=[before.output[0], *others])
        if before.output[0] not in ancestors or ancestors & others or source.time_major != target.time_major:
            raise ValueError(f"{expectation} only, as in a stack, got {after.input[0]!r}")
        H, D = source.cell.infer_sizes(source.params)[1], source.directions
        Y = rng.normal(size=_check_sizes(f"{source.name}: Y", (*first.shape[:2], D, H))).astype(first.dtype)
        expected = Y[:, :, 0] if D == 1 else np.asarray(MERGES[merge](*map(jnp.asarray, np.moveaxis(Y, 2, 0))))
        feed = np.moveaxis(Y, 2, 1) if source.time_major else Y
        got = graph.evaluate(after.input[0], zeros | {before.output[0]: feed})
        if got.shape != expected.shape or not np.allclose(got, expected):
            raise ValueError(f"{expectation} with merge={merge!r} and otherwise unchanged, got {after.input[0]!r}")


def _check_sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of an array for a trial; raises ValueError if only a damaged file can have them."""
    if min(sizes, default=0) < 0 or math.prod(sizes) > MAX_TRIAL_NUMBERS:
        raise ValueError(f"{name}: expected sizes of at most {MAX_TRIAL_NUMBERS} numbers in all, got {tuple(sizes)}")
    return tuple(sizes)
