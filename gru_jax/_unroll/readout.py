"""The readout of all steps at once, with the gradient that a cell derives by hand.

JAX computes the cotangent of w in a product `x w` as `(gᵀ x)ᵀ`. On a CPU the compiler then makes a transposed copy of
g, with all that computes g, for each product. A derived gradient computes `xᵀ g`. The gradient of an LRU takes half the
time then: 17 ms instead of 33 at B=32, T=100, H=256.
"""

from dataclasses import dataclass
from typing import Any

import jax

from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.generic_adjoint import whole_gradient
from gru_jax._unroll.linearization import call
from gru_jax._unroll.tuning import to_rows
from gru_jax.cells.base import Cell, ReadoutAdjoint, read_out


def readout(cell: Cell, params: Params, outputs: Any, xs: Array, matmul_dtype: DType | None, platform: str) -> Array:
    """Returns the outputs (T, B, H) of a cell, given `cell.output` of its states and its inputs (T, B, I)."""
    if not isinstance(cell, ReadoutAdjoint):
        return read_out(cell, params, outputs, xs, matmul_dtype)
    return call(Derived(cell, matmul_dtype, platform), params, outputs, xs)


@dataclass(frozen=True)
class Derived:
    """`readout` as a function of its arrays, for `linearization.call`."""

    cell: ReadoutAdjoint
    matmul_dtype: DType | None
    platform: str

    def evaluate(self, params: Params, states: State, xs: Array):
        return self.cell.readout(params, states, xs, self.matmul_dtype)

    outline = evaluate

    def forward(self, params: Params, states: State, xs: Array):
        return self.evaluate(params, states, xs), None

    def backward(self, arguments: Any, kept: None, cotangents: Any):
        params, states, xs = arguments
        of_states, of_xs, g = to_rows(self.platform, (states, xs, cotangents))
        gradient, *of_inputs = self.cell.readout_gradients(params, of_states, of_xs, g, self.matmul_dtype)
        g_states, g_xs = jax.tree.map(lambda a, g: g.reshape(a.shape), (states, xs), tuple(of_inputs))
        return jax.tree.map(whole_gradient, params, gradient), g_states, g_xs
