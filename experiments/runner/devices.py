"""The device mesh of a run, with the axes `data` and `model`, and the sharding of arrays over it.

The rows of a batch are sharded over `data`, where parameters are replicated. Wide matrices are sharded over `model`,
which has one device by default: along their hidden or vocabulary dimension. Arrays are global, so one program serves
one process or several. Each process reads and holds only the shards of its own devices.

On a CPU there is one JAX device per core. The elementwise work of a loop runs on one core per device, so two devices
with half the batch each are faster than one device with the whole batch.
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
"""The mesh axes: batch rows are sharded over the first, wide matrices over the second."""

MIN_SHARD_SIZE = 64
"""The smallest shard of a matrix dimension. Smaller shards cost more in communication than they save."""


def request_cpu_devices(batch_size: int, count: int | None, model_parallel: int = 1) -> None:
    """Sets the number of JAX devices on a CPU; accelerators are not affected.

    Must be called before JAX initializes its backend.

    Args:
      batch_size: rows of a training batch.
      count: number of devices. If None, the largest number of cores that divides the batch.
      model_parallel: as in `make_mesh`.
    """
    if count is None:
        count = model_parallel * largest_divisor(batch_size, max(1, available_cores() // model_parallel))
    jax.config.update("jax_num_cpu_devices", min(count, batch_size * model_parallel))  # `make_mesh` rejects more


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_divisor(number: int, most: int) -> int:
    """Returns the largest divisor of `number` that is at most `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


def make_mesh(batch_size: int, count: int | None = None, model_parallel: int = 1, accumulate: int = 1) -> Mesh:
    """Returns a mesh with the same number of devices of each process.

    Args:
      batch_size: rows of a training batch, over all processes.
      count: devices per process. If None, the largest number of available devices that divides the batch.
      model_parallel: size of the axis `model`; it divides `count`.
      accumulate: number of parts in which each device reads its rows.

    Raises:
      UserError: there are fewer devices, or `count` does not divide the batch.
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


def is_divisible(rows: int, mesh: Mesh) -> bool:
    """Returns whether a batch of that many rows can be sharded over the mesh."""
    return rows % mesh.shape[DATA] == 0


def shard_batch(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, sharded along their first axis."""
    return _put(tree, NamedSharding(mesh, P(DATA)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, replicated on every device."""
    return _put(tree, NamedSharding(mesh, P()))


def shard_params(tree: Any, mesh: Mesh) -> Any:
    """Puts parameters on the mesh: wide matrices are sharded over `model`, all other arrays replicated."""
    return jax.tree.map(lambda array: _put(array, NamedSharding(mesh, partition_spec(array.shape, mesh))), tree)


def partition_spec(shape: tuple[int, ...], mesh: Mesh) -> P:
    """Returns the spec of a parameter array: the longest dimension of a matrix, if wide enough, is sharded."""
    count = mesh.shape[MODEL]
    wide = [axis for axis, size in enumerate(shape) if size % count == 0 and size // count >= MIN_SHARD_SIZE]
    if count == 1 or len(shape) < 2 or not wide:
        return P()
    longest = max(wide, key=lambda axis: (shape[axis], axis))
    return P(*(MODEL if axis == longest else None for axis in range(longest + 1)))


def load_batch(read: Callable[[slice], dict[str, np.ndarray]], batch_size: int, mesh: Mesh) -> Any:
    """Puts a batch on the mesh, sharded along its first axis. Each process reads only the rows of its own devices.

    Args:
      read: returns a slice of the batch's rows.
      batch_size: rows of the whole batch.
      mesh: from `make_mesh`.
    """
    if jax.process_count() == 1:
        return shard_batch(read(slice(0, batch_size)), mesh)
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


def gather(tree: Any, mesh: Mesh) -> Any:
    """Gathers sharded arrays of the mesh on one device of this process."""
    if jax.process_count() == 1:
        return jax.device_put(tree, mesh.devices.flat[0])
    gathered = jax.jit(_same, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.tree.map(lambda array: array.addressable_data(0), gathered)


def _same(tree: Any) -> Any:
    return tree


def _put(tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays that every process holds on the devices of a sharding."""
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding)

    def put(array: Any) -> jax.Array:
        held = np.asarray(array)
        return jax.make_array_from_callback(held.shape, sharding, lambda index: held[index])

    return jax.tree.map(put, tree)
