"""The devices that a run is spread over: one mesh, with the axes `data` and `model`.

Along `data` lie the rows of a batch; parameters are the same all along it. Along `model`, which has one device unless
asked for more, wide matrices are cut: their hidden or vocabulary dimension. Arrays are global: the same program serves
one process and several, each of which reads and holds what belongs on its own devices.

On a CPU there is one JAX device a core: a loop's elementwise work runs on one core of a device, so that two devices
with half the batch each are faster than one with all of it.
"""

import collections
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.schema import UserError

DATA, MODEL = "data", "model"
"""The mesh axes: over the one a batch's rows are spread, over the other wide matrices are cut."""

NARROWEST = 64
"""The least that a device gets of a dimension that is cut: narrower pieces are not worth the talk between devices."""


def request_cpu_devices(batch_size: int, count: int | None, model_parallel: int = 1) -> None:
    """Has JAX make CPU devices: `count`, else the most cores that divide the batch. For accelerators it does nothing.

    Must run before JAX starts its backend, so first thing in a program. See `make_mesh` for `model_parallel`.
    """
    if count is None:
        count = model_parallel * largest_divisor(batch_size, max(1, available_cores() // model_parallel))
    jax.config.update("jax_num_cpu_devices", min(count, batch_size * model_parallel))  # `make_mesh` refuses more


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


def make_mesh(batch_size: int, count: int | None = None, model_parallel: int = 1, accumulate: int = 1) -> Mesh:
    """Lays devices out, of each process the same number.

    Args:
      batch_size: rows of a training batch, those of all processes together.
      count: devices of each process; None for as many of those present as divide the batch.
      model_parallel: over how many devices wide matrices are cut; it divides `count`.
      accumulate: in how many parts, one after the other, a batch is read.

    Raises:
      UserError: fewer devices than asked for, or a number that does not divide the batch.
    """
    of_process: dict[int, list[Any]] = collections.defaultdict(list)
    for device in jax.devices():
        of_process[device.process_index].append(device)
    present, processes = min(map(len, of_process.values())), len(of_process)
    everywhere = f" in each of {processes} processes" if processes > 1 else ""
    if not 1 <= model_parallel <= present:
        raise UserError(f"model_parallel: expected from 1 to {present}, the devices present, got {model_parallel}")
    parts = f" in {accumulate} parts" if accumulate > 1 else ""
    if batch_size % (processes * accumulate):
        raise UserError(
            f"task.batch_size: expected a multiple of {processes * accumulate}, to be read{parts}{everywhere}, "
            f"got {batch_size}"
        )
    rows = batch_size // (processes * accumulate)
    if count is None:
        count = model_parallel * largest_divisor(rows, present // model_parallel)
    if not 1 <= count <= present:
        raise UserError(f"devices: expected from 1 to {present}, the devices present{everywhere}, got {count}")
    if count % model_parallel:
        raise UserError(f"devices: expected a multiple of model_parallel={model_parallel}, got {count}")
    if rows % (count // model_parallel):
        raise UserError(
            f"devices: expected a number that divides the batch size {batch_size}{parts}{everywhere}, got {count}"
        )
    chosen = np.array([devices[:count] for _, devices in sorted(of_process.items())])
    return Mesh(chosen.reshape(-1, model_parallel), (DATA, MODEL), axis_types=(AxisType.Auto, AxisType.Auto))


def divided(rows: int, mesh: Mesh) -> bool:
    """Whether so many rows can be spread over the mesh."""
    return rows % mesh.shape[DATA] == 0


def spread(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, cut along their first axis."""
    return _put(tree, NamedSharding(mesh, P(DATA)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, whole on every device."""
    return _put(tree, NamedSharding(mesh, P()))


def lay_out(tree: Any, mesh: Mesh) -> Any:
    """Puts parameters, or what has their shapes, on the mesh: wide matrices cut over `model`, all else whole."""
    return jax.tree.map(lambda array: _put(array, NamedSharding(mesh, cut(array.shape, mesh))), tree)


def cut(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Returns where an array of parameters is cut: the longest dimension of a matrix, if it is wide enough."""
    count = mesh.shape[MODEL]
    wide = [axis for axis, size in enumerate(shape) if size % count == 0 and size // count >= NARROWEST]
    if count == 1 or len(shape) < 2 or not wide:
        return P()
    longest = max(wide, key=lambda axis: (shape[axis], axis))
    return P(*(MODEL if axis == longest else None for axis in range(longest + 1)))


def read_rows(read: Callable[[slice], dict[str, np.ndarray]], batch_size: int, mesh: Mesh) -> Any:
    """Puts a batch on the mesh, cut along its first axis; each process reads the rows of its own devices alone.

    Args:
      read: returns some rows of the batch.
      batch_size: rows of the whole batch.
      mesh: from `make_mesh`.
    """
    if jax.process_count() == 1:
        return spread(read(slice(0, batch_size)), mesh)
    sharding = NamedSharding(mesh, P(DATA))

    def bounds(index: Any) -> tuple[int, int]:
        start, stop, _ = index[0].indices(batch_size)
        return start, stop

    places = [bounds(index) for index in sharding.addressable_devices_indices_map((batch_size,)).values()]
    first, last = min(start for start, _ in places), max(stop for _, stop in places)

    def put(mine: np.ndarray) -> jax.Array:
        def piece(index: Any) -> np.ndarray:
            start, stop = bounds(index)
            return mine[start - first : stop - first]

        return jax.make_array_from_callback((batch_size, *mine.shape[1:]), sharding, piece)

    return jax.tree.map(put, read(slice(first, last)))


def whole(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays of the mesh on one device of this process, whole, wherever their pieces lie."""
    if jax.process_count() == 1:
        return jax.device_put(tree, mesh.devices.flat[0])
    gathered = jax.jit(_same, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), gathered)


def _same(tree: Any) -> Any:
    return tree


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays that every process holds; each process puts what belongs on its own devices."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(array: Any) -> jax.Array:
        held = np.asarray(array)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(put, tree)
