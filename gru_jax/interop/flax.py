"""Flax: cells of `flax.linen` as dicts of parameters, cells of `flax.nnx` as modules or states.

    linen   GRUCell, LSTMCell, OptimizedLSTMCell, SimpleCell: a Dense for each gate of inputs and state, `ir`, `hr`, ...
    nnx     GRUCell, OptimizedLSTMCell, SimpleCell: `dense_i` and `dense_h` with concatenated gates;
            LSTMCell: a Linear for each gate of inputs and state, named as in linen except for `if_`

A cell may be inside an `RNN` (`cell`), a `Bidirectional` (`forward_rnn`, `backward_rnn`) and a `Sequential` of them. z
weights the old state, so its sign changes. The GRU has reset="after". The nnx one has no b_hn, which is read as zeros
and must be zeros to be written. Parameters do not tell the activations of a cell; the module does.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax._stack import MERGES, check_merge
from gru_jax._types import Params
from gru_jax.cells import GRU, LSTM, Cell, Elman
from gru_jax.cells.elman import ACTIVATIONS
from gru_jax.interop._arrays import NamedArrays, flatten
from gru_jax.interop._gate_layout import (
    GateLayout,
    Weights,
    check_supported,
    join_layers,
    layout_of,
    split_layers,
    take_recurrent_matrix,
)

if TYPE_CHECKING:
    from flax import nnx

LAYOUTS = GRU_GATES, LSTM_GATES, ELMAN_GATES = GateLayout("rzn", negated="z"), GateLayout("ifgo"), GateLayout("h")
GATES = {GRU_GATES: ("r", "z", "n"), LSTM_GATES: ("i", "f", "g", "o"), ELMAN_GATES: ("",)}
BIASED = {GRU_GATES: "i", LSTM_GATES: "h", ELMAN_GATES: "i"}
DIRECTIONS = ("forward_rnn", "backward_rnn")


def from_linen(params: Mapping[str, Any], *, merge: str = "concat", module: Any = None) -> tuple[Any, Params]:
    """Reads the parameters of a linen cell, or of the `RNN`, `Bidirectional` or `Sequential` around it.

    A `merge_fn` of a `Bidirectional` that returns both outputs is read as "concat": `jnp.split(ys, 2, axis=-1)` of the
    concatenated outputs (..., T, 2H) returns both.

    Args:
      params: nested dicts, with or without the collection `params`. Other collections are ignored, and so are the
        names of mesh axes of partitioned parameters.
      merge: what the `merge_fn` of a `Bidirectional` does: "concat" (its default), "sum", "ave" or "mul".
      module: the module of the parameters, or the cell that all its layers have, to check cells and activations.
        Required for a `SimpleCell`, which has tanh or ReLU. If None, other cells are taken to have sigmoid and tanh,
        their defaults. An `RNN` with time_major=True is `gru_jax.unroll` with time_major=True, whatever is read here.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: an array is missing, unknown, or of another shape or dtype, or the module has other
        cells or another activation.

    Example:
      >>> rnn = nn.RNN(nn.GRUCell(128))
      >>> cell, params = from_linen(rnn.init(key, xs), module=rnn)
    """
    from flax import linen

    if isinstance(params, Mapping) and isinstance(params.get("params"), Mapping):
        params = params["params"]
    if isinstance(params, Mapping):  # Flattened first: `unbox` alone sorts the names, which errors list as they came.
        params = {name: linen.meta.unbox(array) for name, array in flatten(params).items()}
    check_merge("merge", merge)
    if module is None:
        return _read(params, "params", r"layers_(\d+)/", merge, None)
    if not isinstance(module, linen.Module):
        raise TypeError(f"module: expected a module of flax.linen, got {type(module).__name__}")
    modules = _linen_modules("module", module)
    cell, params = _read(params, "params", r"layers_(\d+)/", merge, _check_modules(modules, merge))
    _check_cells(modules, cell, params)
    return cell, params


def to_linen(cell: Any, params: Params) -> dict[str, Any]:
    """Writes parameters as those of a linen module.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a `Stack` of them.
      params: its parameters.

    Returns:
      Nested dicts of JAX arrays for a `GRUCell`, `OptimizedLSTMCell` or `SimpleCell`. A `Stack` becomes an `RNN` or
      `Bidirectional` of the cell, or a `Sequential` of them if there are several layers.

    Raises:
      ValueError, TypeError: Flax does not have the cell or its reset ("before").
    """
    layers = split_layers(cell, params)
    check_supported("Flax", layers, reset="after")
    if cell is layers.cell:
        return _write_linen_cell(layers.cell, params)
    rnns = [[{"cell": _write_linen_cell(layers.cell, direction)} for direction in layer] for layer in layers.params]
    trees: list[Any] = [layer[0] if len(layer) == 1 else dict(zip(DIRECTIONS, layer, strict=True)) for layer in rnns]
    return trees[0] if len(trees) == 1 else {f"layers_{number}": tree for number, tree in enumerate(trees)}


def from_nnx(module: Any, *, merge: str = "concat") -> tuple[Any, Params]:
    """Reads the parameters of an nnx cell, or of the `RNN`, `Bidirectional` or `Sequential` around it.

    Args:
      module: a module, or its state.
      merge: what the `merge_fn` of a `Bidirectional` does; see `from_linen`.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: an array is missing, unknown, or of another shape or dtype; a module has another activation
        than sigmoid and tanh (a `SimpleCell`: tanh or ReLU); or the state of a `SimpleCell`, which does not tell it.
    """
    from flax import nnx

    check_merge("merge", merge)
    activation = None
    if isinstance(module, nnx.Module):
        _check_unshared("module", module, {})
        modules = [("module" + "".join(f".{key}" for key in path), node) for path, node in nnx.iter_modules(module)]
        activation = _check_modules(modules, merge)
        module = nnx.state(module, nnx.Param)
    if not isinstance(module, nnx.State):
        raise TypeError(f"module: expected a module or a state of flax.nnx, got {type(module).__name__}")
    params = nnx.to_pure_dict(nnx.filter_state(module, nnx.Param))
    return _read(params, "state", r"layers/(\d+)/", merge, activation)


def to_nnx(cell: Any, params: Params) -> "nnx.Module":
    """Builds an nnx module with these parameters.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a `Stack` of them. Dropout is not written.
      params: its parameters. The b_hn of a GRU must be zeros, since the nnx cell has none.

    Returns:
      A `GRUCell`, `OptimizedLSTMCell` or `SimpleCell`. A `Stack` becomes an `RNN` or `Bidirectional` of the cell, or a
      `Sequential` of them if there are several layers.

    Raises:
      ValueError, TypeError: nnx does not have the cell, its reset ("before"), or its b_hn.
    """
    from flax import nnx

    layers = split_layers(cell, params)
    check_supported("Flax", layers, reset="after")
    if cell is layers.cell:
        return _build_nnx_cell(layers.cell, params)
    rnns = [[nnx.RNN(_build_nnx_cell(layers.cell, direction)) for direction in layer] for layer in layers.params]
    options: dict[str, Any] = {} if layers.merge == "concat" else {"merge_fn": MERGES[layers.merge]}
    modules = [layer[0] if len(layer) == 1 else nnx.Bidirectional(*layer, **options) for layer in rnns]
    return modules[0] if len(modules) == 1 else nnx.Sequential(*modules)


def _read(
    params: Mapping[str, Any], source: str, layer_pattern: str, merge: str, activation: str | None
) -> tuple[Any, Params]:
    if not isinstance(params, Mapping):
        raise TypeError(f"{source}: expected a dict of parameters, got {type(params).__name__}")
    arrays = NamedArrays(source, flatten(params))
    matches = filter(None, (re.match(layer_pattern, name) for name in arrays.names()))
    found = {int(match.group(1)): match.group() for match in matches}
    if sorted(found) != list(range(len(found))):
        got = ", ".join(map(str, sorted(found)))
        raise ValueError(f"{source}: expected recurrent layers numbered 0, 1, 2 without gaps, got layers {got}")
    layers, width = [], "I"
    for layer in [found[number] for number in sorted(found)] or [""]:
        paths = [f"{layer}{name}/" for name in DIRECTIONS] if _has(arrays, f"{layer}{DIRECTIONS[0]}/") else [layer]
        paths = [f"{path}cell/" if _has(arrays, f"{path}cell/") else path for path in paths]
        layers.append([_read_cell(arrays, path, width, activation) for path in paths])
        width = layers[0][0][1].U.shape[0] * (len(paths) if merge == "concat" else 1)
    arrays.check_all_taken()
    return join_layers(layers, merge)


def _has(arrays: NamedArrays, path: str) -> bool:
    return any(name.startswith(path) for name in arrays.names())


def _read_cell(arrays: NamedArrays, path: str, width: int | str, activation: str | None) -> tuple[Cell, Params]:
    """Reads the cell at `path`, which the names of its arrays tell."""
    if f"{path}dense_h/kernel" in arrays:
        return _read_joined_gates(arrays, path, width, activation)
    if f"{path}hr/kernel" in arrays:
        return _read_gates(arrays, path, width, GRU_GATES, activation)
    if f"{path}hi/kernel" in arrays:
        renamed = {"f": "if_"} if f"{path}if_/kernel" in arrays else {}
        return _read_gates(arrays, path, width, LSTM_GATES, activation, **renamed)
    if f"{path}h/kernel" in arrays:
        return _read_gates(arrays, path, width, ELMAN_GATES, activation)
    names = ", ".join(arrays.names()[:8]) or "nothing"
    raise ValueError(
        f"{arrays.source}: expected a GRUCell, LSTMCell or SimpleCell at {path or 'the top'!r}, got {names}"
    )


def _activation(layout: GateLayout, activation: str | None) -> str:
    """Returns the module's activation, which is required if the cell has a choice."""
    if layout is ELMAN_GATES and activation is None:
        raise ValueError(
            "module: expected the module of a SimpleCell, whose parameters do not tell tanh or relu, got None"
        )
    return activation or "tanh"


