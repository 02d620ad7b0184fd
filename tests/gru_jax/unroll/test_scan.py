"""The scan backend against finite differences, in forward and in reverse mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from gru_jax import unroll
from tests.gru_jax.problems import CELLS, draw, library_params, library_state


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "options"),
    [("gru_before", {"reverse": True}), ("gru_after", {"lengths": True}), ("lstm", {"resets": True})],
)
def test_gradients_equal_finite_differences(name, options):
    reverse = options.pop("reverse", False)
    problem = draw(name, (2,), T=4, I=2, H=2, **options)

    @jax.jit
    def outputs(arrays):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        masks = {"lengths": problem.lengths, "resets": problem.resets}
        return unroll(CELLS[name], params, arrays["xs"], h0, reverse=reverse, backend="scan", **masks)

    check_grads(outputs, (jax.tree.map(jnp.asarray, problem.arrays),), order=1, modes=("fwd", "rev"), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_forward_mode_is_the_transpose_of_reverse_mode():
    """<w, J v> = <Jᵀ w, v>, for a user-defined cell."""
    problem = draw("minimal", (2,), lengths=True, resets=True)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    rng = np.random.default_rng(1)
    v = {key: jnp.asarray(rng.normal(size=array.shape)) for key, array in arrays.items()}

    def outputs(arrays):
        params, masks = library_params("minimal", arrays), {"lengths": problem.lengths, "resets": problem.resets}
        return unroll(CELLS["minimal"], params, arrays["xs"], arrays["h"], backend="scan", **masks)

    @jax.jit
    def both(arrays, v, w):
        _, Jv = jax.jvp(outputs, (arrays,), (v,))
        _, vjp = jax.vjp(outputs, arrays)
        return Jv, vjp(w)[0]

    w = tuple(jnp.asarray(weight) for weight in problem.weights)
    Jv, JTw = both(arrays, v, w)
    forward = sum((a * b).sum() for a, b in zip(w, Jv, strict=True))
    reverse = sum((JTw[key] * v[key]).sum() for key in v)
    assert abs(forward) > 0.1
    np.testing.assert_allclose(forward, reverse, rtol=1e-12)
