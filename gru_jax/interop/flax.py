"""Flax: the cells of `flax.linen` as dicts of parameters, those of `flax.nnx` as modules or states.

    linen   GRUCell, LSTMCell and OptimizedLSTMCell, SimpleCell: a Dense for each gate and side, `ir`, `hr`, ...
    nnx     GRUCell, OptimizedLSTMCell, SimpleCell: `dense_i` and `dense_h`, with the gates side by side;
            LSTMCell: a Linear for each gate and side, as in linen, but `if_`

Both also inside an `RNN` (`cell`), a `Bidirectional` (`forward_rnn`, `backward_rnn`) and a `Sequential` of those. z
weighs the old state, hence the sign. The GRU resets after the product; nnx's has no `b_hn`, so that one is read as
zeros and only zeros are written. Parameters do not say which functions a linen cell applies: sigmoid and tanh.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import arguments
from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.interop.gate_layout import GateLayout, Weights, layout_of, take_recurrent
from gru_jax.interop.leaves import Leaves, flatten
from gru_jax.interop.network import put_together, require, take_apart
from gru_jax.types import Params

if TYPE_CHECKING:
    from flax import nnx

LAYOUTS = GRU_GATES, LSTM_GATES, ELMAN_GATES = GateLayout("rzn", negated="z"), GateLayout("ifgo"), GateLayout("h")
GATES = {GRU_GATES: ("r", "z", "n"), LSTM_GATES: ("i", "f", "g", "o"), ELMAN_GATES: ("",)}
BIASED = {GRU_GATES: "i", LSTM_GATES: "h", ELMAN_GATES: "i"}
DIRECTIONS = ("forward_rnn", "backward_rnn")


def from_linen(params: Mapping[str, Any], *, merge: str = "concat") -> tuple[Any, Params]:
    """Reads the parameters of a linen cell, or of the `RNN`, `Bidirectional` or `Sequential` around it.

    Args:
      params: nested dicts, with or without the collection `params` around them.
      merge: how a `Bidirectional` puts its outputs together: "concat", its default, or "sum".

    Returns:
      A cell, or a `Stack` where there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: where an array is missing, too many, or does not fit; the line names it.

    Example:
      >>> rnn = nn.RNN(nn.GRUCell(128))
      >>> cell, params = from_linen(rnn.init(key, xs))
    """
    if isinstance(params, Mapping) and set(params) == {"params"}:
        params = params["params"]
    return _read(params, "params", r"layers_(\d+)/", merge)


def to_linen(cell: Any, params: Params) -> dict[str, Any]:
    """Writes parameters under linen's names.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a `Stack` of them.
      params: its parameters.

    Returns:
      Nested dicts of JAX arrays: those of a `GRUCell`, `OptimizedLSTMCell` or `SimpleCell`; for a `Stack` those of an
      `RNN` or `Bidirectional` around it, and of a `Sequential` of them where there are several layers.

    Raises:
      ValueError, TypeError: for what Flax does not have, reset="before" among it.
    """
    parts = take_apart(cell, params)
    require("Flax", parts, reset="after")
    if cell is parts.cell:
        return _write_linen_cell(parts.cell, params)
    layers = [[{"cell": _write_linen_cell(parts.cell, direction)} for direction in layer] for layer in parts.layers]
    trees: list[Any] = [layer[0] if len(layer) == 1 else dict(zip(DIRECTIONS, layer, strict=True)) for layer in layers]
    return trees[0] if len(trees) == 1 else {f"layers_{number}": tree for number, tree in enumerate(trees)}


def from_nnx(module: Any, *, merge: str = "concat") -> tuple[Any, Params]:
    """Reads the parameters of an nnx cell, or of the `RNN`, `Bidirectional` or `Sequential` around it.

    Args:
      module: a module, or the state of one.
      merge: how a `Bidirectional` puts its outputs together: "concat", its default, or "sum".

    Returns:
      A cell, or a `Stack` where there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: where an array is missing, too many, or does not fit, or a module applies other functions
        than sigmoid and tanh; the line names it.
    """
    from flax import nnx

    arguments.one_of("merge", merge, ("concat", "sum"))
    if isinstance(module, nnx.Module):
        for path, node in nnx.iter_modules(module):
            _check_module("module" + "".join(f".{name}" for name in path), vars(node), merge)
        module = nnx.state(module, nnx.Param)
    if not isinstance(module, nnx.State):
        raise TypeError(f"module: expected a module or a state of flax.nnx, got {type(module).__name__}")
    params = nnx.to_pure_dict(nnx.filter_state(module, nnx.Param))
    return _read(params, "state", r"layers/(\d+)/", merge)


def to_nnx(cell: Any, params: Params) -> "nnx.Module":
    """Builds an nnx module that owns these parameters; `nnx.state` of it is its state.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a `Stack` of them; its dropout is left out.
      params: its parameters; a GRU's b_hn must be zeros, for nnx has none.

    Returns:
      A `GRUCell`, `OptimizedLSTMCell` or `SimpleCell`; for a `Stack` an `RNN` or `Bidirectional` around it, and a
      `Sequential` of them where there are several layers.

    Raises:
      ValueError, TypeError: for what nnx does not have.
    """
    from flax import nnx

    parts = take_apart(cell, params)
    require("Flax", parts, reset="after")
    if cell is parts.cell:
        return _build_nnx_cell(parts.cell, params)
    layers = [[nnx.RNN(_build_nnx_cell(parts.cell, direction)) for direction in layer] for layer in parts.layers]
    options: dict[str, Any] = {"merge_fn": jnp.add} if parts.merge == "sum" else {}
    modules = [layer[0] if len(layer) == 1 else nnx.Bidirectional(*layer, **options) for layer in layers]
    return modules[0] if len(modules) == 1 else nnx.Sequential(*modules)


def _read(params: Mapping[str, Any], source: str, layer_pattern: str, merge: str) -> tuple[Any, Params]:
    if not isinstance(params, Mapping):
        raise TypeError(f"{source}: expected a dict of parameters, got {type(params).__name__}")
    arguments.one_of("merge", merge, ("concat", "sum"))
    leaves = Leaves(source, flatten(params))
    matches = filter(None, (re.match(layer_pattern, name) for name in leaves.names()))
    found = {int(match.group(1)): match.group() for match in matches}
    if sorted(found) != list(range(len(found))):
        got = ", ".join(map(str, sorted(found)))
        raise ValueError(f"{source}: expected recurrent layers 0, 1, 2 and nothing between them, got layers {got}")
    layers, width = [], "I"
    for layer in [found[number] for number in sorted(found)] or [""]:
        paths = [f"{layer}{name}/" for name in DIRECTIONS] if _has(leaves, f"{layer}{DIRECTIONS[0]}/") else [layer]
        paths = [f"{path}cell/" if _has(leaves, f"{path}cell/") else path for path in paths]
        layers.append([_read_cell(leaves, path, width) for path in paths])
        width = layers[0][0][1].U.shape[0] * (len(paths) if merge == "concat" else 1)
    leaves.finish()
    return put_together(layers, merge)


def _has(leaves: Leaves, path: str) -> bool:
    return any(name.startswith(path) for name in leaves.names())


def _read_cell(leaves: Leaves, path: str, width: int | str) -> tuple[Cell, Params]:
    """Finds out by its names which cell lies at `path`, and reads it."""
    if f"{path}dense_h/kernel" in leaves:
        return _read_joined_gates(leaves, path, width)
    if f"{path}hr/kernel" in leaves:
        return _read_gates(leaves, path, width, GRU_GATES)
    if f"{path}hi/kernel" in leaves:
        renamed = {"f": "if_"} if f"{path}if_/kernel" in leaves else {}
        return _read_gates(leaves, path, width, LSTM_GATES, **renamed)
    if f"{path}h/kernel" in leaves:
        return _read_gates(leaves, path, width, ELMAN_GATES)
    names = ", ".join(leaves.names()[:8]) or "nothing"
    raise ValueError(
        f"{leaves.source}: expected a GRUCell, LSTMCell or SimpleCell at {path or 'the top'!r}, got {names}"
    )


def _read_gates(leaves: Leaves, path: str, width: int | str, layout: GateLayout, **renamed: str) -> tuple[Cell, Params]:
    """A cell with a kernel for each gate and side, and a bias at one side."""
    gates = GATES[layout]
    H = leaves.take(f"{path}h{gates[0]}/kernel", ("H", "H")).shape[0]
    U = [leaves.take(f"{path}h{gate}/kernel", (H, H)) for gate in gates]
    W: list[np.ndarray] = []
    for gate in gates:
        W.append(leaves.take(f"{path}{renamed.get(gate, f'i{gate}')}/kernel", (width, H)))
        width = len(W[0])
    b = [leaves.take(f"{path}{BIASED[layout]}{gate}/bias", (H,)) for gate in gates]
    b_hn = leaves.take(f"{path}hn/bias", (H,)) if layout is GRU_GATES else None
    joined_W, joined_U, joined_b = (np.concatenate(arrays, axis=-1) for arrays in (W, U, b))
    return layout.read(Weights(joined_W, joined_U, joined_b, b_hn))


def _read_joined_gates(leaves: Leaves, path: str, width: int | str) -> tuple[Cell, Params]:
    """One of nnx's cells with the gates side by side, and a bias at the one side or the other."""
    layout, U = take_recurrent(leaves, f"{path}dense_h/kernel", LAYOUTS)
    W = leaves.take(f"{path}dense_i/kernel", (width, U.shape[1]))
    b = leaves.take(f"{path}dense_{'h' if layout is LSTM_GATES else 'i'}/bias", U.shape[1:])
    return layout.read(Weights(W, U, b, np.zeros_like(U[0, : U.shape[0]]) if layout is GRU_GATES else None))


