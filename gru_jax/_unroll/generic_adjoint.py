"""The gradient of a cell without `Adjoint` methods, derived from its step.

The pullback differentiates the step with respect to the state only. The gradients of the parameters are computed for
all steps of a block at once, so no weight gradient is accumulated step by step.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.sharding import zeros_like
from gru_jax.cells.base import Cell, GateInputs


@dataclass(frozen=True)
class GenericAdjoint:
    """The `Adjoint` of any `Cell`.

    Args:
      cell: the cell.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.
    """

    cell: Cell
    matmul_dtype: DType | None

    def recurrent_matrices(self, params: Params) -> tuple[()]:
        """Returns an empty tuple, since the step of the cell computes its products itself."""
        return ()

    def step_with_residuals(
        self, params: Params, products: Any, state: State, gate_inputs: GateInputs
    ) -> tuple[State, None]:
        """Returns the state after a step, and None: no residuals are needed."""
        return self.cell.step(params, state, gate_inputs, self.matmul_dtype), None

    def linearize(
        self, params: Params, before: State, after: State, gate_inputs: GateInputs, residuals: None
    ) -> tuple[State, GateInputs]:
        """Returns the states before the steps and their gate inputs."""
        return before, gate_inputs

    def pullback(
        self, params: Params, transposed_products: Any, coefficients: tuple[State, GateInputs], cotangent: State
    ) -> tuple[State, State]:
        """Returns the cotangent of the state before the step, and `cotangent` unchanged."""
        before, gate_inputs = coefficients
        _, vjp = jax.vjp(lambda state: self.cell.step(params, state, gate_inputs, self.matmul_dtype), before)
        return vjp(cotangent)[0], cotangent

    def gradients(
        self,
        params: Params,
        xs: Array,
        before: State,
        coefficients: tuple[State, GateInputs],
        step_cotangents: State,
        matmul_dtype: DType | None = None,
    ) -> tuple[Params, Array]:
        """Returns the gradients of the parameters and of the inputs, for all steps of a block at once."""

        def steps(params: Params, xs: Array):
            return self.cell.step(params, before, self.cell.project(params, xs, matmul_dtype), matmul_dtype)

        return jax.vjp(steps, params, xs)[1](step_cotangents)


def whole_gradient(parameter: Array, gradient: Array | tuple[Array, ...] | None) -> Array:
    """Returns a parameter's gradient from what `Adjoint.gradients` returns: an array, a part per gate, or None."""
    if gradient is None:
        return zeros_like(parameter)
    return jnp.concatenate(gradient, axis=-1) if isinstance(gradient, tuple) else gradient
