"""What is known of a step whose loss or gradient is not finite: enough to repeat it alone."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from experiments import atomic
from experiments.tasks.base import Task


class NonFiniteError(ArithmeticError):
    """Loss or gradient is no longer a number; the message is one line."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """
    Attributes:
      step: from 1; its batch is `task.train_batch(seed, step - 1)`.
      loss: the batch's.
      grad_norm: before clipping.
      broken: for each array of parameters, in the order of `jax.tree.leaves`, whether its gradient is not finite.
      in_a_row: how many such steps there have been one after the other.
      last_finite: step, loss, gradient norm and learning rate of the last step before that were finite; empty where
        there was none since the start.
    """

    step: int
    loss: float
    grad_norm: float
    broken: np.ndarray
    in_a_row: int
    last_finite: Mapping[str, float]

    def line(self, on_nonfinite: Literal["stop", "skip"]) -> str:
        """Says in one line what stopped training."""
        what = "loss" if not np.isfinite(self.loss) else "gradient norm"
        value = self.loss if what == "loss" else self.grad_norm
        if on_nonfinite == "skip":
            return f"step {self.step}: the {what} is {value}, and {self.in_a_row} steps in a row were not finite"
        advice = "--config.train.on_nonfinite=skip goes on without such steps"
        return f"step {self.step}: the {what} is {value}; training stopped ({advice})"


def write_diagnosis(path: pathlib.Path, fault: Fault, task: Task, seed: int, params: Any) -> None:
    """Writes what there is to know, as JSON.

    Args:
      path: the file.
      fault: what was seen.
      task: whose batch it was.
      seed: the experiment's.
      params: a pytree, for the names of the arrays.
    """
    batch = task.train_batch(seed, fault.step - 1)
    indices = task.batch_indices(seed, fault.step - 1)
    rows = {name: np.flatnonzero(~_finite_rows(array)).tolist() for name, array in batch.items()}
    named = zip(jax.tree_util.tree_leaves_with_path(params), fault.broken, strict=True)
    atomic.write_json(
        path,
        {
            "step": fault.step,
            "loss": str(fault.loss),
            "grad_norm": str(fault.grad_norm),
            "steps_in_a_row": fault.in_a_row,
            "parameters_with_nonfinite_gradient": [
                jax.tree_util.keystr(place, simple=True, separator=".") for (place, _), flag in named if flag
            ],
            "batch": {
                "repeat_with": f"task.train_batch({seed}, {fault.step - 1})",
                "indices": None if indices is None else indices.tolist(),
                "rows_with_nonfinite_values": {name: found for name, found in rows.items() if found},
            },
            "last_finite": dict(fault.last_finite) or None,
        },
    )


def _finite_rows(array: np.ndarray) -> np.ndarray:
    """Whether each row of an array holds finite values alone: (B,)."""
    if not np.issubdtype(array.dtype, np.floating):
        return np.ones(len(array), bool)
    return np.asarray(np.isfinite(array.reshape(len(array), -1)).all(axis=1))
