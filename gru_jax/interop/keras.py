"""Keras: `GRU`, `LSTM` and `SimpleRNN` as layers, and as the arrays of `get_weights` and `set_weights`.

Gates are `[z | r | n]` and `[i | f | g | o]`. z weights the old state, so its sign changes. The GRU has both resets: by
default `reset_after=True` with an input and a recurrent bias (2, 3H), which are added on reading; on writing the second
has b_hn and else zeros. With `reset_after=False` its bias is (3H,). The matrices of the old `CuDNNGRU` and `CuDNNLSTM`
are transposed; they are recognized by the shapes of their biases, (6H,) and (8H,).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._stack import MERGES
from gru_jax._types import Params
from gru_jax.cells import Cell
from gru_jax.cells.elman import ACTIVATIONS
from gru_jax.interop._arrays import NamedArrays
from gru_jax.interop._gate_layout import (
    GateLayout,
    Weights,
    check_activation,
    join_layers,
    layout_of,
    split_layers,
    take_recurrent_matrix,
)

GRU_GATES, ELMAN_GATES = GateLayout("zrn", negated="z"), GateLayout("h")
LAYOUTS = (GRU_GATES, GateLayout("ifgo"), ELMAN_GATES)
KINDS = ("GRU", "LSTM", "SimpleRNN")


def from_layer(layer: Any) -> tuple[Any, Params]:
    """Reads a layer, with what the list of its weights does not tell: activation, reset and merge.

    With `merge_mode=None` Keras returns two outputs. The `Stack` concatenates them, (..., T, 2H), and
    `jnp.split(ys, 2, axis=-1)` returns both.

    Args:
      layer: a built `GRU`, `LSTM`, `SimpleRNN` or `Bidirectional` of one, or a `Sequential` of these. Dropout is not
        read. The state of a `stateful` layer is `h0` of `gru_jax.unroll`.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: another layer, or an option that no cell here has.

    Example:
      >>> layer = keras.layers.SimpleRNN(128, activation="relu", return_sequences=True)
      >>> layer.build((None, None, 64))
      >>> cell, params = from_layer(layer)
    """
    layers = list(layer.layers) if type(layer).__name__ == "Sequential" else [layer]
    found = [_settings(each, last=each is layers[-1]) for each in layers]
    if not found or not layer.get_weights():
        raise ValueError(f"{_name(layer)}: expected a built layer, got no weights: call the layer or its build()")
    for each, settings in zip(layers, found, strict=True):
        if settings != found[0]:
            raise ValueError(f"{_name(each)}: expected {found[0]}, as in {_name(layers[0])}, got {settings}")
    return from_weights(
        layer.get_weights(),
        num_layers=len(layers),
        bidirectional=found[0].merge_mode is not None,
        merge=found[0].merge_mode or "concat",
        reset=None if found[0].reset_after is None else "after" if found[0].reset_after else "before",
        activation=found[0].activation,
    )


def from_weights(
    weights: Sequence[Any],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    merge: str | None = "concat",
    reset: str | None = None,
    activation: str | None = None,
    recurrent_activation: str | None = None,
) -> tuple[Any, Params]:
    """Reads `layer.get_weights()`, or `model.get_weights()` of a model of recurrent layers.

    Args:
      weights: kernel (I, G H), recurrent kernel (H, G H) and bias of every layer and direction, no bias with
        use_bias=False. It is (G H,), (2, 3H) with reset_after=True, (6H,) for a CuDNNGRU, (8H,) for a CuDNNLSTM.
      num_layers: L.
      bidirectional: whether the layers are wrapped in a `Bidirectional`.
      merge: its merge_mode, "concat", "sum", "ave" or "mul"; None reads as "concat", and `jnp.split(ys, 2, axis=-1)`
        returns the two outputs of Keras.
      reset: "after" (reset_after=True) or "before", for a GRU without a bias. Otherwise the bias's shape tells, or the
        layer has no reset.
      activation: "tanh" or "relu" for a SimpleRNN, whose weights do not tell; None or "tanh" for other layers.
      recurrent_activation: None or "sigmoid", the only one that cells here have.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: an array is missing, unknown, or of another shape or dtype.

    Example:
      >>> layer = keras.layers.Bidirectional(keras.layers.GRU(128, return_sequences=True))
      >>> layer.build((None, None, 64))
      >>> stack, params = from_weights(layer.get_weights(), bidirectional=True)
    """
    arguments.positive_int("num_layers", num_layers)
    arguments.boolean("bidirectional", bidirectional)
    merge = "concat" if merge is None else merge
    arguments.one_of("merge", merge, MERGES)
    arguments.one_of("reset", reset, (None, "before", "after"))
    arguments.one_of("activation", activation, (None, *ACTIVATIONS))
    arguments.one_of("recurrent_activation", recurrent_activation, (None, "sigmoid"))
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights: expected a list of arrays, got {type(weights).__name__}")
    directions = 2 if bidirectional else 1
    cells = num_layers * directions
    if len(weights) not in (2 * cells, 3 * cells):
        raise ValueError(
            f"weights: expected {3 * cells} arrays, or {2 * cells} without biases, for {num_layers} layers of "
            f"{directions} directions, got {len(weights)}"
        )
    each = len(weights) // cells
    names = ("kernel", "recurrent_kernel", "bias")[:each]
    keys = [f"[{number}] {names[number % each]}" for number in range(len(weights))]
    arrays = NamedArrays("weights", dict(zip(keys, weights, strict=True)))
    layers, width, remaining = [], "I", iter(keys)
    for _ in range(num_layers):
        layer = [_read(arrays, [next(remaining) for _ in names], width, reset, activation) for _ in range(directions)]
        layers.append(layer)
        width = layer[0][1].U.shape[0] * (directions if merge == "concat" else 1)
    return join_layers(layers, merge)


def to_weights(cell: Any, params: Params) -> list[np.ndarray]:
    """Writes parameters as a list for `set_weights`.

    Args:
      cell: a GRU, an LSTM, an Elman, or a `Stack` of them. The Keras GRU needs `reset_after=True` for reset="after",
        the SimpleRNN the same activation.
      params: its parameters.

    Returns:
      NumPy arrays: kernel (I, G H), recurrent kernel (H, G H) and bias of every layer and direction.

    Raises:
      ValueError, TypeError: another cell, or parameters that do not match it.

    Example:
      >>> layer = keras.layers.GRU(128, return_sequences=True, reset_after=cell.reset == "after")
      >>> layer.build((None, None, 64))
      >>> layer.set_weights(to_weights(cell, params))
    """
    layers = split_layers(cell, params)
    layout = layout_of(layers.cell, LAYOUTS)
    arrays = []
    for weights in (layout.write(direction) for layer in layers.params for direction in layer):
        bias = weights.b if weights.b_hn is None else np.stack(layout.split_bias(weights))
        arrays += [weights.W, weights.U, bias]
    return arrays


class Settings(NamedTuple):
    """Options that all layers of a stack share; None for an option that a layer does not have."""

    kind: str
    activation: str
    reset_after: bool | None
    use_bias: bool
    merge_mode: str | None


def _settings(layer: Any, last: bool) -> Settings:
    """Returns a layer's settings; raises if no cell here has them. Only the last layer may have two outputs."""
    if type(layer).__name__ == "Bidirectional":
        merge = "concat" if layer.merge_mode is None and last else layer.merge_mode
        arguments.one_of(f"{_name(layer)}: merge_mode", merge, MERGES)
        one, other = _settings_of_direction(layer.forward_layer), _settings_of_direction(layer.backward_layer, True)
        if one != other:
            raise ValueError(f"{_name(layer)}: expected equal settings in both directions, got {one} and {other}")
        return one._replace(merge_mode=merge)
    return _settings_of_direction(layer)


