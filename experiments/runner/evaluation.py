"""Evaluates parameters on a split of a task."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from experiments.runner import devices
from experiments.runner.step import make_eval_step
from experiments.tasks.base import Split, Task


class EvaluationStopped(Exception):
    """The evaluation was stopped before its last batch."""


class Evaluator:
    """Evaluates parameters on any split of a task. Compiles once per batch shape."""

    def __init__(self, task: Task, graphdef: Any, mesh: Mesh, stop: Callable[[], bool] = lambda: False):
        """Args:
        task: has the splits and the metrics.
        graphdef: the model's, which `nnx.merge` combines with parameters.
        mesh: from `devices.make_mesh`.
        stop: called before every batch. Once it returns True, the evaluation is stopped.
        """
        self.task, self.graphdef, self.mesh, self.stop = task, graphdef, mesh, stop
        self._steps: dict[int, Any] = {}

    def __call__(self, params: Any, split: Split) -> dict[str, float]:
        """Returns the metrics over the whole split. The carry of each batch starts the next.

        Raises:
          EvaluationStopped: `stop` returned True.
        """
        totals: dict[str, tuple[float, float]] = {}
        step, put, carry = None, devices.replicate, ()
        for batch in self.task.eval_batches(split):
            if self.stop():
                raise EvaluationStopped
            if step is None:
                rows = len(next(iter(batch.values())))
                put = devices.shard_batch if devices.is_divisible(rows, self.mesh) else devices.replicate
                carry = put(self.task.initial_carry(nnx.merge(self.graphdef, params), rows), self.mesh)
                step = self._step(rows)
            sums, carry = step(params, put(batch, self.mesh), carry)
            totals = add_sums(totals, jax.device_get(sums))
        model = nnx.merge(self.graphdef, devices.gather(params, self.mesh))
        return self.task.metrics(totals) | self.task.scores(model, split)

    def _step(self, rows: int) -> Any:
        if rows not in self._steps:
            self._steps[rows] = make_eval_step(self.task, self.graphdef, self.mesh, rows)
        return self._steps[rows]


def add_sums(one: dict[str, tuple[float, float]], other: Any) -> dict[str, tuple[float, float]]:
    """Adds sums and weights by name, in double precision."""
    return {
        name: (one.get(name, (0.0, 0.0))[0] + float(total), one.get(name, (0.0, 0.0))[1] + float(weight))
        for name, (total, weight) in other.items()
    }