def _read_gates(
    arrays: NamedArrays, path: str, width: int | str, layout: GateLayout, activation: str | None, **renamed: str
) -> tuple[Cell, Params]:
    """Reads a cell with a kernel for each gate of inputs and of the state, and one bias for each gate."""
    gates = GATES[layout]
    H = arrays.take(f"{path}h{gates[0]}/kernel", ("H", "H")).shape[0]
    U = [arrays.take(f"{path}h{gate}/kernel", (H, H)) for gate in gates]
    W: list[np.ndarray] = []
    for gate in gates:
        W.append(arrays.take(f"{path}{renamed.get(gate, f'i{gate}')}/kernel", (width, H)))
        width = len(W[0])
    b = [arrays.take(f"{path}{BIASED[layout]}{gate}/bias", (H,)) for gate in gates]
    b_hn = arrays.take(f"{path}hn/bias", (H,)) if layout is GRU_GATES else None
    joined_W, joined_U, joined_b = (np.concatenate(arrays, axis=-1) for arrays in (W, U, b))
    return layout.read(Weights(joined_W, joined_U, joined_b, b_hn), _activation(layout, activation))


def _read_joined_gates(arrays: NamedArrays, path: str, width: int | str, activation: str | None) -> tuple[Cell, Params]:
    """Reads an nnx cell with concatenated gates and one bias, that of the inputs or of the state."""
    layout, U = take_recurrent_matrix(arrays, f"{path}dense_h/kernel", LAYOUTS)
    W = arrays.take(f"{path}dense_i/kernel", (width, U.shape[1]))
    b = arrays.take(f"{path}dense_{'h' if layout is LSTM_GATES else 'i'}/bias", U.shape[1:])
    b_hn = np.zeros_like(U[0, : U.shape[0]]) if layout is GRU_GATES else None
    return layout.read(Weights(W, U, b, b_hn), _activation(layout, activation))


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

    I, H, dtype = cell.infer_sizes(params)
    W, U, b, b_hn = layout_of(cell, LAYOUTS).write(params)
    if b_hn is not None and b_hn.any():
        raise ValueError(
            f"params.b_hn: expected zeros, since the GRUCell of nnx has no such bias, got up to {abs(b_hn).max()}"
        )
    kind = {GRU: nnx.GRUCell, LSTM: nnx.OptimizedLSTMCell, Elman: nnx.SimpleCell}[type(cell)]
    options: dict[str, Any] = {"activation_fn": ACTIVATIONS[cell.activation]} if isinstance(cell, Elman) else {}
    return kind(
        I,
        H,
        **options,
        kernel_init=lambda *_: jnp.asarray(W),
        recurrent_kernel_init=lambda *_: jnp.asarray(U),
        bias_init=lambda *_: jnp.asarray(b),
        dtype=dtype,
        param_dtype=dtype,
        rngs=nnx.Rngs(0),
    )


