"""What comes from what in an ONNX graph, and the values of what comes from constants."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gru_jax.interop._arrays import in_short
from gru_jax.interop.onnx._node import LAYOUTS

if TYPE_CHECKING:
    import onnx

SIZE = 3
"""Stands for an axis of any size where a graph is tried out."""
MOST_NUMBERS = 2**28


def sizes_to_try(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of an array to try a graph on; refuses those that only a damaged file has."""
    if min(sizes, default=0) < 0 or math.prod(sizes) > MOST_NUMBERS:
        raise ValueError(f"{name}: expected sizes of at most {MOST_NUMBERS} numbers in all, got {tuple(sizes)}")
    return tuple(sizes)


class Graph:
    """A model's graph, by the names of its tensors."""

    def __init__(self, model: "onnx.ModelProto"):
        self.model = model
        self.producers = {output: node for node in model.graph.node for output in node.output if output}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.inputs = {value.name: value for value in model.graph.input if value.name not in self.constants}

    def recurrent_nodes(self) -> list["onnx.NodeProto"]:
        """The GRU, LSTM and RNN nodes, each after those that it depends on."""
        return [node for node in self.model.graph.node if node.op_type in LAYOUTS and node.domain in ("", "ai.onnx")]

    def ancestors(self, tensor: str, stop: Iterable[str] = ()) -> set[str]:
        """All tensors that `tensor` is made of, itself among them; those in `stop` are not followed."""
        seen, ahead, stop = set(), [tensor], set(stop)
        while ahead:
            name = ahead.pop()
            if name and name not in seen:
                seen.add(name)
                if name in self.producers and name not in stop:
                    ahead.extend(self.producers[name].input)
        return seen

    def is_constant(self, tensor: str) -> bool:
        """Whether a tensor is made of constants alone."""
        ancestors = self.ancestors(tensor)
        return not any(
            name in self.inputs or (name not in self.producers and name not in self.constants) for name in ancestors
        )

    def constant(self, tensor: str) -> np.ndarray:
        """The value of a tensor that is made of constants."""
        from onnx import numpy_helper

        if not self.is_constant(tensor):
            raise ValueError(f"{tensor}: expected a constant, got what is made of the graph's inputs")
        if tensor in self.constants:
            try:
                return numpy_helper.to_array(self.constants[tensor])
            except Exception as error:  # Whatever the damage in the file leads to.
                raise ValueError(f"{tensor}: expected an array, got {in_short(error)}") from None
        return self.evaluate(tensor, {})

    def blank_inputs(self, tensors: Iterable[str]) -> dict[str, np.ndarray]:
        """Zeros for those inputs of the graph that `tensors` are made of; axes of any size are `SIZE`."""
        from onnx import helper

        needed = set().union(*map(self.ancestors, tensors))
        blank = {}
        for name in sorted(needed & set(self.inputs)):
            kind = self.inputs[name].type.tensor_type
            dims = [dim.dim_value or SIZE for dim in kind.shape.dim]
            try:
                dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
            except (KeyError, TypeError):
                raise ValueError(f"{name}: expected an input of a known type, got type {kind.elem_type}") from None
            blank[name] = np.zeros(sizes_to_try(name, dims), dtype)
        return blank

    def evaluate(self, tensor: str, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        """Works out a tensor from others by the reference implementation of the operators."""
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
        except Exception as error:  # An operator it lacks, shapes that do not fit, whatever the graph leads to.
            raise ValueError(f"{tensor}: cannot be worked out: {in_short(error)}") from None
        return np.asarray(result)
