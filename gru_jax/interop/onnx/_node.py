"""Reads one recurrent node of an ONNX graph: its weights, its attributes, and the layer with both.

Gates are `[z | r | h]` and `[i | o | f | c]` along the second axis of W (D, G H, I) and R (D, G H, H), with D
directions. z weights the old state, so its sign changes. The bias (D, 2 G H) is an input and a recurrent one.
`linear_before_reset` 1 is reset="after", 0 is reset="before".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Params
from gru_jax._unroll.unroll import unroll
from gru_jax.cells import GRU, LSTM, Elman, LSTMState
from gru_jax.interop._arrays import NamedArrays
from gru_jax.interop._gate_layout import GateLayout, Weights, join_layers
from gru_jax.interop.onnx._peephole_lstm import PeepholeLSTM, with_peepholes

if TYPE_CHECKING:
    import onnx

LAYOUTS = {
    "GRU": GateLayout("zrn", negated="z", transposed=True),
    "LSTM": GateLayout("iofg", transposed=True),
    "RNN": GateLayout("h", transposed=True),
}
ACTIVATIONS = {"GRU": [["sigmoid", "tanh"]], "LSTM": [["sigmoid", "tanh", "tanh"]], "RNN": [["tanh"], ["relu"]]}
OPERATORS = {GRU: "GRU", LSTM: "LSTM", Elman: "RNN"}
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
WEIGHTS = ("W", "R", "B", "P")
DIRECTIONS = ("forward", "reverse", "bidirectional")


@dataclass(frozen=True)
class RecurrentNode:
    """A GRU, LSTM or RNN node as a layer of this library.

    Attributes:
      name: its name in errors.
      cell: a cell, or a `Stack` of one bidirectional layer.
      params: its parameters.
      reverse: whether it runs from the last step to the first.
      time_major: whether time is the first axis (layout 0) or the second (layout 1).

    Example:
      >>> (node,) = read_nodes("gru.onnx")
      >>> Y, Y_h = node(X, sequence_lens)
    """

    name: str
    cell: Any
    params: Params
    reverse: bool
    time_major: bool

    @property
    def directions(self) -> int:
        return 2 if isinstance(self.cell, Stack) else 1

    @property
    def _is_lstm(self) -> bool:
        cell = self.cell.cell if isinstance(self.cell, Stack) else self.cell
        return isinstance(cell, (LSTM, PeepholeLSTM))

    def __call__(
        self,
        X: Array,
        sequence_lens: Array | None = None,
        initial_h: Array | None = None,
        initial_c: Array | None = None,
        *,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        memory: str = "auto",
    ) -> tuple[Array, ...]:
        """Runs the layer on inputs in the layout of the operator.

        Args:
          X: (T, B, I); (B, T, I) for layout 1.
          sequence_lens: (B,) integers. If None, every sequence has T steps.
          initial_h: (D, B, H); (B, D, H) for layout 1. If None, zeros are used.
          initial_c: the same, for an LSTM.
          backend: see `gru_jax.unroll`.
          matmul_dtype: see `gru_jax.unroll`.
          memory: see `gru_jax.unroll`.

        Returns:
          Y (T, D, B, H), Y_h (D, B, H) and for an LSTM Y_c; (B, T, D, H) and (B, D, H) for layout 1.
        """
        D, axis = self.directions, 0 if self.time_major else 1
        X = arguments.floating("X", X)
        arguments.shape("X", X, ("T", "B", "I") if self.time_major else ("B", "T", "I"))
        B, (_, H, _) = X.shape[1 if self.time_major else 0], self.cell.infer_sizes(self.params)
        for name, given in (("initial_h", initial_h), ("initial_c", initial_c)):
            if given is not None:
                arguments.shape(name, arguments.floating(name, given), (D, B, H) if self.time_major else (B, D, H))
        if initial_c is not None and not self._is_lstm:
            raise ValueError("initial_c: expected None for a cell other than an LSTM, got a state")
        h, c = (None if a is None else jnp.moveaxis(a, axis, 0) for a in (initial_h, initial_c))
        ys, h_last = unroll(
            self.cell,
            self.params,
            X,
            None if h is None and c is None else self._state(h, c),
            lengths=sequence_lens,
            reverse=self.reverse,
            time_major=self.time_major,
            backend=backend,
            matmul_dtype=matmul_dtype,
            memory=memory,
        )
        ys = ys.reshape((*ys.shape[:-1], D, ys.shape[-1] // D))
        states = h_last[0] if D == 2 else (h_last,)
        parts = zip(*states, strict=True) if isinstance(states[0], LSTMState) else [states]
        return jnp.moveaxis(ys, 2, 1) if self.time_major else ys, *(jnp.stack(part, axis) for part in parts)

    def _state(self, h: Any, c: Any) -> Any:
        """Returns the cell's state from h and c (D, B, H); None for zeros, but not for both."""
        h = jnp.zeros_like(c) if h is None else h
        c = jnp.zeros_like(h) if c is None else c
        states = tuple(map(LSTMState, h, c) if self._is_lstm else h)
        return (states,) if self.directions == 2 else states[0]


