"""Random tasks, and the outputs, final states and gradients of a network, to compare libraries."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax

CELLS = {
    "gru_before": gru_jax.GRU(),
    "gru_after": gru_jax.GRU(reset="after"),
    "lstm": gru_jax.LSTM(),
    "elman": gru_jax.Elman(),
    "elman_relu": gru_jax.Elman(activation="relu"),
}
# The tolerances of outputs and of gradients.
TOLERANCES = {"float32": (1e-5, 1e-4), "float64": (1e-10, 1e-10)}


class Task(NamedTuple):
    """Inputs and loss weights. The loss is a weighted sum of all outputs and final states.

    Attributes:
      xs: (B, T, I).
      h0: the initial state, as in `gru_jax.unroll`. If None, zeros are used.
      lengths: (B,) or None.
      ys_weights: (B, T, D H).
      last_weights: arrays with the structure of the state.
    """

    xs: Any
    h0: Any
    lengths: Any
    ys_weights: Any
    last_weights: Any


class Result(NamedTuple):
    """The outputs, the final states and the gradients of the loss."""

    ys: Any
    h_last: Any
    params_gradient: Any
    xs_gradient: Any
    h0_gradient: Any


def draw_params(cell, I: int, H: int, dtype="float32", seed=0) -> Any:
    """Returns random parameters with nonzero biases."""
    rng = np.random.default_rng(seed)
    params = jax.eval_shape(lambda: cell.init(jax.random.key(0), I, H))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, dtype), params)


def draw_task(cell, I: int, H: int, dtype="float32", *, B=3, T=7, h0=True, lengths=True, seed=1) -> Task:
    """Returns a random task with lengths from 1 to T."""
    rng = np.random.default_rng(seed)

    def normal(shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    state = cell.initial_state(H, (B,), dtype)
    width = cell.output_size(H) if isinstance(cell, gru_jax.Stack) else H
    return Task(
        xs=normal((B, T, I)),
        h0=jax.tree.map(lambda leaf: normal(leaf.shape) * 0.5, state) if h0 else None,
        lengths=jnp.asarray(np.linspace(T, 1, B).round().astype(np.int32)) if lengths else None,
        ys_weights=normal((B, T, width)),
        last_weights=jax.tree.map(lambda leaf: normal(leaf.shape), state),
    )


def solve(cell, params, task: Task, backend: str, reverse: bool = False) -> Result:
    """Runs a task with `gru_jax.unroll`."""
    h0 = task.h0
    if h0 is None:
        H = cell.infer_sizes(params)[1]
        h0 = cell.initial_state(H, task.xs.shape[:1], task.xs.dtype)

    @jax.jit
    def run(params, xs, h0, lengths):
        def outputs(params, xs, h0):
            start = None if task.h0 is None else h0
            return gru_jax.unroll(cell, params, xs, start, lengths=lengths, reverse=reverse, backend=backend)

        (ys, h_last), pull = jax.vjp(outputs, params, xs, h0)
        return ys, h_last, *pull((task.ys_weights, task.last_weights))

    return Result(*run(params, task.xs, h0, task.lengths))


def assert_close(ours, theirs, dtype, what: str, gradient: bool = False) -> None:
    """Compares arrays with `TOLERANCES`, absolute and relative."""
    tolerance = TOLERANCES[str(np.dtype(dtype))][gradient]
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance, err_msg=what)


def assert_same_bits(one, other) -> None:
    """Compares trees of arrays bit by bit, including the signs of zeros."""
    one_leaves, one_structure = jax.tree.flatten(one)
    other_leaves, other_structure = jax.tree.flatten(other)
    assert one_structure == other_structure
    for a, b in zip(one_leaves, other_leaves, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
