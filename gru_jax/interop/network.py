"""A network as layers of directions, each a cell's own parameters, and put together again."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gru_jax import _arguments as arguments
from gru_jax._stack import Stack
from gru_jax._types import Params
from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.cells.elman import ACTIVATIONS


class Parts(NamedTuple):
    """A network taken apart.

    Attributes:
      cell: the cell of every layer and direction.
      layers: one entry a layer, each with one entry a direction, each a cell's parameters.
      merge: how two directions' outputs become one.
    """

    cell: Any
    layers: tuple[tuple[Any, ...], ...]
    merge: str

    @property
    def directions(self) -> int:
        return len(self.layers[0])


def take_apart(cell: Any, params: Params) -> Parts:
    """Takes what `to_*` functions are given, a cell or a stack of one kind that others know; checked."""
    if not isinstance(cell, (GRU, LSTM, Elman, Stack)):
        raise TypeError(f"cell: expected a GRU, LSTM or Elman, or a Stack of them, got {cell!r}")
    cell.check(params)
    if not isinstance(cell, Stack):
        return Parts(cell, ((params,),), "concat")
    if not isinstance(cell.cell, (GRU, LSTM, Elman)):
        raise TypeError(f"cell: expected a Stack of GRU, LSTM or Elman, got one of {cell.cell!r}")
    return Parts(cell.cell, params, cell.merge)


def put_together(layers: Sequence[Sequence[tuple[Cell, Params]]], merge: str = "concat") -> tuple[Any, Params]:
    """Returns a cell and its parameters, or a `Stack` where there are several layers or two directions."""
    cell, params = layers[0][0]
    for number, layer in enumerate(layers):
        for other, _ in layer:
            if other != cell:
                raise ValueError(f"layer {number}: expected {cell}, as in layer 0, got {other}")
    if len(layers) == 1 and len(layers[0]) == 1:
        return cell, params
    stack = Stack(cell, num_layers=len(layers), bidirectional=len(layers[0]) == 2, merge=merge)
    params = tuple(tuple(direction for _, direction in layer) for layer in layers)
    stack.check(params)
    return stack, params


def required_activation(name: str, activation: str | None, source: str) -> str:
    """Returns the activation of an Elman network where the weights that are read do not say it."""
    if activation is None:
        raise ValueError(f'{name}: expected "tanh" or "relu", for {source} does not say which, got None')
    arguments.one_of(name, activation, ACTIVATIONS)
    return activation


def require(library: str, parts: Parts, *, reset: str | None = None, merge: str | None = None) -> None:
    """Refuses a network that a library does not have; None where it has both."""
    if reset is not None and isinstance(parts.cell, GRU) and parts.cell.reset != reset:
        raise ValueError(f'cell: {library} has no GRU but reset="{reset}", got reset="{parts.cell.reset}"')
    if merge is not None and parts.directions == 2:
        arguments.one_of(f"cell: merge in {library}", parts.merge, (merge,))


def require_one_cell(library: str, parts: Parts) -> None:
    """Refuses several layers and directions."""
    if len(parts.layers) > 1 or parts.directions > 1:
        raise ValueError(
            f"cell: {library} has single cells only, got {len(parts.layers)} layers of {parts.directions} directions"
        )