def read_node(node: "onnx.NodeProto", arrays: Mapping[str, Any]) -> RecurrentNode:
    """Reads a GRU, LSTM or RNN node.

    Args:
      node: the node.
      arrays: NumPy arrays by the names of the tensors that are the node's inputs W, R, B and P.

    Returns:
      The layer.

    Raises:
      ValueError, TypeError: an attribute that no cell here has (clip, other activations, ...), or an array that is
        missing or does not fit.
    """
    from onnx import helper

    name = node_title(node)
    if node.op_type not in LAYOUTS:
        raise ValueError(f"{name}: expected a GRU, LSTM or RNN, got {node.op_type}")
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    direction, layout, reset, activation = _read_attributes(name, node.op_type, attributes)
    D = 2 if direction == "bidirectional" else 1
    given = {key: tensor for key, tensor in node_inputs(node).items() if key in WEIGHTS}
    weights = NamedArrays(name, {key: arrays[tensor] for key, tensor in given.items() if tensor in arrays})
    gates = LAYOUTS[node.op_type]
    H = weights.take("R", (D, f"{gates.gates}H", "H")).shape[2]
    R = weights.take("R", (D, gates.gates * H, H))
    if "clip" in attributes:
        _check_clip(name, node.op_type, activation, attributes["clip"], R.dtype)
    if "hidden_size" in attributes and attributes["hidden_size"] != H:
        raise ValueError(f"{name}: hidden_size: expected {H}, that of R {R.shape}, got {attributes['hidden_size']}")
    W = weights.take("W", (D, gates.gates * H, "I"))
    B = weights.take("B", (D, 2 * gates.gates * H)) if "B" in given else np.zeros((D, 2 * gates.gates * H), R.dtype)
    P = weights.take("P", (D, 3 * H)) if "P" in given else None
    cells = []
    for d in range(D):
        b_input, b_recurrent = np.split(B[d], 2)
        cells.append(gates.read(Weights(W[d], R[d], *gates.add_biases(b_input, b_recurrent, reset)), activation))
    if P is not None and P.any():
        cells = [with_peepholes(params, *np.split(p, 3)) for (_, params), p in zip(cells, P, strict=True)]
    cell, params = join_layers([cells])
    return RecurrentNode(name, cell, params, reverse=direction == "reverse", time_major=layout == 0)


def write_weights(cell: Any, layer: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """Returns W (D, G H, I), R (D, G H, H) and B (D, 2 G H) of a node for a layer's directions."""
    gates = LAYOUTS[OPERATORS[type(cell)]]
    directions = [gates.write(params) for params in layer]
    return {
        "W": np.stack([weights.W for weights in directions]),
        "R": np.stack([weights.U for weights in directions]),
        "B": np.stack([np.concatenate(gates.split_bias(weights)) for weights in directions]),
    }


def node_inputs(node: "onnx.NodeProto") -> dict[str, str]:
    """Maps the names of the operator's inputs to the names of a node's tensors."""
    return {key: tensor for key, tensor in zip(INPUTS, node.input, strict=False) if tensor}


def node_title(node: "onnx.NodeProto") -> str:
    """Returns a node's name in errors: its own, or else that of its first output."""
    return f"{node.op_type} node {node.name or next(iter(node.output), '')!r}"


def _check_clip(name: str, operator: str, activation: str, clip: float, dtype: Any) -> None:
    """Raises ValueError if clipping the activations' inputs can change their outputs in this dtype."""
    with np.errstate(over="ignore", under="ignore"):
        bound = np.asarray(clip).astype(dtype)
        binds = {
            "sigmoid": np.exp(-bound) != 0,  # sigmoid(-bound) is about exp(-bound).
            "tanh": np.tanh(bound.astype(np.float64)).astype(dtype) != 1,
            "relu": bound < jnp.finfo(dtype).max,
        }
    functions = ("sigmoid", "tanh") if operator != "RNN" else (activation,)
    if not clip > 0 or any(binds[function] for function in functions):
        raise ValueError(f"{name}: clip: expected none, or one too large to have an effect in {dtype}, got {clip!r}")


def _read_attributes(name: str, operator: str, attributes: Mapping[str, Any]) -> tuple[str, int, str, str]:
    """Returns direction, layout, reset and activation; raises ValueError for attributes that no cell here has."""
    direction, layout, linear, activation = "forward", 0, 0, "tanh"
    for key, value in attributes.items():
        if key == "direction":
            direction = value.decode(errors="replace") if isinstance(value, bytes) else value
            arguments.one_of(f"{name}: direction", direction, DIRECTIONS)
        elif key == "layout":
            layout = value
            arguments.one_of(f"{name}: layout", layout, (0, 1))
        elif key == "linear_before_reset" and operator == "GRU":
            linear = value
            arguments.one_of(f"{name}: linear_before_reset", linear, (0, 1))
        elif key == "activations":
            listed = value if isinstance(value, list) else [value]
            got = [item.decode(errors="replace") if isinstance(item, bytes) else str(item) for item in listed]
            known = ACTIVATIONS[operator]
            match = [each for each in known if [item.lower() for item in got] in (each, 2 * each)]
            if not match:
                expected = " or ".join(", ".join(each) for each in known)
                raise ValueError(f"{name}: activations: expected {expected}, got {', '.join(got)}")
            activation = match[0][-1]
        elif key == "input_forget" and operator == "LSTM":
            arguments.one_of(f"{name}: input_forget", value, (0,))
        elif key not in ("hidden_size", "clip"):
            raise ValueError(f"{name}: {key}: expected no such attribute, since no cell here has it, got {value!r}")
    return direction, layout, "after" if linear else "before", activation
