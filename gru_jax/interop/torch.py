"""PyTorch: `torch.nn.GRU`, `LSTM`, `RNN` and their cells, as modules, state dicts, `.pt` and `.safetensors` files.

Gates lie `[r | z | n]` and `[i | f | g | o]` along the first axis; z weighs the old state, hence the sign. A bias is
kept in two parts, `bias_ih` and `bias_hh`: added on the way in; on the way out `bias_hh` holds `b_hn` alone.
Weights under `weight_norm` or `prune` are put together, each number rounded once.
"""

import os
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gru_jax._stack import Stack
from gru_jax._types import Params
from gru_jax.cells import Cell
from gru_jax.interop._arrays import Leaves, flatten, in_short, naming
from gru_jax.interop._gate_layout import GateLayout, Weights, layout_of, take_recurrent
from gru_jax.interop.files import read_safetensors, written_whole
from gru_jax.interop.network import put_together, require, required_activation, take_apart
from gru_jax.interop.packages import needing
from gru_jax.interop.torch_names import prefix_hint, put_whole

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
WRAPPERS = ("OptimizedModule", "DataParallel", "DistributedDataParallel")
"""What `torch.compile` and its like make of a module, which is their only child."""
ELMAN_GATES = GateLayout("h", transposed=True)
LAYOUTS = (
    GateLayout("rzn", negated="z", transposed=True),
    GateLayout("ifgo", transposed=True),
    ELMAN_GATES,
)


