"""Haiku: `hk.GRU`, `hk.LSTM` and `hk.VanillaRNN`, one or several in a `DeepRNN`, as dicts of parameters.

The GRU has reset="before", z weighs the candidate, and gates are `[z | r | n]`. The LSTM has one matrix for inputs and
state and gates `[i | g | f | o]`. It adds 1 to the forget gate at every step, so its bias is ours less one. The
`VanillaRNN` is an Elman network with a ReLU. It has one or two biases, which are added on reading; on writing the
second is zeros.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax._types import Params
from gru_jax.cells import LSTM, Cell, Elman
from gru_jax.interop._arrays import NamedArrays, flatten
from gru_jax.interop._gate_layout import NO_BIAS, GateLayout, Weights, check_supported, join_layers, split_layers

GRU_GATES, LSTM_GATES, ELMAN_GATES = GateLayout("zrn"), GateLayout("igfo"), GateLayout("h")
SEPARATOR = ": "


def from_params(params: Mapping[str, Mapping[str, Any]]) -> tuple[Any, Params]:
    """Reads the parameters of one core, or of the cores of a `DeepRNN`.

    Args:
      params: module names to names to arrays: `gru` with `w_i (I, 3H)`, `w_h (H, 3H)`, `b (3H,)`, or `lstm/linear` with
        `w (I + H, 4H)`, `b (4H,)`, or `vanilla_rnn/linear` with `w (I, H)`, `b (H,)` and `vanilla_rnn/linear_1` with
        `w (H, H)`, `b (H,)`; then `gru_1`, ... for the layers above. Modules may have other names and a path.

    Returns:
      A cell, or a `Stack` if there are several layers, and its parameters.

    Raises:
      ValueError, TypeError: an array is missing, unknown, or of another shape or dtype.

    Example:
      >>> core = hk.transform(lambda xs, state: hk.dynamic_unroll(hk.GRU(128), xs, state))
      >>> cell, params = from_params(core.init(key, xs, state))
    """
    if not isinstance(params, Mapping):
        raise TypeError(f"params: expected a dict of parameters, got {type(params).__name__}")
    arrays = NamedArrays("params", flatten(params, SEPARATOR))
    modules = list(dict.fromkeys(re.sub(r"/linear(_1)?$", "", str(module)) for module in params))
    numbered = {}
    for module in modules:
        number = re.search(r"_(\d+)$", module)
        numbered[int(number.group(1)) if number and len(modules) > 1 else 0] = module
    if sorted(numbered) != list(range(len(modules))) or not modules:
        raise ValueError(
            f"params: expected modules numbered as gru, gru_1, gru_2, got {', '.join(map(str, params)) or 'none'}"
        )
    layers, width = [], "I"
    for number in sorted(numbered):
        layers.append([_read(arrays, numbered[number], width)])
        width = layers[-1][0][1].U.shape[0]
    arrays.check_all_taken()
    return join_layers(layers)


def to_params(cell: Any, params: Params) -> dict[str, dict[str, Any]]:
    """Writes parameters as those of Haiku cores.

    Args:
      cell: a GRU with reset="before", an LSTM, an Elman(activation="relu"), or a unidirectional `Stack` of them.
      params: its parameters.

    Returns:
      Module names, such as `gru` or `lstm/linear`, with `_1`, `_2`, ... for the layers above, to names to JAX arrays.

    Raises:
      ValueError, TypeError: Haiku does not have the cell: reset="after", a tanh network, or two directions.
    """
    layers = split_layers(cell, params)
    if isinstance(layers.cell, Elman) and layers.cell.activation != "relu":
        got = f"activation={layers.cell.activation!r}"
        raise ValueError(f'cell: expected activation="relu", as the VanillaRNN of Haiku has it, got {got}')
    if layers.directions == 2:
        raise ValueError("cell: expected one direction, as Haiku has it, got bidirectional=True")
    check_supported("Haiku", layers, reset="before")
    modules = {}
    for number, (layer,) in enumerate(layers.params):
        suffix = f"_{number}" if number else ""
        if isinstance(layers.cell, LSTM):
            W, U, b, _ = LSTM_GATES.write(layer)
            arrays = {"w": np.concatenate([W, U]), "b": _shift_forget_gate(b, -1)}
            modules[f"lstm{suffix}/linear"] = {name: jnp.asarray(array) for name, array in arrays.items()}
        elif isinstance(layers.cell, Elman):
            weights = ELMAN_GATES.write(layer)
            sides = zip((weights.W, weights.U), ELMAN_GATES.split_bias(weights), strict=True)
            for name, (matrix, bias) in zip(("linear", "linear_1"), sides, strict=True):
                modules[f"vanilla_rnn{suffix}/{name}"] = {"w": jnp.asarray(matrix), "b": jnp.asarray(bias)}
        else:
            W, U, b, _ = GRU_GATES.write(layer)
            modules[f"gru{suffix}"] = {"w_i": jnp.asarray(W), "w_h": jnp.asarray(U), "b": jnp.asarray(b)}
    return modules


def _read(arrays: NamedArrays, module: str, width: int | str) -> tuple[Cell, Params]:
    w_i, w_h, b = (f"{module}{SEPARATOR}{name}" for name in ("w_i", "w_h", "b"))
    w, w_1 = (f"{module}/{name}{SEPARATOR}w" for name in ("linear", "linear_1"))
    if w_1 in arrays:
        U = arrays.take(w_1, ("H", "H"))
        W, H = arrays.take(w, (width, U.shape[1])), U.shape[1]
        names = [f"{module}/{name}{SEPARATOR}b" for name in ("linear", "linear_1")]
        biases = [arrays.take(name, (H,)) if name in arrays else np.full_like(U[0], NO_BIAS) for name in names]
        return ELMAN_GATES.read(Weights(W, U, *ELMAN_GATES.add_biases(*biases, reset="before")), "relu")
    if w in arrays:
        b = f"{module}/linear{SEPARATOR}b"
        inputs = width if isinstance(width, str) else str(width)
        both = arrays.take(w, (f"{inputs} + H", "4H"))
        H = both.shape[1] // 4
        I = both.shape[0] - H
        if both.shape[1] % 4 or I < 1 or width not in ("I", I):
            raise ValueError(f"params: {w}: expected shape ({inputs} + H, 4H), got {both.shape}")
        return LSTM_GATES.read(Weights(both[:I], both[I:], _shift_forget_gate(arrays.take(b, (4 * H,)), 1)))
    U = arrays.take(w_h, ("H", "3H"))
    if U.shape[1] != 3 * U.shape[0]:
        raise ValueError(f"params: {w_h}: expected shape (H, 3H), got {U.shape}")
    return GRU_GATES.read(Weights(arrays.take(w_i, (width, U.shape[1])), U, arrays.take(b, U.shape[1:])))


def _shift_forget_gate(b: np.ndarray, amount: int) -> np.ndarray:
    H = b.size // 4
    b = b.copy()
    b[2 * H : 3 * H] += b.dtype.type(amount)
    return b