def _linen_modules(name: str, module: Any) -> list[tuple[str, Any]]:
    """Returns a linen module and its submodules by name."""
    inside, attributes = [(name, module)], vars(module)
    for key in ("cell", *DIRECTIONS):
        if key in attributes:
            inside += _linen_modules(f"{name}.{key}", attributes[key])
    for number, layer in enumerate(attributes.get("layers", ())):
        inside += _linen_modules(f"{name}.layers[{number}]", layer)
    return inside


def _check_cells(modules: list[tuple[str, Any]], cell: Any, params: Params) -> None:
    """Raises ValueError unless a linen module has the cells that were read from parameters."""
    from flax import linen

    kinds = {GRU: linen.GRUCell, LSTM: (linen.LSTMCell, linen.OptimizedLSTMCell), Elman: linen.SimpleCell}
    layers = split_layers(cell, params)
    sizes = [layers.cell.infer_sizes(direction)[1] for layer in layers.params for direction in layer]
    cells = [(name, module) for name, module in modules if "features" in vars(module)]
    if len(modules) == 1:  # A cell that is in no `RNN` stands for all cells.
        cells *= len(sizes)
    if len(cells) != len(sizes):
        raise ValueError(f"module: expected {len(sizes)} cells, as in params, got {len(cells)}")
    kind = type(layers.cell)
    for (name, module), H in zip(cells, sizes, strict=True):
        if not isinstance(module, kinds[kind]) or module.features != H:
            expected, got = f"{kind.__name__} of {H} features", f"{type(module).__name__} of {module.features}"
            raise ValueError(f"{name}: expected {expected}, as in params, got {got}")


