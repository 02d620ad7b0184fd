"""Exports weights as safetensors files, and programs with `jax.export` for processes that have only JAX.

A weights file has the fields of the parameters as arrays, `W`, `U`, `b`, ..., or `0.forward.W`, `0.backward.W`,
`1.forward.W`, ... for a `Stack`. Its metadata has the cell as JSON under `gru_jax`. Loading it runs no code.

A program has the parameters and the computation, for any batch size and number of steps. Its states are plain tuples:
`h`, or `(h, c)` for an LSTM, and a tuple of layers of tuples of directions for a `Stack`. Reading and writing programs
needs flatbuffers.
"""

import dataclasses
import importlib
import json
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.unroll import unroll
from gru_jax.cells import Network, step
from gru_jax.cells.base import check_cell
from gru_jax.interop._arrays import (
    NamedArrays,
    name_other_shards,
    prefix_errors,
    read_safetensors,
    require_package,
    write_atomically,
)
from gru_jax.interop.onnx import PeepholeLSTM, PeepholeLSTMParams
from gru_jax.interop.torch import from_state_dict

__all__ = ["load_weights", "save_program", "save_weights", "step_program", "unroll_program"]

KINDS: dict[str, Any] = {kind.__name__: kind for kind in (*cells.CELLS.values(), PeepholeLSTM, Stack)}
PARAMS = {kind: vars(cells)[f"{kind.__name__}Params"] for kind in cells.CELLS.values()}
PARAMS |= {PeepholeLSTM: PeepholeLSTMParams}
DIRECTIONS = ("forward", "backward")
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def save_weights(path: str | os.PathLike[str], cell: Any, params: Params) -> None:
    """Writes a cell and its parameters to a safetensors file.

    Initializers that are functions are not stored: the loaded cell has the default ones.

    Args:
      path: the file, written atomically.
      cell: a cell of `gru_jax`, or a `Stack` of it.
      params: its parameters.

    Raises:
      ValueError, TypeError: another cell, or parameters that do not match it or are traced.

    Example:
      >>> save_weights("gru.safetensors", cell, params)
      >>> cell, params = load_weights("gru.safetensors")
    """
    with require_package("safetensors", "to write weights"):
        from safetensors.numpy import save

    description = _describe(cell)
    cell.infer_sizes(params)
    arguments.concrete("params", params)
    arrays = {}
    for prefix, part in _named(cell, params):
        arrays |= {prefix + name: np.ascontiguousarray(a) for name, a in part._asdict().items() if a is not None}
    # Hyperparameters may be NumPy scalars, which JSON does not know.
    metadata = {"gru_jax": json.dumps(description, default=lambda number: number.item())}
    with write_atomically(path) as temporary:
        temporary.write_bytes(save(arrays, metadata))


def load_weights(
    path: str | os.PathLike[str], *, prefix: str = "", nonlinearity: str | None = None
) -> tuple[Any, Params]:
    """Reads a file of `save_weights`, or a safetensors file of a PyTorch state dict.

    Args:
      path: the file.
      prefix: for a PyTorch state dict; see `gru_jax.interop.torch.from_state_dict`.
      nonlinearity: for a PyTorch state dict; see `gru_jax.interop.torch.from_state_dict`.

    Returns:
      The cell and its parameters.

    Raises:
      ValueError, TypeError: the file is damaged or of another kind, or an array does not match.
    """
    with prefix_errors(path), name_other_shards(path):
        arrays, metadata = read_safetensors(path)
        if "gru_jax" not in metadata:
            return from_state_dict(arrays, prefix=prefix, nonlinearity=nonlinearity)
        for name, value in (("prefix", prefix), ("nonlinearity", nonlinearity)):
            if value:
                raise ValueError(f"{name}: expected none for a file of save_weights, got {value!r}")
        cell = _cell_from(metadata["gru_jax"])
        named = NamedArrays("arrays", arrays)
        if isinstance(cell, Stack):
            directions = DIRECTIONS[: cell.directions]
            params = tuple(
                tuple(_take(named, f"{number}.{direction}.", cell.cell) for direction in directions)
                for number in range(cell.num_layers)
            )
        else:
            params = _take(named, "", cell)
        named.check_all_taken()
        cell.infer_sizes(params)
    return cell, params


