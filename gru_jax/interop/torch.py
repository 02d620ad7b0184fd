"""PyTorch: `torch.nn.GRU`, `LSTM`, `RNN` and their cells, as modules, state dicts, `.pt` and `.safetensors` files.

Gates are `[r | z | n]` and `[i | f | g | o]` along the first axis. z weights the old state, so its sign changes. The
biases `bias_ih` and `bias_hh` are added on reading; on writing `bias_hh` has b_hn and else zeros. Weights under
`weight_norm` or `prune` are computed from their parts, in float64 and rounded once:

    weight = g v / |v|      `weight_g`, `weight_v`; `parametrizations.weight.original0`, `.original1` (weight_norm)
    weight = orig * mask    `weight_orig`, `weight_mask` (prune)

Reference: Salimans and Kingma, "Weight Normalization", 2016.
"""

import os
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._stack import Stack
from gru_jax._types import Params
from gru_jax.cells import Cell
from gru_jax.interop._arrays import (
    NamedArrays,
    as_numpy,
    flatten,
    name_other_shards,
    prefix_errors,
    read_safetensors,
    require_package,
    summarize_error,
    write_atomically,
)
from gru_jax.interop._gate_layout import (
    GateLayout,
    Weights,
    check_activation,
    check_supported,
    join_layers,
    layout_of,
    split_layers,
    take_recurrent_matrix,
)

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
WRAPPERS = ("OptimizedModule", "DataParallel", "DistributedDataParallel")
"""Modules around a module, their only child: `torch.compile`, `DataParallel`, `DistributedDataParallel`."""
MAX_LISTED_PREFIXES = 4
"""How many prefixes an error lists."""
PART = re.compile(
    r"(?P<path>.*?)(?:(?P<old>(?:weight|bias)_[ih]h\w*?)_(?P<kind>g|v|u|orig|mask)"
    r"|parametrizations\.(?P<new>(?:weight|bias)_[ih]h\w*)\.(?P<number>original[01]?|\d+\..*))$"
)
"""A name of a part of a weight."""
RECURRENT = re.compile(r"(.*?)(?:parametrizations\.)?weight_hh(?:_l0)?(?:_v|_orig|\.original[01]?)?$")
"""A name of the recurrent matrix of a first layer, or of a part of it."""

ELMAN_GATES = GateLayout("h", transposed=True)
LAYOUTS = (
    GateLayout("rzn", negated="z", transposed=True),
    GateLayout("ifgo", transposed=True),
    ELMAN_GATES,
)


def from_module(module: Any) -> tuple[Any, Params]:
    """Reads a recurrent layer or cell, with what its state dict does not tell: nonlinearity and dropout.

    Args:
      module: a `torch.nn.GRU`, `LSTM`, `RNN` or a cell of these; `torch.compile` and `DataParallel` around it are
        removed.

    Returns:
      A cell, or a `Stack` with the module's dropout if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: another module, or an option that no cell here has.

    Example:
      >>> stack, params = from_module(torch.nn.RNN(64, 128, num_layers=2, nonlinearity="relu"))
    """
    with require_package("torch", "to read a module"):
        import torch

    while type(module).__name__ in WRAPPERS:
        (module,) = module.children()
    if not isinstance(module, (torch.nn.RNNBase, torch.nn.RNNCellBase)):
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        raise TypeError(f"module: expected a torch.nn.GRU, LSTM, RNN or a cell of these, got {kind}")
    is_elman = isinstance(module, (torch.nn.RNN, torch.nn.RNNCell))
    cell, params = from_state_dict(module.state_dict(), nonlinearity=module.nonlinearity if is_elman else None)
    if isinstance(cell, Stack):
        cell = replace(cell, dropout=module.dropout)
    return cell, params