def from_module(module: Any) -> tuple[Any, Params]:
    """Reads a recurrent layer or cell, which says all that its state dict does not.

    Args:
      module: a `torch.nn.GRU`, `LSTM`, `RNN` or a cell of these, as `torch.compile` and `DataParallel` wrap it too.

    Returns:
      A cell, or a `Stack` where there are several layers or directions, with the module's dropout; its parameters.

    Raises:
      ValueError, TypeError: for another module, or what no cell here has; the line names it.

    Example:
      >>> stack, params = from_module(torch.nn.RNN(64, 128, num_layers=2, nonlinearity="relu"))
    """
    with needing("torch", "to read a module"):
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
    """Reads the weights of a recurrent layer or cell, which follows from the number of gates.

    Args:
      state_dict: names to tensors or NumPy arrays: `weight_ih_l0 (G H, I)`, `weight_hh_l0 (G H, H)`, `bias_ih_l0` and
        `bias_hh_l0 (G H,)` unless bias=False, `..._l1`, `..._reverse`; a cell's names have no `_l0`.
      prefix: takes only names that begin with it, e.g. "encoder.rnn." out of a whole model.
      nonlinearity: "tanh" or "relu", that of a `torch.nn.RNN`: its state dict does not say. None for other layers.

    Returns:
      A cell, or a `Stack` where there are several layers or directions, and its parameters.

    Raises:
      ValueError, TypeError: where an array is missing, too many, or does not fit; the line names it.

    Example:
      >>> layer = torch.nn.GRU(64, 128, num_layers=2, batch_first=True)
      >>> stack, params = from_state_dict(layer.state_dict())
      >>> ys, h_last = gru_jax.unroll(stack, params, xs)
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict: expected a mapping from names to arrays, got {type(state_dict).__name__}")
    source, arrays = "state_dict", {str(name): value for name, value in state_dict.items()}
    if prefix:
        source = f"state_dict[{prefix!r}...]"
        inside = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        if not inside:
            known = f"; {hint}" if (hint := prefix_hint(arrays)) else ""
            raise ValueError(f"prefix: expected the beginning of some name in the state dict, got {prefix!r}{known}")
        arrays = inside
    if hint := prefix_hint(arrays, prefix):
        raise ValueError(f"{source}: expected the names of one recurrent layer, got those of a larger model; {hint}")
    leaves = Leaves(source, put_whole(source, arrays))
    if "weight_hh" in leaves:
        layers = [[_read(leaves, "", "I", nonlinearity)]]
    else:
        directions = ("", "_reverse") if "weight_hh_l0_reverse" in leaves else ("",)
        numbers = [number for number in range(len(leaves.names())) if f"weight_hh_l{number}" in leaves]
        layers, width = [], "I"
        for number in range(max(numbers, default=0) + 1):
            suffixes = [f"_l{number}{direction}" for direction in directions]
            layers.append([_read(leaves, suffix, width, nonlinearity) for suffix in suffixes])
            width = len(directions) * layers[0][0][1].U.shape[0]
    leaves.finish()
    return put_together(layers)


def to_state_dict(cell: Any, params: Params, *, prefix: str = "") -> dict[str, np.ndarray]:
    """Writes weights under PyTorch's names.

    Args:
      cell: a GRU with reset="after", an LSTM, an Elman, or a Stack of them that concatenates its directions.
      params: its parameters.
      prefix: what every name begins with.

    Returns:
      Names to NumPy arrays, those of a `torch.nn.GRU`, `LSTM` or `RNN`, whose `nonlinearity` is the Elman's activation.

    Raises:
      ValueError, TypeError: for what PyTorch does not have, reset="before" among it.

    Example:
      >>> state_dict = to_state_dict(stack, params)
      >>> layer.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict.items()})
      <All keys matched successfully>
    """
    parts = take_apart(cell, params)
    require("PyTorch", parts, reset="after", merge="concat")
    layout = layout_of(parts.cell, LAYOUTS)
    state_dict = {}
    for number, layer in enumerate(parts.layers):
        for direction, weights in zip(("", "_reverse"), map(layout.write, layer), strict=False):
            suffix = f"_l{number}{direction}"
            names = (f"{prefix}{kind}{suffix}" for kind in KINDS)
            state_dict.update(zip(names, (weights.W, weights.U, *layout.split(weights)), strict=True))
    return state_dict


def from_file(path: str | os.PathLike, *, prefix: str = "", nonlinearity: str | None = None) -> tuple[Any, Params]:
    """Reads a state dict that `torch.save` wrote, with `weights_only=True`: a file can hold weights, but no code.

    Args:
      path: the file; one that ends in .safetensors is read as such, and needs no PyTorch.
      prefix: see `from_state_dict`; "model.rnn." also finds `rnn` of a state dict that lies in a checkpoint as `model`.
      nonlinearity: see `from_state_dict`.

    Returns:
      A cell, or a `Stack` where there are several layers or directions, and its parameters.

    Raises:
      ValueError: where the file is none or its contents do not fit; the line names the file.
    """
    if Path(path).suffix == ".safetensors":
        with naming(path):
            arrays, _ = read_safetensors(path)
            return from_state_dict(arrays, prefix=prefix, nonlinearity=nonlinearity)
    with needing("torch", "to read .pt files"):
        import torch

    with naming(path):
        with Path(path).open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's advice about files that it refuses in the next line.
            try:
                state_dict = torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # PyTorch raises whatever the damage leads to.
                raise ValueError(f"expected a file of weights alone from torch.save, got {_refusal(error)}") from None
        arrays = flatten(state_dict, ".") if isinstance(state_dict, Mapping) else state_dict
        return from_state_dict(arrays, prefix=prefix, nonlinearity=nonlinearity)


def to_file(path: str | os.PathLike, cell: Any, params: Params, *, prefix: str = "") -> None:
    """Writes `to_state_dict` with `torch.save`."""
    with needing("torch", "to write .pt files"):
        import torch

    arrays = to_state_dict(cell, params, prefix=prefix)
    with written_whole(path) as temporary:
        torch.save({name: _tensor(array) for name, array in arrays.items()}, temporary)


def _tensor(array: np.ndarray) -> Any:
    import torch

    if array.dtype == jnp.bfloat16:  # NumPy's is not PyTorch's: only the bits are the same.
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _refusal(error: Exception) -> str:
    """What PyTorch has against a file; of a pickle the line that says what it would run, not how to let it."""
    if isinstance(error, pickle.UnpicklingError):
        text = str(error).partition("WeightsUnpickler error:")[2] or str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reasons = [line for line in lines if "unsupported" in line.lower()] or lines or ["nothing is said of it"]
        return f"a pickle of something else: {reasons[0].partition('. ')[0]}: in PyTorch save a state_dict()"
    return in_short(error)


def _read(leaves: Leaves, suffix: str, width: int | str, nonlinearity: str | None) -> tuple[Cell, Params]:
    weight_ih, weight_hh, bias_ih, bias_hh = (f"{kind}{suffix}" for kind in KINDS)
    if f"weight_hr{suffix}" in leaves:
        raise ValueError(f"{leaves.source}: weight_hr{suffix}: expected an LSTM without projections, got proj_size > 0")
    layout, U = take_recurrent(leaves, weight_hh, LAYOUTS)
    if layout is ELMAN_GATES:
        nonlinearity = required_activation("nonlinearity", nonlinearity, "the state dict of a torch.nn.RNN")
    elif nonlinearity is not None:
        raise ValueError(f"nonlinearity: expected None for a {layout.cell.__name__}, got {nonlinearity!r}")
    W = leaves.take(weight_ih, (U.shape[0], width))
    if bias_ih in leaves or bias_hh in leaves:
        biases = leaves.take(bias_ih, U.shape[:1]), leaves.take(bias_hh, U.shape[:1])
    else:
        biases = np.zeros_like(U[:, 0]), np.zeros_like(U[:, 0])
    return layout.read(Weights(W, U, *layout.merge(*biases, reset="after")), nonlinearity or "tanh")
