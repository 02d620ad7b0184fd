"""Keras: `GRU`, `LSTM` and `SimpleRNN` as the list of arrays that `get_weights` gives and `set_weights` takes.

Gates lie `[z | r | n]` and `[i | f | g | o]`; z weighs the old state, hence the sign. The GRU exists with both resets:
by default `reset_after=True`, with a bias (2, 3H) of two parts, which are added on the way in; on the way out the
second holds `b_hn` alone. With `reset_after=False` its bias is (3H,). The list does not say which functions a layer
applies: tanh, and sigmoid for the gates.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gru_jax import arguments
from gru_jax.cells import Cell
from gru_jax.interop.gate_layout import GateLayout, Weights, layout_of, take_recurrent
from gru_jax.interop.leaves import Leaves
from gru_jax.interop.network import put_together, take_apart
from gru_jax.types import Params

GRU_GATES = GateLayout("zrn", negated="z")
LAYOUTS = (GRU_GATES, GateLayout("ifgo"), GateLayout("h"))


def from_weights(
    weights: Sequence[Any],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    merge: str = "concat",
    reset: str | None = None,
) -> tuple[Any, Params]:
    """Reads `layer.get_weights()`, or `model.get_weights()` of a model of recurrent layers.

    Args:
      weights: for every layer and direction kernel (I, G H), recurrent kernel (H, G H) and, unless use_bias=False, bias
        (G H,), or (2, 3H) of a GRU with reset_after=True.
      num_layers: L.
      bidirectional: whether the layers are wrapped in a `Bidirectional`.
      merge: its merge_mode, "concat" or "sum".
      reset: for a GRU without a bias "after" (reset_after=True) or "before"; else the bias's shape says it.

    Returns:
      A cell, or a `Stack` where there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: where an array is missing, too many, or does not fit; the line names it.

    Example:
      >>> layer = keras.layers.Bidirectional(keras.layers.GRU(128, return_sequences=True))
      >>> layer.build((None, None, 64))
      >>> stack, params = from_weights(layer.get_weights(), bidirectional=True)
    """
    arguments.positive_int("num_layers", num_layers)
    arguments.boolean("bidirectional", bidirectional)
    arguments.one_of("merge", merge, ("concat", "sum"))
    arguments.one_of("reset", reset, (None, "before", "after"))
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
    leaves = Leaves("weights", dict(zip(keys, weights, strict=True)))
    layers, width, remaining = [], "I", iter(keys)
    for _ in range(num_layers):
        layer = [_read(leaves, [next(remaining) for _ in names], width, reset) for _ in range(directions)]
        layers.append(layer)
        width = layer[0][1].U.shape[0] * (directions if merge == "concat" else 1)
    return put_together(layers, merge)


def to_weights(cell: Any, params: Params) -> list[np.ndarray]:
    """Writes parameters in the order of Keras.

    Args:
      cell: a GRU (for reset="after" a layer with reset_after=True), an LSTM, an Elman, or a `Stack` of them.
      params: its parameters.

    Returns:
      For every layer and direction kernel, recurrent kernel and bias, as NumPy arrays.

    Raises:
      ValueError, TypeError: for another cell.

    Example:
      >>> layer = keras.layers.GRU(128, return_sequences=True, reset_after=cell.reset == "after")
      >>> layer.build((None, None, 64))
      >>> layer.set_weights(to_weights(cell, params))
    """
    parts = take_apart(cell, params)
    layout = layout_of(parts.cell, LAYOUTS)
    arrays = []
    for weights in (layout.write(direction) for layer in parts.layers for direction in layer):
        bias = weights.b if weights.b_hn is None else np.stack(layout.split(weights))
        arrays += [weights.W, weights.U, bias]
    return arrays


def _read(leaves: Leaves, keys: list[str], width: int | str, reset: str | None) -> tuple[Cell, Params]:
    layout, U = take_recurrent(leaves, keys[1], LAYOUTS)
    W = leaves.take(keys[0], (width, U.shape[1]))
    if len(keys) == 2:
        if layout is GRU_GATES and reset is None:
            raise ValueError('reset: expected "before" or "after" for a GRU without a bias, got None')
        zeros = np.zeros_like(U[0])
        return layout.read(Weights(W, U, *layout.merge(zeros, zeros, reset or "after")))
    if layout is GRU_GATES and leaves.rank(keys[2]) == 2:
        _agree(reset, "after", keys[2])
        b_input, b_recurrent = leaves.take(keys[2], (2, U.shape[1]))
        return layout.read(Weights(W, U, *layout.merge(b_input, b_recurrent, "after")))
    if layout is GRU_GATES:
        _agree(reset, "before", keys[2])
    return layout.read(Weights(W, U, leaves.take(keys[2], U.shape[1:])))


def _agree(reset: str | None, found: str, key: str) -> None:
    if reset not in (None, found):
        raise ValueError(f'reset: expected "{found}", which the shape of {key} says, got "{reset}"')