def _check_unshared(name: str, module: Any, known: dict[int, str]) -> None:
    """Raises ValueError if an nnx module is used twice: its state has the parameters once, under one path."""
    if id(module) in known:
        raise ValueError(f"{name}: expected a module of its own, got that of {known[id(module)]}")
    known[id(module)] = name
    for key in ("cell", *DIRECTIONS):
        if hasattr(module, key):
            _check_unshared(f"{name}.{key}", getattr(module, key), known)
    for number, layer in enumerate(getattr(module, "layers", ())):
        _check_unshared(f"{name}.layers[{number}]", layer, known)


def _check_modules(modules: Iterable[tuple[str, Any]], merge: str) -> str | None:
    """Checks activations and merges by calling them on numbers; returns the activation of simple cells."""
    found: dict[str, str] = {}
    for name, module in modules:
        _check_module(name, module, merge)
        if type(module).__name__ == "SimpleCell":
            same = [key for key, activation in ACTIVATIONS.items() if _agree(module.activation_fn, activation)]
            if not same:
                raise ValueError(f"{name}.activation_fn: expected tanh or relu, got another function")
            found.setdefault(same[0], name)
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise ValueError(f"{second}.activation_fn: expected {one}, as in {first}, got {other}")
    return next(iter(found), None)


def _agree(function: Any, expected: Any, count: int = 1) -> bool:
    """Returns whether two functions agree on some numbers, up to rounding."""
    x = jnp.array([-12.0, -3.1, -1.5, -0.2, 0.0, 0.5, 2.0, 2.9, 7.0])
    given = (x, -3 * x)[:count]
    try:
        outputs = function(*given)
        is_pair = isinstance(outputs, tuple) and count == 2  # Both outputs, which "concat" has side by side.
        got = jnp.concatenate(outputs, axis=-1) if is_pair else jnp.asarray(outputs)
    except Exception:  # A user's function can raise any class.
        return False
    result = expected(*given)
    return got.shape == result.shape and bool(jnp.allclose(got, result, rtol=1e-6, atol=1e-6))


def _check_module(name: str, module: Any, merge: str) -> None:
    from flax import linen, nnx

    attributes, simple = vars(module), type(module).__name__ == "SimpleCell"
    checked = [("gate_fn", "sigmoid", jax.nn.sigmoid)] + ([] if simple else [("activation_fn", "tanh", jnp.tanh)])
    for function, expected, ours in checked:
        if function in attributes and not _agree(attributes[function], ours):
            raise ValueError(f"{name}.{function}: expected {expected}, got another function")
    if "merge_fn" in attributes and not _agree(attributes["merge_fn"], MERGES[merge], 2):
        raise ValueError(f'{name}.merge_fn: expected a function for merge="{merge}", got another one')
    for number, layer in enumerate(attributes.get("layers", ())):
        if not isinstance(layer, (nnx.RNN, nnx.Bidirectional, linen.RNN, linen.Bidirectional)):
            got = type(layer).__name__
            raise ValueError(f"{name}.layers[{number}]: expected an RNN or a Bidirectional, got {got}")
    for flag in ("residual", "reverse"):
        if attributes.get(flag, False) is not False:
            raise ValueError(f"{name}.{flag}: expected False, got {attributes[flag]}")