def from_state_dict(
    state_dict: Mapping[str, Any], *, prefix: str = "", nonlinearity: str | None = None
) -> tuple[Any, Params]:
    """Reads the weights of a recurrent layer or cell. Its number of gates tells which.

    Args:
      state_dict: names to tensors or NumPy arrays: `weight_ih_l0 (G H, I)`, `weight_hh_l0 (G H, H)`, `bias_ih_l0` and
        `bias_hh_l0 (G H,)` unless bias=False, `..._l1`, `..._reverse`; a cell's names have no `_l0`.
      prefix: reads only names with this prefix, e.g. "encoder.rnn." of a larger model.
      nonlinearity: "tanh" or "relu" for a `torch.nn.RNN`, whose state dict does not tell; None for other layers.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: an array is missing, unknown, or of another shape or dtype.

    Example:
      >>> layer = torch.nn.GRU(64, 128, num_layers=2, batch_first=True)
      >>> stack, params = from_state_dict(layer.state_dict())
      >>> ys, h_last = gru_jax.unroll(stack, params, xs)
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected a mapping from names to arrays, got {type(state_dict).__name__}")
    arguments.instance("prefix", prefix, (str,), "a string")
    source, arrays = "state_dict", {str(name): value for name, value in state_dict.items()}
    if prefix:
        source = f"state_dict[{prefix!r}...]"
        inside = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        if not inside:
            hint = f"; {known}" if (known := _prefix_hint(arrays)) else ""
            raise ValueError(f"prefix: expected a prefix of a name in the state dict, got {prefix!r}{hint}")
        arrays = inside
    if hint := _prefix_hint(arrays, prefix):
        raise ValueError(f"{source}: expected the names of one recurrent layer, got those of a larger model; {hint}")
    named = NamedArrays(source, _join_parts(source, arrays))
    if "weight_hh" in named:
        layers = [[_read(named, "", "I", nonlinearity)]]
    else:
        directions = ("", "_reverse") if "weight_hh_l0_reverse" in named else ("",)
        numbers = [number for number in range(len(named.names())) if f"weight_hh_l{number}" in named]
        layers, width = [], "I"
        for number in range(max(numbers, default=0) + 1):
            suffixes = [f"_l{number}{direction}" for direction in directions]
            layers.append([_read(named, suffix, width, nonlinearity) for suffix in suffixes])
            width = len(directions) * layers[0][0][1].U.shape[0]
    named.check_all_taken()
    return join_layers(layers)


def to_state_dict(cell: Any, params: Params, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Writes weights under PyTorch's names.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a Stack of them that concatenates its directions.
      params: its parameters.
      prefix: put before every name.

    Returns:
      Names to NumPy arrays for a `torch.nn.GRU`, `LSTM`, or `RNN` with the activation as its `nonlinearity`. They have
      the dtype of the parameters; `torch.from_numpy` does not read bfloat16, so cast those to float32 first.

    Raises:
      ValueError, TypeError: PyTorch does not have the cell, its reset ("before"), or the merge.

    Example:
      >>> state_dict = to_state_dict(stack, params)
      >>> layer.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.items()})
      <All keys matched successfully>
    """
    arguments.instance("prefix", prefix, (str,), "a string")
    layers = split_layers(cell, params)
    check_supported("PyTorch", layers, reset="after", merge="concat")
    layout = layout_of(layers.cell, LAYOUTS)
    state_dict = {}
    for number, layer in enumerate(layers.params):
        for direction, weights in zip(("", "_reverse"), map(layout.write, layer), strict=False):
            suffix = f"_l{number}{direction}"
            names = (f"{prefix}{kind}{suffix}" for kind in KINDS)
            state_dict.update(zip(names, (weights.W, weights.U, *layout.split_bias(weights)), strict=True))
    return state_dict


def from_file(path: str | os.PathLike[str], *, prefix: str = "", nonlinearity: str | None = None) -> tuple[Any, Params]:
    """Reads a state dict from a file. `torch.load(weights_only=True)` runs no code in it.

    Args:
      path: a file of `torch.save`, or a `.safetensors` file, which is read without PyTorch. Of a checkpoint in shards
        give the shard that has the layer.
      prefix: see `from_state_dict`; "model.rnn." also reads `rnn` of the state dict `model` in a checkpoint.
      nonlinearity: see `from_state_dict`.

    Returns:
      A cell, or a `Stack` if there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: the file is damaged, has something else than weights, or an array does not match.
    """
    if Path(path).suffix == ".safetensors":
        with prefix_errors(path), name_other_shards(path):
            arrays, _ = read_safetensors(path)
            return from_state_dict(arrays, prefix=prefix, nonlinearity=nonlinearity)
    with require_package("torch", "to read .pt files"):
        import torch

    with prefix_errors(path):
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About files that are refused below.
            try:
                state_dict = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # A damaged file can raise any class.
                raise ValueError(
                    f"expected a file of weights alone from torch.save, got {_load_error(error)}"
                ) from None
        arrays = flatten(state_dict, ".") if isinstance(state_dict, Mapping) else state_dict
        return from_state_dict(arrays, prefix=prefix, nonlinearity=nonlinearity)


def to_file(path: str | os.PathLike[str], cell: Any, params: Params, *, prefix: str = "") -> None:
    """Writes `to_state_dict` with `torch.save`."""
    with require_package("torch", "to write .pt files"):
        import torch

    arrays = to_state_dict(cell, params, prefix=prefix)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        torch.save({name: _tensor(array) for name, array in arrays.items()}, file)