def _write_linen_cell(cell: Any, params: Any) -> dict[str, Any]:
    layout = layout_of(cell, LAYOUTS)
    weights = layout.write(params)
    W, U, b = (np.split(array, layout.gates, axis=-1) for array in weights[:3])
    tree: dict[str, Any] = {}
    for number, gate in enumerate(GATES[layout]):
        tree[f"i{gate}"] = {"kernel": jnp.asarray(W[number])}
        tree[f"h{gate}"] = {"kernel": jnp.asarray(U[number])}
        tree[f"{BIASED[layout]}{gate}"]["bias"] = jnp.asarray(b[number])
    if weights.b_hn is not None:
        tree["hn"]["bias"] = jnp.asarray(weights.b_hn)
    return tree


def _build_nnx_cell(cell: Any, params: Any) -> Any:
    from flax import nnx

    I, H, dtype = cell.check(params)
    W, U, b, b_hn = layout_of(cell, LAYOUTS).write(params)
    if b_hn is not None and b_hn.any():
        raise ValueError(
            f"params.b_hn: expected zeros, for nnx's GRUCell has no such bias, got up to {abs(b_hn).max()}"
        )
    kind = {GRU: nnx.GRUCell, LSTM: nnx.OptimizedLSTMCell, Elman: nnx.SimpleCell}[type(cell)]
    return kind(
        I,
        H,
        kernel_init=lambda *_: jnp.asarray(W),
        recurrent_kernel_init=lambda *_: jnp.asarray(U),
        bias_init=lambda *_: jnp.asarray(b),
        dtype=dtype,
        param_dtype=dtype,
        rngs=nnx.Rngs(0),
    )


