"""How another library lays out one cell's weights, and the exact way to ours and back.

Ours: `W (I, G H)`, `U (H, G H)`, one bias `b (G H,)`, columns `[r | z | n]` or `[i | f | g | o]`, z the weight of
the new candidate. All that another library does otherwise is a permutation, a sign, a transposition, which lose no
bit, and a bias that it keeps in two parts, whose sum is rounded once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from gru_jax._types import Params
from gru_jax.cells import GRU, LSTM, Cell, Elman, ElmanParams, GRUParams, LSTMParams
from gru_jax.interop._arrays import Leaves, as_numpy

OURS = {GRU: "rzn", LSTM: "ifgo", Elman: "h"}

NOTHING = -0.0
"""What stands for an absent part of a bias: x + -0.0 is x for every x, -0.0 included, which x + 0.0 is not."""


class Weights(NamedTuple):
    """One direction of one layer as another library lays it out.

    Attributes:
      W: (I, G H), or (G H, I) where it is transposed.
      U: (H, G H), or (G H, H).
      b: (G H,).
      b_hn: (H,), a GRU's bias within the reset gate's reach; None for reset="before" and for other cells.
    """

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    b_hn: np.ndarray | None = None


@dataclass(frozen=True)
class GateLayout:
    """The order, sign and orientation of a library's gates.

    Args:
      order: its gates in our letters, e.g. "zrn".
      negated: those whose weights have the opposite sign: "z" where z weighs the old state.
      transposed: whether its matrices map columns, (G H, I), rather than rows, (I, G H).

    Example:
      >>> keras = GateLayout("zrn", negated="z")
      >>> cell, params = keras.read(Weights(kernel, recurrent_kernel, bias))
    """

    order: str
    negated: str = ""
    transposed: bool = False

    @property
    def gates(self) -> int:
        """G."""
        return len(self.order)

    @property
    def cell(self) -> Any:
        """The class of the cell whose gates these are."""
        return next(cell for cell, order in OURS.items() if sorted(order) == sorted(self.order))

    def read(self, weights: Weights, activation: str = "tanh") -> tuple[Cell, Params]:
        """Returns the cell and its parameters, JAX arrays; b_hn decides a GRU's reset, `activation` is an Elman's."""
        W, U, b = (jnp.asarray(self._to_ours(array)) for array in (weights.W, weights.U, weights.b))
        if self.cell is not GRU:
            return (LSTM(), LSTMParams(W, U, b)) if self.cell is LSTM else (Elman(activation), ElmanParams(W, U, b))
        if weights.b_hn is None:
            return GRU(reset="before"), GRUParams(W, U, b)
        return GRU(reset="after"), GRUParams(W, U, b, jnp.asarray(weights.b_hn))

    def write(self, params: Params) -> Weights:
        """Undoes `read`; NumPy arrays."""
        W, U, b = (self._to_theirs(as_numpy(f"params.{name}", getattr(params, name))) for name in "WUb")
        b_hn = params.b_hn if isinstance(params, GRUParams) else None
        return Weights(W, U, b, None if b_hn is None else as_numpy("params.b_hn", b_hn))

    def merge(self, b_input: np.ndarray, b_recurrent: np.ndarray, reset: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Makes b and b_hn of a bias in two parts (G H,), in the library's order: their sum, each number rounded once.

        With reset="after" the recurrent part of n lies within the reset gate's reach, and is b_hn.
        """
        if self.cell is not GRU or reset == "before":
            return b_input + b_recurrent, None
        n, outside = self._columns("n", b_input.size), b_recurrent.copy()
        outside[n] = NOTHING
        return b_input + outside, b_recurrent[n]

    def split(self, weights: Weights) -> tuple[np.ndarray, np.ndarray]:
        """Undoes `merge`: all of b in the first part, b_hn alone in the second."""
        b_recurrent = np.full_like(weights.b, NOTHING)
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


def take_recurrent(leaves: Leaves, key: str, layouts: Sequence[GateLayout]) -> tuple[GateLayout, np.ndarray]:
    """Takes a recurrent matrix and finds its layout by the number of its gates."""
    transposed = layouts[0].transposed
    U = leaves.take(key, ("GH", "H") if transposed else ("H", "GH"))
    H, size = U.shape[::-1] if transposed else U.shape
    for layout in layouts:
        if size == layout.gates * H:
            return layout, U
    sizes = [f"{layout.gates}H" if layout.gates > 1 else "H" for layout in layouts]
    expected = " or ".join(f"({size}, H)" if transposed else f"(H, {size})" for size in sizes)
    raise ValueError(f"{leaves.source}: {key}: expected shape {expected}, got {U.shape}")


def layout_of(cell: Any, layouts: Sequence[GateLayout]) -> GateLayout:
    """Returns the layout of a cell's gates."""
    return next(layout for layout in layouts if isinstance(cell, layout.cell))