def _tensor(array: np.ndarray) -> Any:
    import torch

    if array.dtype == jnp.bfloat16:  # PyTorch does not know ml_dtypes.bfloat16; the bits are the same.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _load_error(error: Exception) -> str:
    """Describes why `torch.load` refused a file, without PyTorch's advice to load pickles that run code."""
    if isinstance(error, pickle.UnpicklingError):
        text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if "unsupported" in line.lower()] or lines or ["no reason is given"]
        return f"a pickle of something else: {reasons[0].partition('. ')[0]}: in PyTorch save a state_dict()"
    return summarize_error(error)


def _read(arrays: NamedArrays, suffix: str, width: int | str, nonlinearity: str | None) -> tuple[Cell, Params]:
    weight_ih, weight_hh, bias_ih, bias_hh = (f"{kind}{suffix}" for kind in KINDS)
    if f"weight_hr{suffix}" in arrays:
        raise ValueError(f"{arrays.source}: weight_hr{suffix}: expected an LSTM without projections, got proj_size > 0")
    layout, U = take_recurrent_matrix(arrays, weight_hh, LAYOUTS)
    if layout is ELMAN_GATES:
        nonlinearity = check_activation("nonlinearity", nonlinearity, "the state dict of a torch.nn.RNN")
    elif nonlinearity is not None:
        raise ValueError(f"nonlinearity: expected None for a {layout.cell.__name__}, got {nonlinearity!r}")
    W = arrays.take(weight_ih, (U.shape[0], width))
    if bias_ih in arrays or bias_hh in arrays:
        biases = arrays.take(bias_ih, U.shape[:1]), arrays.take(bias_hh, U.shape[:1])
    else:
        biases = np.zeros_like(U[:, 0]), np.zeros_like(U[:, 0])
    return layout.read(Weights(W, U, *layout.add_biases(*biases, reset="after")), nonlinearity or "tanh")


def _prefix_hint(names: Iterable[str], prefix: str = "") -> str:
    """Lists the prefixes of recurrent layers below `prefix`, for an error; "" if a layer has no further prefix."""
    found = list(dict.fromkeys(match.group(1) for match in map(RECURRENT.match, names) if match))
    if not found or "" in found:
        return ""
    more = f", or one of {len(found) - MAX_LISTED_PREFIXES} more" if len(found) > MAX_LISTED_PREFIXES else ""
    return "choose " + " or ".join(f"prefix={prefix + name!r}" for name in found[:MAX_LISTED_PREFIXES]) + more


def _join_parts(source: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Computes weights that are stored as parts; other arrays are unchanged."""
    weights: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in state_dict.items():
        if name.startswith("_all_weight_values"):
            raise ValueError(
                f"{source}: {name}: expected weights, got a quantized layer: read the layer before quantization"
            )
        match = PART.match(name)
        if match is None:
            weights[name] = value
            continue
        weight = match["path"] + (match["old"] or match["new"])
        kind = match["kind"] or {"original0": "g", "original1": "v"}.get(match["number"], "original")
        parts.setdefault(weight, {})[kind] = as_numpy(f"{source}: {name}", value)
    for name, found in parts.items():
        if name in weights:
            raise ValueError(f"{source}: {name}: expected a weight or its parts, got both: {', '.join(sorted(found))}")
        if found.keys() == {"g", "v"}:
            weights[name] = _normalized(f"{source}: {name}", found["g"], found["v"])
        elif found.keys() == {"orig", "mask"}:
            _same_shape(f"{source}: {name}_mask", found["mask"], found["orig"])
            weights[name] = found["orig"] * found["mask"].astype(found["orig"].dtype)
        else:
            raise ValueError(
                f"{source}: {name}: expected a weight, or the parts of weight_norm or prune, got "
                f"{', '.join(sorted(found))}: in PyTorch remove the parametrization first"
            )
    return weights


def _normalized(name: str, g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns g v / |v|, with the norm over the axes where g has size 1."""
    fits = g.ndim == 0 or (g.ndim == v.ndim and all(a in (1, b) for a, b in zip(g.shape, v.shape, strict=True)))
    if not fits:
        raise ValueError(f"{name}: expected g and v of one weight, got shapes {g.shape} and {v.shape}")
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    wide = v.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # A row of zeros is NaN in PyTorch, too.
        return (wide * (g.astype(np.float64) / norm)).astype(v.dtype)


def _same_shape(name: str, array: np.ndarray, other: np.ndarray) -> None:
    if array.shape != other.shape:
        raise ValueError(f"{name}: expected shape {other.shape}, got {array.shape}")
