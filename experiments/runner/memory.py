"""Whether a model can be trained here at all, told from its shapes before anything is made."""

import os
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from experiments.runner.step import parameter_count
from experiments.schema import require
from experiments.tasks.base import Task

COPIES = 4
"""What training holds of every parameter: itself, its gradient, the optimizer's two means; "best" comes on top."""


def refuse_too_large(task: Task, model_config: Any, mesh: Mesh) -> None:
    """Raises where parameters, gradient and optimizer alone are more than the memory of all devices.

    Raises:
      UserError: in one line, with the number of parameters.
    """
    model = nnx.eval_shape(lambda: task.model(model_config, nnx.Rngs(0)))
    count, memory = parameter_count(nnx.state(model)), memory_of(mesh)
    expected = f"parameters that fit into {memory / 2**30:.1f} GiB with gradient and optimizer"
    require("model", 4 * COPIES * count <= memory, expected, f"{count:,} parameters")


def memory_of(mesh: Mesh) -> int:
    """Returns the bytes of memory of a mesh's devices; on a CPU they share the machine's."""
    devices = mesh.devices.flat
    if devices[0].platform != "cpu" and devices[0].memory_stats():
        return sum(device.memory_stats()["bytes_limit"] for device in devices)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
