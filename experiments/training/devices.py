"""The devices that a batch is spread over.

On a CPU there is one JAX device a core: a loop's elementwise work runs on one core of a device, so that two devices
with half the batch each are faster than one with all of it.
"""

import os
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA = "data"
"""The mesh axis over which a batch's rows are spread; parameters are the same all along it."""


class DeviceError(ValueError):
    """The devices asked for cannot be had; the message is one line."""


def request_cpu_devices(batch_size: int, count: int | None) -> None:
    """Has JAX make CPU devices: `count`, else the most cores that divide the batch. For accelerators it does nothing.

    Must run before JAX starts its backend, so first thing in a program.
    """
    if count is None:
        count = largest_divisor(batch_size, available_cores())
    jax.config.update("jax_num_cpu_devices", count)


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def largest_divisor(number: int, most: int) -> int:
    """The largest divisor of `number` that is at most `most`."""
    return max(n for n in range(1, most + 1) if number % n == 0)


def make_mesh(batch_size: int, count: int | None = None) -> Mesh:
    """Lays `count` devices out along the data axis; None for as many of those present as divide the batch.

    Raises:
      DeviceError: fewer devices than asked for, or a number that does not divide the batch.
    """
    devices = jax.devices()
    if count is None:
        count = largest_divisor(batch_size, len(devices))
    if not 1 <= count <= len(devices):
        raise DeviceError(f"devices: expected from 1 to {len(devices)}, the devices present, got {count}")
    if batch_size % count:
        raise DeviceError(f"devices: expected a number that divides the batch size {batch_size}, got {count}")
    return Mesh(np.array(devices[:count]), (DATA,), axis_types=(AxisType.Auto,))


def divided(rows: int, mesh: Mesh) -> bool:
    """Whether so many rows can be spread over the mesh."""
    return rows % mesh.size == 0


def spread(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, cut along their first axis."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(DATA)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Puts arrays on the mesh, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
