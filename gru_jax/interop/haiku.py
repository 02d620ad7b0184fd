"""Haiku: `hk.GRU` and `hk.LSTM`, one or several in a `DeepRNN`, as dicts of parameters.

The GRU is ours: reset before the product, z the weight of the candidate; its gates lie `[z | r | n]`. The LSTM has one
matrix for inputs and state, gates `[i | g | f | o]`, and adds 1 to the forget gate as it runs, so its bias is ours less
one. `hk.VanillaRNN` is a ReLU network, not an Elman one.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax.cells import LSTM, Cell, Elman
from gru_jax.interop.gate_layout import GateLayout, Weights
from gru_jax.interop.leaves import Leaves, flatten
from gru_jax.interop.network import put_together, require, take_apart
from gru_jax.types import Params

GRU_GATES, LSTM_GATES = GateLayout("zrn"), GateLayout("igfo")
SEPARATOR = ": "


def from_params(params: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Params]:
    """Reads the parameters of one core, or of several that lie on each other.

    Args:
      params: module names to names to arrays: `gru` with `w_i (I, 3H)`, `w_h (H, 3H)`, `b (3H,)`, or `lstm/linear` with
        `w (I + H, 4H)`, `b (4H,)`; then `gru_1`, ... for the layers above. Any name will do, and any path before it.

    Returns:
      A cell, or a `Stack` where there are several layers, and its parameters.

    Raises:
      ValueError, TypeError: where an array is missing, too many, or does not fit; the line names it.

    Example:
      >>> core = hk.transform(lambda xs, state: hk.dynamic_unroll(hk.GRU(128), xs, state))
      >>> cell, params = from_params(core.init(key, xs, state))
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a dict of parameters, got {type(params).__name__}")
    leaves = Leaves("params", flatten(params, SEPARATOR))
    numbered = {}
    for module in params:
        number = re.search(r"_(\d+)$", str(module).removesuffix("/linear"))
        numbered[int(number.group(1)) if number and len(params) > 1 else 0] = module
        if str(module).removesuffix("/linear").rpartition("/")[2].startswith("vanilla_rnn"):
            raise ValueError(f"params: {module}: expected a GRU or an LSTM, got a VanillaRNN, which is a ReLU network")
    if sorted(numbered) != list(range(len(params))) or not params:
        raise ValueError(
            f"params: expected modules numbered as gru, gru_1, gru_2, got {', '.join(map(str, params)) or 'none'}"
        )
    layers, width = [], "I"
    for number in sorted(numbered):
        layers.append([_read(leaves, numbered[number], width)])
        width = layers[-1][0][1].U.shape[0]
    leaves.finish()
    return put_together(layers)


def to_params(cell: Any, params: Params) -> dict[str, dict[str, Any]]:
    """Writes parameters under Haiku's names.

    Args:
      cell: a GRU with reset="before", an LSTM, or a `Stack` of them in one direction.
      params: its parameters.

    Returns:
      Module names, `gru` or `lstm/linear`, with `_1`, `_2`, ... for the layers above, to names to JAX arrays.

    Raises:
      ValueError, TypeError: for what Haiku does not have: reset="after", an Elman network, two directions.
    """
    parts = take_apart(cell, params)
    if isinstance(parts.cell, Elman):
        raise ValueError("cell: Haiku has no tanh network, its VanillaRNN is a ReLU one, got Elman()")
    if parts.directions == 2:
        raise ValueError("cell: Haiku has no layer of two directions, got bidirectional=True")
    require("Haiku", parts, reset="before")
    modules = {}
    for number, (layer,) in enumerate(parts.layers):
        suffix = f"_{number}" if number else ""
        if isinstance(parts.cell, LSTM):
            W, U, b, _ = LSTM_GATES.write(layer)
            arrays = {"w": np.concatenate([W, U]), "b": _shift_forget_gate(b, -1)}
            modules[f"lstm{suffix}/linear"] = {name: jnp.asarray(array) for name, array in arrays.items()}
        else:
            W, U, b, _ = GRU_GATES.write(layer)
            modules[f"gru{suffix}"] = {"w_i": jnp.asarray(W), "w_h": jnp.asarray(U), "b": jnp.asarray(b)}
    return modules


def _read(leaves: Leaves, module: str, width: int | str) -> tuple[Cell, Params]:
    w_i, w_h, w, b = (f"{module}{SEPARATOR}{name}" for name in ("w_i", "w_h", "w", "b"))
    if w in leaves:
        inputs = width if isinstance(width, str) else str(width)
        both = leaves.take(w, (f"{inputs} + H", "4H"))
        H = both.shape[1] // 4
        I = both.shape[0] - H
        if both.shape[1] % 4 or I < 1 or width not in ("I", I):
            raise ValueError(f"params: {w}: expected shape ({inputs} + H, 4H), got {both.shape}")
        return LSTM_GATES.read(Weights(both[:I], both[I:], _shift_forget_gate(leaves.take(b, (4 * H,)), 1)))
    U = leaves.take(w_h, ("H", "3H"))
    if U.shape[1] != 3 * U.shape[0]:
        raise ValueError(f"params: {w_h}: expected shape (H, 3H), got {U.shape}")
    return GRU_GATES.read(Weights(leaves.take(w_i, (width, U.shape[1])), U, leaves.take(b, U.shape[1:])))


def _shift_forget_gate(b: np.ndarray, amount: int) -> np.ndarray:
    H = b.size // 4
    b = b.copy()
    b[2 * H : 3 * H] += b.dtype.type(amount)
    return b
