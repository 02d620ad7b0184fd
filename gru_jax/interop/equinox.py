"""Equinox: `eqx.nn.GRUCell` and `eqx.nn.LSTMCell`.

Gates are `[r | z | n]` and `[i | f | g | o]` along the first axis. z weights the old state, so its sign changes. The
GRU has reset="after", with `bias_n` as b_hn. Equinox has no Elman cell, no stack and no bidirectional layer.
"""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax._types import Params
from gru_jax.cells import LSTM, Elman
from gru_jax.interop._arrays import NamedArrays, require_package
from gru_jax.interop._gate_layout import (
    GateLayout,
    Weights,
    check_single_cell,
    check_supported,
    layout_of,
    split_layers,
    take_recurrent_matrix,
)

if TYPE_CHECKING:
    import equinox

LAYOUTS = GRU_GATES, LSTM_GATES = (
    GateLayout("rzn", negated="z", transposed=True),
    GateLayout("ifgo", transposed=True),
)


def from_cell(module: Any) -> tuple[Any, Params]:
    """Reads the parameters of a cell.

    Args:
      module: an `equinox.nn.GRUCell` or `LSTMCell`.

    Returns:
      A cell and its parameters.

    Raises:
      ValueError, TypeError: another module, or an array of another shape or dtype.

    Example:
      >>> cell, params = from_cell(eqx.nn.GRUCell(64, 128, key=key))
    """
    with require_package("equinox", "to read a module"):
        import equinox

    if not isinstance(module, (equinox.nn.GRUCell, equinox.nn.LSTMCell)):
        raise TypeError(f"module: expected an equinox.nn.GRUCell or LSTMCell, got {type(module).__name__}")
    arrays = NamedArrays("module", {name: value for name, value in vars(module).items() if hasattr(value, "shape")})
    layouts = [GRU_GATES if isinstance(module, equinox.nn.GRUCell) else LSTM_GATES]
    layout, U = take_recurrent_matrix(arrays, "weight_hh", layouts)
    W = arrays.take("weight_ih", (U.shape[0], "I"))
    b = arrays.take("bias", U.shape[:1]) if module.use_bias else np.zeros_like(U[:, 0])
    b_hn = None
    if layout is GRU_GATES:
        b_hn = arrays.take("bias_n", U.shape[1:]) if module.use_bias else np.zeros_like(U[0])
    arrays.check_all_taken()
    return layout.read(Weights(W, U, b, b_hn))


def to_cell(cell: Any, params: Params) -> "equinox.Module":
    """Builds an Equinox cell with these parameters.

    Args:
      cell: a GRU with reset="after" or an LSTM.
      params: its parameters.

    Returns:
      An `equinox.nn.GRUCell` or `LSTMCell`.

    Raises:
      ValueError, TypeError: Equinox does not have the cell: reset="before", an Elman network, or a stack.
    """
    with require_package("equinox", "to build a module"):
        import equinox

    layers = split_layers(cell, params)
    if isinstance(layers.cell, Elman):
        raise ValueError("cell: expected a GRU or an LSTM, as Equinox has them, got an Elman")
    check_single_cell("Equinox", layers)
    check_supported("Equinox", layers, reset="after")
    ((cell_params,),) = layers.params
    I, H, dtype = layers.cell.infer_sizes(cell_params)
    W, U, b, b_hn = layout_of(layers.cell, LAYOUTS).write(cell_params)
    kind = equinox.nn.LSTMCell if isinstance(layers.cell, LSTM) else equinox.nn.GRUCell
    empty = equinox.filter_eval_shape(lambda key: kind(I, H, dtype=dtype, key=key), jax.random.key(0))
    arrays = (W, U, b) if b_hn is None else (W, U, b, b_hn)

    def where(module: Any):
        return (module.weight_ih, module.weight_hh, module.bias) + ((module.bias_n,) if b_hn is not None else ())

    return equinox.tree_at(where, empty, tuple(map(jnp.asarray, arrays)))
