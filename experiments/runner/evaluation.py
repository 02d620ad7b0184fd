"""Scoring parameters on a split."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from experiments.runner import devices
from experiments.runner.step import make_eval_step
from experiments.tasks.base import Split, Task


class EvaluationStopped(Exception):
    """The evaluation was asked to stop before its last batch."""


class Evaluator:
    """Scores parameters on any split of a task; compiles once per batch shape."""

    def __init__(self, task: Task, graph: Any, mesh: Mesh, stop: Callable[[], bool] = lambda: False):
        """Takes the model's graph, which `nnx.merge` joins with parameters, and what to ask before every batch."""
        self.task, self.graph, self.mesh, self.stop = task, graph, mesh, stop
        self._steps: dict[int, Any] = {}

    def __call__(self, params: Any, split: Split) -> dict[str, float]:
        """Returns the metrics over the whole split; the carry goes from each batch to the next.

        Raises:
          EvaluationStopped: `stop` said so.
        """
        totals: dict[str, tuple[float, float]] = {}
        step, put, carry = None, devices.replicate, ()
        for batch in self.task.eval_batches(split):
            if self.stop():
                raise EvaluationStopped
            if step is None:
                rows = len(next(iter(batch.values())))
                put = devices.spread if devices.divided(rows, self.mesh) else devices.replicate
                carry = put(self.task.initial_carry(nnx.merge(self.graph, params), rows), self.mesh)
                step = self._step(rows)
            sums, carry = step(params, put(batch, self.mesh), carry)
            totals = add_sums(totals, jax.device_get(sums))
        model = nnx.merge(self.graph, devices.whole(params, self.mesh))
        return self.task.metrics(totals) | self.task.scores(model, split)

    def _step(self, rows: int) -> Any:
        if rows not in self._steps:
            self._steps[rows] = make_eval_step(self.task, self.graph, self.mesh, rows)
        return self._steps[rows]


def add_sums(one: dict[str, tuple[float, float]], other: Any) -> dict[str, tuple[float, float]]:
    """Adds sums and weights name by name, in double precision."""
    return {
        name: (one.get(name, (0.0, 0.0))[0] + float(total), one.get(name, (0.0, 0.0))[1] + float(weight))
        for name, (total, weight) in other.items()
    }
