"""The names of a PyTorch state dict: where its recurrent layers lie, and weights that it keeps as parts.

    weight = g v / |v|      `weight_g`, `weight_v`; `parametrizations.weight.original0`, `.original1` (weight_norm)
    weight = orig mask      `weight_orig`, `weight_mask` (prune)

Reference: Salimans and Kingma, "Weight Normalization", 2016.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gru_jax.interop._arrays import as_numpy

SHOWN = 4
"""How many prefixes an error lists."""
PART = re.compile(
    r"(?P<path>.*?)(?:(?P<old>(?:weight|bias)_[ih]h\w*?)_(?P<kind>g|v|u|orig|mask)"
    r"|parametrizations\.(?P<new>(?:weight|bias)_[ih]h\w*)\.(?P<number>original[01]?|\d+\..*))$"
)
RECURRENT = re.compile(r"(.*?)(?:parametrizations\.)?weight_hh(?:_l0)?(?:_v|_orig|\.original[01]?)?$")


def prefix_hint(names: Iterable[str], prefix: str = "") -> str:
    """Says which prefixes recurrent layers have, those below `prefix` that is taken away; "" where one has none."""
    found = list(dict.fromkeys(match.group(1) for match in map(RECURRENT.match, names) if match))
    if not found or "" in found:
        return ""
    more = f", or one of {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "choose " + " or ".join(f"prefix={prefix + name!r}" for name in found[:SHOWN]) + more


def put_whole(source: str, state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """Puts weights that are kept as parts together, each number rounded once."""
    whole: dict[str, Any] = {}
    parts: dict[str, dict[str, Any]] = {}
    for name, value in state_dict.items():
        if name.startswith("_all_weight_values"):
            raise ValueError(
                f"{source}: {name}: expected weights, got a quantized layer: read it before it is quantized"
            )
        match = PART.match(name)
        if match is None:
            whole[name] = value
            continue
        weight = match["path"] + (match["old"] or match["new"])
        kind = match["kind"] or {"original0": "g", "original1": "v"}.get(match["number"], "original")
        parts.setdefault(weight, {})[kind] = as_numpy(f"{source}: {name}", value)
    for name, found in parts.items():
        if name in whole:
            raise ValueError(f"{source}: {name}: expected a weight or its parts, got both: {', '.join(sorted(found))}")
        if found.keys() == {"g", "v"}:
            whole[name] = _normalized(f"{source}: {name}", found["g"], found["v"])
        elif found.keys() == {"orig", "mask"}:
            _same_shape(f"{source}: {name}_mask", found["mask"], found["orig"])
            whole[name] = found["orig"] * found["mask"].astype(found["orig"].dtype)
        else:
            raise ValueError(
                f"{source}: {name}: expected a weight, or one that weight_norm or prune keeps as parts, got "
                f"{', '.join(sorted(found))}: in PyTorch remove the parametrization first"
            )
    return whole


def _normalized(name: str, g: np.ndarray, v: np.ndarray) -> np.ndarray:
    """g v / |v|, the norm over the axes along which g is one number."""
    fits = g.ndim == 0 or (g.ndim == v.ndim and all(a in (1, b) for a, b in zip(g.shape, v.shape, strict=True)))
    if not fits:
        raise ValueError(f"{name}: expected g and v of one weight, got shapes {g.shape} and {v.shape}")
    axes = tuple(axis for axis in range(v.ndim) if g.ndim == 0 or g.shape[axis] == 1)
    wide = v.astype(np.float64)
    norm = np.sqrt((wide * wide).sum(axes, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of zeros is NaN in PyTorch too
        return (wide * (g.astype(np.float64) / norm)).astype(v.dtype)


def _same_shape(name: str, array: np.ndarray, other: np.ndarray) -> None:
    if array.shape != other.shape:
        raise ValueError(f"{name}: expected shape {other.shape}, got {array.shape}")