def _check_module(name: str, attributes: Mapping[str, Any], merge: str) -> None:
    """Tries on numbers the functions of a module, which its parameters do not say."""
    from flax import nnx

    x = jnp.array([-1.5, 0.5, 2.0])
    merged = jnp.concatenate([x, -3 * x]) if merge == "concat" else x - 3 * x
    for function, expected, given, result in (
        ("gate_fn", "sigmoid", (x,), jax.nn.sigmoid(x)),
        ("activation_fn", "tanh", (x,), jnp.tanh(x)),
        ("merge_fn", f'one that does merge="{merge}"', (x, -3 * x), merged),
    ):
        if function in attributes:
            got = attributes[function](*given)
            if got.shape != result.shape or not jnp.allclose(got, result):
                raise ValueError(f"{name}.{function}: expected {expected}, got another function")
    if "layers" in attributes:
        for number, layer in enumerate(attributes["layers"]):
            if not isinstance(layer, (nnx.RNN, nnx.Bidirectional)):
                got = type(layer).__name__
                raise ValueError(f"{name}.layers[{number}]: expected an RNN or a Bidirectional, got {got}")
    for flag in ("residual", "reverse"):
        if flag in attributes and attributes[flag] is not False:
            raise ValueError(f"{name}.{flag}: expected False, got {attributes[flag]}")
