"""The form of bulk work: arrays as they are on a CPU, rows elsewhere; the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, unroll
from gru_jax._unroll.rows import in_rows


@pytest.mark.parametrize(("platform", "seen"), [("cpu", (3, 2, 5)), ("tpu", (6, 5))])
def test_in_rows(platform, seen):
    shapes = []

    def function(tree):
        shapes.append(tree["a"].shape)
        return tree["a"] * 2, tree["b"] + 1

    a, b = jnp.arange(30.0).reshape(3, 2, 5), jnp.arange(6.0).reshape(3, 2)
    doubled, more = in_rows(function, platform, {"a": a, "b": b})
    assert shapes == [seen]
    np.testing.assert_array_equal(doubled, 2 * a)
    np.testing.assert_array_equal(more, b + 1)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("cell", [GRU(), LSTM()])
def test_programs_for_accelerators_compute_the_same(cell, backend, monkeypatch):
    """What is traced for a TPU runs here too."""
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 7, 3))

    def gradient():
        def loss(params, xs):
            options = {"backend": backend, "block_length": 3, "memory": "recompute"}
            return (unroll(cell, params, xs, lengths=jnp.array([7, 4]), **options)[0] ** 2).sum()

        jax.clear_caches()  # `unroll` keeps what it traced for a shape.
        return jax.grad(loss, argnums=(0, 1))(params, xs)

    expected = gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    got = gradient()
    monkeypatch.undo()
    jax.clear_caches()
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
