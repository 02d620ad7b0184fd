"""The fused backend: its memory, its second derivatives, and gradients with and without `Adjoint` methods."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, Elman, Stack, unroll
from gru_jax.cells import Adjoint, Cell, Readout
from tests.gru_jax.problems import CELLS, draw, library_params, library_reset_state, library_state


@dataclass(frozen=True)
class Bare:
    """A cell without its `Adjoint` methods, so that the library derives its gradient."""

    cell: Any

    def init(self, key, input_size, hidden_size, dtype=jnp.float32):
        return self.cell.init(key, input_size, hidden_size, dtype)

    def infer_sizes(self, params):
        return self.cell.infer_sizes(params)

    def initial_state(self, hidden_size, batch_shape=(), dtype=jnp.float32):
        return self.cell.initial_state(hidden_size, batch_shape, dtype)

    def project(self, params, xs, matmul_dtype=None):
        return self.cell.project(params, xs, matmul_dtype)

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        return self.cell.step(params, state, gate_inputs, matmul_dtype)

    def output(self, state):
        return self.cell.output(state)


@dataclass(frozen=True)
class BareWithReadout(Bare):
    """The same for a cell whose output is read from its states."""

    def readout(self, params, states, xs, matmul_dtype=None):
        return self.cell.readout(params, states, xs, matmul_dtype)


def test_only_cells_with_adjoint_methods_are_adjoints():
    assert {name for name, cell in CELLS.items() if not isinstance(cell, Adjoint)} == {"minimal"}
    assert isinstance(Bare(GRU()), Cell)
    assert not isinstance(Bare(GRU()), Adjoint)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if isinstance(cell, Adjoint)])
def test_gradient_derived_from_the_step_equals_the_adjoint(name):
    problem = draw(name, (3,), lengths=True, resets="state per mark" if name == "lstm" else "state", seed=2)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)

    def loss(arrays, cell):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        masks = {"lengths": problem.lengths, "resets": problem.resets, "reset_state": library_reset_state(name, arrays)}
        ys, h_last = unroll(cell, params, arrays["xs"], h0, block_length=3, memory="recompute", reverse=True, **masks)
        terms = zip((ys, *jax.tree.leaves(h_last)), problem.weights, strict=True)
        return sum((array * weight).sum() for array, weight in terms)

    cell = CELLS[name]
    bare = BareWithReadout(cell) if isinstance(cell, Readout) else Bare(cell)
    by_hand, derived = jax.jit(lambda arrays: [jax.grad(loss)(arrays, each) for each in (cell, bare)])(arrays)
    for key, expected in by_hand.items():
        np.testing.assert_allclose(derived[key], expected, rtol=1e-10, atol=1e-12, err_msg=key)


def kept_numbers(cell, T, memory):
    """Returns the number of stored residuals per sequence, step and unit, without the arguments."""
    B, I, H = 4, 3, 8
    params, xs = cell.init(jax.random.key(0), I, H), jnp.ones((T, B, I))

    def outputs(params, xs):
        return unroll(cell, params, xs, time_major=True, backend="fused", memory=memory, block_length=16)

    _, vjp = jax.vjp(outputs, params, xs)
    kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.ndim >= 3 and leaf.shape[-1] != I]
    return sum(leaf.size for leaf in kept) / (T * B * H)


@pytest.mark.parametrize(
    ("cell", "gates", "states"), [(GRU(), 3, 1), (GRU("after"), 3, 1), (LSTM(), 4, 2), (Elman(), 0, 1)]
)
def test_stored_residuals_are_as_documented(cell, gates, states):
    """Blocks have 16 steps. For each block, its initial state is stored as well."""
    starts = states / 16
    assert kept_numbers(cell, 64, "save") <= gates + states + starts
    assert kept_numbers(cell, 64, "recompute") <= states + starts
    assert kept_numbers(cell, 64, "checkpoint") <= starts


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere nothing is known of what is faster")
def test_auto_memory_recomputes_with_several_blocks():
    assert kept_numbers(GRU(), 64, "auto") == kept_numbers(GRU(), 64, "recompute")
    assert kept_numbers(GRU(), 16, "auto") == kept_numbers(GRU(), 16, "save") > kept_numbers(GRU(), 16, "recompute")


def small_loss(name, backend, **options):
    problem = draw(name, (2,), T=4, I=2, H=2, lengths=True, seed=4)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)

    def loss(b, xs):
        changed = arrays | {"b": b, "xs": xs}
        params, h0 = library_params(name, changed), library_state(name, changed)
        ys, h_last = unroll(CELLS[name], params, xs, h0, lengths=problem.lengths, backend=backend, **options)
        return (ys**2 * problem.weights[0]).sum() + sum((a**3).sum() for a in jax.tree.leaves(h_last))

    return loss, (arrays["b"], arrays["xs"])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("gru_before", "save"),
        ("gru_after", "checkpoint"),
        ("lstm", "recompute"),
        ("elman", "save"),
        ("minimal", "checkpoint"),
    ],
)
def test_second_derivatives_equal_the_scan_backend(name, memory):
    fused, at = small_loss(name, "fused", memory=memory, block_length=3)
    scan, _ = small_loss(name, "scan")
    hessian, expected = (jax.jit(jax.hessian(loss, argnums=(0, 1)))(*at) for loss in (fused, scan))
    for a, b in zip(jax.tree.leaves(hessian), jax.tree.leaves(expected), strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_reverse_over_reverse_equals_the_scan_backend():
    def norm_of_gradient(loss):
        return lambda *at: sum((g**2).sum() for g in jax.grad(loss, argnums=(0, 1))(*at))

    fused, at = small_loss("gru_before", "fused", block_length=2)
    scan, _ = small_loss("gru_before", "scan")
    twice, expected = (jax.jit(jax.grad(norm_of_gradient(loss), argnums=(0, 1)))(*at) for loss in (fused, scan))
    for a, b in zip(twice, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_program_without_gradient_stores_no_residuals():
    """The outputs of the program are the outputs and the final state only."""
    cell = LSTM()
    params = cell.init(jax.random.key(0), 2, 3)
    jaxpr = jax.make_jaxpr(lambda xs: unroll(cell, params, xs, backend="fused"))(jnp.ones((4, 5, 2)))
    assert [aval.shape for aval in jaxpr.out_avals] == [(4, 5, 3), (4, 3), (4, 3)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("which", ["ys", "h_last"])
def test_gradient_of_one_output_equals_the_scan_backend(which):
    """The cotangent of the other output is a symbolic zero."""
    problem = draw("lstm", (2,), lengths=True)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    stack = Stack(LSTM())

    def loss(arrays, backend):
        params, h0 = ((library_params("lstm", arrays),),), ((library_state("lstm", arrays),),)
        ys, h_last = unroll(stack, params, arrays["xs"], h0, lengths=problem.lengths, backend=backend, block_length=3)
        return (ys * problem.weights[0]).sum() if which == "ys" else (h_last[0][0].c * problem.weights[1]).sum()

    fused, scan = jax.jit(lambda arrays: [jax.grad(loss)(arrays, backend) for backend in ("fused", "scan")])(arrays)
    for key, expected in scan.items():
        np.testing.assert_allclose(fused[key], expected, rtol=1e-10, atol=1e-12, err_msg=key)
