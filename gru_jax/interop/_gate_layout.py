"""Gate layouts of other libraries, exact conversion to ours and back, and lists of layers as a `Stack`.

Ours: `W (I, G H)`, `U (H, G H)`, one bias `b (G H,)`, columns `[r | z | n]` or `[i | f | g | o]`, where z weights the
new candidate. Other libraries permute, negate or transpose them, which loses no bit. Some keep two biases; their sum
is rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._stack import Stack
from gru_jax._types import Params
from gru_jax.cells import GRU, LSTM, Cell, Elman, ElmanParams, GRUParams, LSTMParams
from gru_jax.cells.elman import ACTIVATIONS
from gru_jax.interop._arrays import NamedArrays, as_numpy

OURS = {GRU: "rzn", LSTM: "ifgo", Elman: "h"}

NO_BIAS = -0.0
"""Stands for an absent bias: x + -0.0 is x for every x. x + 0.0 is not, since -0.0 + 0.0 is 0.0."""


class Weights(NamedTuple):
    """The weights of one layer and direction in the layout of another library.

    Attributes:
      W: (I, G H), or (G H, I) if transposed.
      U: (H, G H), or (G H, H) if transposed.
      b: (G H,).
      b_hn: (H,), the bias that a GRU's reset gate multiplies; None for reset="before" and for other cells.
    """

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    b_hn: np.ndarray | None = None


@dataclass(frozen=True)
class GateLayout:
    """The order, sign and orientation of a library's gates.

    Args:
      order: the library's gates in our letters, e.g. "zrn".
      negated: gates whose weights have the opposite sign: "z" if z weights the old state.
      transposed: whether matrices are (G H, I) rather than (I, G H).

    Example:
      >>> keras = GateLayout("zrn", negated="z")
      >>> cell, params = keras.read(Weights(kernel, recurrent_kernel, bias))
    """

    order: str
    negated: str = ""
    transposed: bool = False

    @property
    def gates(self) -> int:
        """The number of gates, G."""
        return len(self.order)

    @property
    def cell(self) -> Any:
        """The class of the cell that has these gates."""
        return next(cell for cell, order in OURS.items() if sorted(order) == sorted(self.order))

    def read(self, weights: Weights, activation: str = "tanh") -> tuple[Cell, Params]:
        """Converts weights to a cell and its parameters.

        Args:
          weights: NumPy arrays in this layout. For a GRU, b_hn None means reset="before".
          activation: the activation of an Elman network.

        Returns:
          The cell, and its parameters as JAX arrays.
        """
        W, U, b = (jnp.asarray(self._to_ours(array)) for array in (weights.W, weights.U, weights.b))
        if self.cell is not GRU:
            return (LSTM(), LSTMParams(W, U, b)) if self.cell is LSTM else (Elman(activation), ElmanParams(W, U, b))
        if weights.b_hn is None:
            return GRU(reset="before"), GRUParams(W, U, b)
        return GRU(reset="after"), GRUParams(W, U, b, jnp.asarray(weights.b_hn))

    def write(self, params: Params) -> Weights:
        """Converts parameters to NumPy arrays in this layout; the inverse of `read`."""
        W, U, b = (self._to_theirs(as_numpy(f"params.{name}", getattr(params, name))) for name in "WUb")
        b_hn = params.b_hn if isinstance(params, GRUParams) else None
        return Weights(W, U, b, None if b_hn is None else as_numpy("params.b_hn", b_hn))

    def add_biases(
        self, b_input: np.ndarray, b_recurrent: np.ndarray, reset: str
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Adds an input and a recurrent bias.

        Args:
          b_input: (G H,), in the library's gate order.
          b_recurrent: (G H,).
          reset: the GRU's reset; any string for other cells.

        Returns:
          b (G H,) and b_hn. With reset="after" the n of b_recurrent is not added, but is b_hn (H,); else b_hn is None.
        """
        if self.cell is not GRU or reset == "before":
            return b_input + b_recurrent, None
        n, added = self._columns("n", b_input.size), b_recurrent.copy()
        added[n] = NO_BIAS
        return b_input + added, b_recurrent[n]

    def split_bias(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Returns an input bias b and a recurrent bias that has b_hn for n and else zeros, both (G H,)."""
        b_recurrent = np.full_like(weights.b, NO_BIAS)
        if weights.b_hn is not None:
            b_recurrent[self._columns("n", weights.b.size)] = weights.b_hn
        return weights.b, b_recurrent

    def _columns(self, gate: str, size: int) -> slice:
        H, at = size // self.gates, self.order.index(gate)
        return slice(at * H, (at + 1) * H)

    def _to_ours(self, array: np.ndarray) -> np.ndarray:
        gates = dict(zip(self.order, np.split(array.T if self.transposed else array, self.gates, axis=-1), strict=True))
        return np.concatenate([self._signed(gate, gates[gate]) for gate in OURS[self.cell]], axis=-1)

    def _to_theirs(self, array: np.ndarray) -> np.ndarray:
        gates = dict(zip(OURS[self.cell], np.split(array, self.gates, axis=-1), strict=True))
        array = np.concatenate([self._signed(gate, gates[gate]) for gate in self.order], axis=-1)
        return np.ascontiguousarray(array.T) if self.transposed else array

    def _signed(self, gate: str, array: np.ndarray) -> np.ndarray:
        return -array if gate in self.negated else array


def take_recurrent_matrix(
    arrays: NamedArrays, key: str, layouts: Sequence[GateLayout]
) -> tuple[GateLayout, np.ndarray]:
    """Takes a recurrent matrix, and returns its layout, which the number of gates tells, and the matrix."""
    transposed = layouts[0].transposed
    U = arrays.take(key, ("GH", "H") if transposed else ("H", "GH"))
    H, size = U.shape[::-1] if transposed else U.shape
    for layout in layouts:
        if size == layout.gates * H:
            return layout, U
    sizes = [f"{layout.gates}H" if layout.gates > 1 else "H" for layout in layouts]
    expected = " or ".join(f"({size}, H)" if transposed else f"(H, {size})" for size in sizes)
    raise ValueError(f"{arrays.source}: {key}: expected shape {expected}, got {U.shape}")


def layout_of(cell: Any, layouts: Sequence[GateLayout]) -> GateLayout:
    """Returns the layout of a cell's gates."""
    return next(layout for layout in layouts if isinstance(cell, layout.cell))


class Layers(NamedTuple):
    """A cell or a `Stack` as a list of layers.

    Attributes:
      cell: the cell of every layer and direction.
      params: one tuple a layer, with the cell's parameters for each direction.
      merge: how the outputs of two directions are merged, as in `Stack`.
    """

    cell: Any
    params: tuple[tuple[Any, ...], ...]
    merge: str

    @property
    def directions(self) -> int:
        """One or two."""
        return len(self.params[0])


def split_layers(cell: Any, params: Params) -> Layers:
    """Checks the arguments of a `to_*` function and returns them as layers."""
    if not isinstance(cell, (GRU, LSTM, Elman, Stack)):
        raise TypeError(f"cell: expected a GRU, LSTM or Elman, or a Stack of them, got {cell!r}")
    cell.infer_sizes(params)
    if not isinstance(cell, Stack):
        return Layers(cell, ((params,),), "concat")
    if not isinstance(cell.cell, (GRU, LSTM, Elman)):
        raise TypeError(f"cell: expected a Stack of GRU, LSTM or Elman, got one of {cell.cell!r}")
    return Layers(cell.cell, params, cell.merge)


def join_layers(layers: Sequence[Sequence[tuple[Cell, Params]]], merge: str = "concat") -> tuple[Any, Params]:
    """Returns a cell and its parameters, or a `Stack` if there are several layers or two directions."""
    cell, params = layers[0][0]
    for number, layer in enumerate(layers):
        for other, _ in layer:
            if other != cell:
                raise ValueError(f"layer {number}: expected {cell}, as in layer 0, got {other}")
    if len(layers) == 1 and len(layers[0]) == 1:
        return cell, params
    stack = Stack(cell, num_layers=len(layers), bidirectional=len(layers[0]) == 2, merge=merge)
    params = tuple(tuple(direction for _, direction in layer) for layer in layers)
    stack.infer_sizes(params)
    return stack, params


def check_activation(name: str, activation: str | None, source: str) -> str:
    """Returns the activation of an Elman network whose weights do not tell it; raises ValueError if it is None."""
    if activation is None:
        raise ValueError(f'{name}: expected "tanh" or "relu", which {source} does not tell, got None')
    arguments.one_of(name, activation, ACTIVATIONS)
    return activation


def check_supported(library: str, layers: Layers, *, reset: str | None = None, merge: str | None = None) -> None:
    """Raises ValueError if a library lacks a GRU's reset or a merge; None if it supports all of them."""
    if reset is not None and isinstance(layers.cell, GRU) and layers.cell.reset != reset:
        raise ValueError(f'cell: expected reset="{reset}", as {library} has it, got reset="{layers.cell.reset}"')
    if merge is not None and layers.directions == 2:
        arguments.one_of(f"cell: merge in {library}", layers.merge, (merge,))


def check_single_cell(library: str, layers: Layers) -> None:
    """Raises ValueError if there are several layers or directions."""
    if len(layers.params) > 1 or layers.directions > 1:
        got = f"{len(layers.params)} layers of {layers.directions} directions"
        raise ValueError(f"cell: expected a single cell, as {library} has it, got {got}")