def unroll_program(
    cell: Any,
    params: Params,
    *,
    lengths: bool = False,
    h0: bool = False,
    zoneout: Any = None,
    reverse: bool = False,
    time_major: bool = False,
    matmul_dtype: DType | None = None,
    platforms: Sequence[str] | None = None,
) -> export.Exported:
    """Exports `gru_jax.unroll` as a program `xs (B, T, I) -> ys (B, T, H), h_last` for any B and T from 1 up.

    Args:
      cell: a cell or a `Stack`.
      params: its parameters, which become part of the program.
      lengths: whether the program has an argument lengths (B,) int32 after xs.
      h0: whether the last argument of the program is the initial state. If False, it is zeros.
      zoneout: the rate that the cell was trained with, whose expectation is used; see `gru_jax.unroll`.
      reverse: whether to run from the last step to the first.
      time_major: whether xs and ys are (T, B, ...) rather than (B, T, ...).
      matmul_dtype: see `gru_jax.unroll`.
      platforms: the platforms of the program, e.g. ("cpu", "cuda", "tpu"). If None, the platform of this process.

    Returns:
      A `jax.export.Exported`; `save_program` writes it.

    Example:
      >>> save_program("gru.jax", unroll_program(cell, params))
      >>> # In a process that has only jax and flatbuffers:
      >>> ys, h_last = jax.export.deserialize(pathlib.Path("gru.jax").read_bytes()).call(xs)
    """
    input_size, hidden_size, dtype = _sizes(cell, params)
    _check_platforms(platforms)
    for name, value in (("lengths", lengths), ("h0", h0)):
        arguments.boolean(name, value)
    B, T = export.symbolic_shape("B, T")
    given = [jax.ShapeDtypeStruct((T, B, input_size) if time_major else (B, T, input_size), dtype)]
    given += [jax.ShapeDtypeStruct((B,), jnp.int32)] if lengths else []
    given += [_plain(_zero_state(cell, hidden_size, B, dtype))] if h0 else []

    def run(xs: Array, *rest: Any) -> tuple[Array, Any]:
        state = _shaped(cell, hidden_size, rest[-1]) if h0 else None
        ys, h_last = unroll(
            cell,
            params,
            xs,
            state,
            lengths=rest[0] if lengths else None,
            zoneout=zoneout,
            reverse=reverse,
            time_major=time_major,
            backend="scan",
            matmul_dtype=matmul_dtype,
        )
        return ys, _plain(h_last)

    return export.export(jax.jit(run), platforms=platforms)(*given)


def step_program(
    cell: Any,
    params: Params,
    *,
    zoneout: Any = None,
    matmul_dtype: DType | None = None,
    platforms: Sequence[str] | None = None,
) -> export.Exported:
    """Exports `gru_jax.step` as a program `state, x (B, I) -> state, y (B, H)` for any B from 1 up, for streaming.

    Args:
      cell: a cell, or a unidirectional `Stack`.
      params: its parameters, which become part of the program.
      zoneout: the rate that the cell was trained with, whose expectation is used; see `gru_jax.unroll`.
      matmul_dtype: see `gru_jax.unroll`.
      platforms: the platforms of the program, e.g. ("cpu", "cuda", "tpu"). If None, the platform of this process.

    Returns:
      A `jax.export.Exported`; `save_program` writes it.

    Raises:
      ValueError: the `Stack` is bidirectional.

    Example:
      >>> program = step_program(cell, params)
      >>> h, y = program.call(jnp.zeros((B, H)), x)
    """
    input_size, hidden_size, dtype = _sizes(cell, params)
    _check_platforms(platforms)
    (B,) = export.symbolic_shape("B")

    def run(state: Any, x: Array) -> tuple[Any, Array]:
        state = _shaped(cell, hidden_size, state)
        y, state = step(cell, params, state, x, zoneout=zoneout, matmul_dtype=matmul_dtype)
        return _plain(state), y

    state = _plain(_zero_state(cell, hidden_size, B, dtype))
    return export.export(jax.jit(run), platforms=platforms)(state, jax.ShapeDtypeStruct((B, input_size), dtype))