def _settings_of_direction(layer: Any, backward: bool = False) -> Settings:
    kind = type(layer).__name__
    if kind not in KINDS:
        raise TypeError(
            f"{_name(layer)}: expected {', '.join(KINDS)}, a Bidirectional of one or a Sequential of these, got {kind}"
        )
    settings = layer.get_config()
    functions = {"activation": tuple(ACTIVATIONS) if kind == "SimpleRNN" else ("tanh",)}
    functions |= {} if kind == "SimpleRNN" else {"recurrent_activation": ("sigmoid",)}
    for name, known in functions.items():
        got = settings[name] if isinstance(settings[name], str) else "another function"
        arguments.one_of(f"{_name(layer)}: {name}", got, known)
    if settings["go_backwards"] is not backward:
        raise ValueError(
            f"{_name(layer)}: go_backwards: expected {backward}, got {settings['go_backwards']}: give from_weights the "
            "layer's weights, and unroll with reverse=True, whose outputs keep the order of the inputs"
        )
    return Settings(kind, settings["activation"], settings.get("reset_after"), settings["use_bias"], None)


def _name(layer: Any) -> str:
    return getattr(layer, "name", "layer")


def _read(
    arrays: NamedArrays, keys: list[str], width: int | str, reset: str | None, activation: str | None
) -> tuple[Cell, Params]:
    layout, U = take_recurrent_matrix(arrays, keys[1], LAYOUTS)
    if reset is not None and layout is not GRU_GATES:
        raise ValueError(f"reset: expected None for a layer that is no GRU, got {reset!r}")
    W = arrays.take(keys[0], (width, U.shape[1]))
    if layout is ELMAN_GATES:
        activation = check_activation("activation", activation, "the list of a SimpleRNN's weights")
    elif activation not in (None, "tanh"):
        raise ValueError(f"activation: expected None or 'tanh' for a {layout.cell.__name__}, got {activation!r}")
    in_two_parts = len(keys) == 3 and arrays.shape(keys[2]) == (2 * U.shape[1],)
    if in_two_parts and layout is not ELMAN_GATES:
        if layout is GRU_GATES:
            _agree(reset, "after", keys[2])
        b_input, b_recurrent = np.split(arrays.take(keys[2], (2 * U.shape[1],)), 2)
        W, U = (_from_cudnn(array, layout.gates) for array in (W, U))
        return layout.read(Weights(W, U, *layout.add_biases(b_input, b_recurrent, "after")))
    if len(keys) == 2:
        if layout is GRU_GATES and reset is None:
            raise ValueError('reset: expected "before" or "after" for a GRU without a bias, got None')
        zeros = np.zeros_like(U[0])
        return layout.read(Weights(W, U, *layout.add_biases(zeros, zeros, reset or "after")), activation or "tanh")
    if layout is GRU_GATES and len(arrays.shape(keys[2])) == 2:
        _agree(reset, "after", keys[2])
        b_input, b_recurrent = arrays.take(keys[2], (2, U.shape[1]))
        return layout.read(Weights(W, U, *layout.add_biases(b_input, b_recurrent, "after")))
    if layout is GRU_GATES:
        _agree(reset, "before", keys[2])
    return layout.read(Weights(W, U, arrays.take(keys[2], U.shape[1:])), activation or "tanh")


def _from_cudnn(array: np.ndarray, gates: int) -> np.ndarray:
    """Transposes each gate: its columns (N, H) store a matrix (H, N) in row-major order."""
    H = array.shape[1] // gates
    return np.concatenate([np.reshape(gate, (H, -1)).T for gate in np.split(array, gates, axis=1)], axis=1)


def _agree(reset: str | None, found: str, key: str) -> None:
    if reset not in (None, found):
        raise ValueError(f'reset: expected "{found}", from the shape of {key}, got "{reset}"')
