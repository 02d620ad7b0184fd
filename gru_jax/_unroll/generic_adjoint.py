"""The gradient of a cell that brings none of its own, in the form of one that does.

Going back a step differentiates that step in its state alone; the parameters' gradients come from one bulk
differentiation over all steps of a block. So nothing the size of the weights is added up step by step.
"""

from dataclasses import dataclass

import jax

from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax.cells.base import Cell, Drive


@dataclass(frozen=True)
class Derived:
    """The `Adjoint` of any `Cell`."""

    cell: Cell

    def arrange(self, params: Params, rows: int, platform: str) -> Params:
        """The parameters: the step multiplies as it likes."""
        return params

    def record(
        self, arranged: Params, state: State, drive: Drive, matmul_dtype: DType | None = None
    ) -> tuple[State, None]:
        """The step; nothing is kept."""
        return self.cell.step(arranged, state, drive, matmul_dtype), None

    def replay(self, params: Params, before: State, drive: Drive, matmul_dtype: DType | None = None) -> None:
        """Nothing was kept."""
        return None

    def linearize(self, params: Params, before: State, after: State, drive: Drive, record: None) -> tuple[State, Drive]:
        """What the step was given."""
        return before, drive

    def transpose(self, params: Params, rows: int, platform: str) -> Params:
        """The parameters: the step's own derivative multiplies as it likes."""
        return params

    def pullback(
        self, transposed: Params, coefficients: tuple[State, Drive], cotangent: State, matmul_dtype: DType | None = None
    ) -> tuple[State, State]:
        """Differentiates the step in its state."""
        before, drive = coefficients
        _, vjp = jax.vjp(lambda state: self.cell.step(transposed, state, drive, matmul_dtype), before)
        return vjp(cotangent)[0], cotangent

    def gradients(
        self,
        params: Params,
        xs: Array,
        before: State,
        coefficients: tuple[State, Drive],
        trace: State,
        matmul_dtype: DType | None = None,
    ) -> tuple[Params, Array]:
        """Differentiates projection and step in the parameters and inputs, all steps of a block at once."""

        def steps(params, xs):
            return self.cell.step(params, before, self.cell.project(params, xs, matmul_dtype), matmul_dtype)

        return jax.vjp(steps, params, xs)[1](trace)

    def assemble(self, gradient: PyTree) -> Params:
        """Returns the gradient as it is."""
        return gradient