def _sizes(cell: Any, params: Params) -> tuple[int, int, Any]:
    check_cell("cell", cell, Network)
    sizes = cell.infer_sizes(params)
    arguments.concrete("params", params)
    return sizes


def _check_platforms(platforms: Sequence[str] | None) -> None:
    """Raises unless `platforms` is None or names that a program can have, each once."""
    if platforms is None:
        return
    if isinstance(platforms, str) or not isinstance(platforms, Sequence):
        raise TypeError(f"platforms: expected a sequence of {', '.join(PLATFORMS)}, got {platforms!r}")
    for name in platforms:
        arguments.one_of("platforms", name, PLATFORMS)
    if not platforms or len(set(platforms)) < len(platforms):
        raise ValueError(f"platforms: expected one or more of {', '.join(PLATFORMS)}, each once, got {platforms!r}")


def save_program(path: str | os.PathLike[str], program: export.Exported) -> None:
    """Writes a program to a file atomically. `jax.export.deserialize` reads its bytes."""
    arguments.instance("program", program, (export.Exported,), "a jax.export.Exported")
    with write_atomically(path) as temporary:
        with require_package("flatbuffers", "to write programs"):
            importlib.import_module("flatbuffers")  # Used by jax.export.

        temporary.write_bytes(program.serialize())


def _describe(cell: Any) -> dict[str, Any]:
    """Returns a cell as a dict for JSON, without initializers that are functions."""
    if type(cell) not in KINDS.values():
        raise TypeError(f"cell: expected one of {', '.join(KINDS)}, got {cell!r}")
    fields = {field.name: vars(cell)[field.name] for field in dataclasses.fields(cell)}
    fields = {name: value for name, value in fields.items() if name == "cell" or not callable(value)}
    if isinstance(cell, Stack):
        fields["cell"] = _describe(cell.cell)
    return {"kind": type(cell).__name__, **fields}


def _cell_from(text: str) -> Any:
    try:
        return _cell_of(json.loads(text))
    except (json.JSONDecodeError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata: gru_jax: expected a cell as JSON, got {text[:80]!r}: {error}") from None


def _cell_of(description: Any) -> Any:
    if not isinstance(description, dict) or description.get("kind") not in KINDS:
        raise ValueError(f"expected an object whose kind is one of {', '.join(KINDS)}")
    fields = {name: value for name, value in description.items() if name != "kind"}
    if description["kind"] == "Stack":
        fields["cell"] = _cell_of(fields.get("cell"))
    return KINDS[description["kind"]](**fields)


def _named(cell: Any, params: Params) -> list[tuple[str, Any]]:
    if not isinstance(cell, Stack):
        return [("", params)]
    return [
        (f"{number}.{direction}.", part)
        for number, layer in enumerate(params)
        for direction, part in zip(DIRECTIONS, layer, strict=False)
    ]


def _take(arrays: NamedArrays, prefix: str, cell: Any) -> Any:
    kind = PARAMS[type(cell)]
    names = [name for name in kind._fields if name not in kind._field_defaults or prefix + name in arrays]
    return kind(**{name: jnp.asarray(arrays.take(prefix + name)) for name in names})


def _zero_state(cell: Any, hidden_size: int, batch: Any, dtype: Any) -> State:
    return jax.eval_shape(lambda: cell.initial_state(hidden_size, (batch,), dtype))


def _plain(state: State) -> Any:
    """Converts a state to plain tuples, which a process can read without gru_jax."""
    return tuple(map(_plain, state)) if isinstance(state, tuple) else state


def _shaped(cell: Any, hidden_size: int, state: Any) -> State:
    """Converts plain tuples to the state of a cell; the inverse of `_plain`."""
    structure = jax.tree.structure(cell.initial_state(hidden_size))
    return jax.tree.unflatten(structure, jax.tree.leaves(state))
