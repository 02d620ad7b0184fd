"""Gradients through time against Jacobians of the whole sequence."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies import gradient_flow
from experiments.tasks.synthetic.adding import draw


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {"HIDDEN": 3, "LENGTH": 5, "ROWS": 2, "SEQUENCES": 1}.items():
        monkeypatch.setattr(gradient_flow, name, value)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_jacobian_norms_match_singular_values_of_full_jacobians(name):
    cell = gradient_flow.CELLS[name]
    params, _ = gradient_flow.initial(cell, 1.5)
    xs = draw(np.random.default_rng(1), 1, 5)["xs"][0]
    flat, unravel = jax.flatten_util.ravel_pytree(cell.initial_state(3))

    @jax.jit
    def jacobians(flat):
        def last(flat, first):
            state = unravel(flat)
            for x in xs[first:]:
                state = cell.step(params, state, cell.project(params, jnp.asarray(x)))
            return jax.flatten_util.ravel_pytree(state)[0]

        states = [flat]
        for x in xs:
            state = cell.step(params, unravel(states[-1]), cell.project(params, jnp.asarray(x)))
            states.append(jax.flatten_util.ravel_pytree(state)[0])
        return [jax.jacobian(last)(states[5 - lag], 5 - lag) for lag in range(6)]

    expected = [np.linalg.svd(np.asarray(jacobian))[1][0] for jacobian in jacobians(flat)]
    np.testing.assert_allclose(gradient_flow.jacobian_norms(cell, 1.5), expected, rtol=1e-4)


def test_gain_multiplies_only_the_recurrent_weights():
    cell = gradient_flow.CELLS["elman"]
    (one, readout), (two, same) = (gradient_flow.initial(cell, gain) for gain in (1.0, 2.0))
    np.testing.assert_allclose(two.U, 2 * one.U)
    np.testing.assert_array_equal(two.W, one.W)
    np.testing.assert_array_equal(readout, same)


def test_gradient_of_the_last_state_by_hand():
    cell = gradient_flow.CELLS["elman"]
    model = gradient_flow.initial(cell, 1.0)
    batch = draw(np.random.default_rng(0), 2, 5)
    norms = gradient_flow.state_gradients(cell, model, batch)
    assert len(norms) == 5
    h = np.zeros((2, 3))
    params, readout = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model)
    for t in range(5):
        h = np.tanh(batch["xs"][:, t] @ params.W + h @ params.U + params.b)
    errors = h @ readout - batch["targets"]
    np.testing.assert_allclose(norms[0], np.linalg.norm(errors[:, None] * readout), rtol=1e-4)


def test_clipping_bounds_the_steps_of_gradient_descent():
    cell = gradient_flow.CELLS["elman"]
    free, clipped = (gradient_flow.descent(cell, 1.0, clip, 3) for clip in (None, 1e-6))
    assert free["loss"][0] == clipped["loss"][0]
    assert free["gradient_norm"][0] == clipped["gradient_norm"][0] > 1e-3
    batches = [draw(np.random.default_rng((2, number)), 2, 5) for number in range(3)]
    model = gradient_flow.initial(cell, 1.0)
    still = [float(gradient_flow.loss(cell, model, batch)) for batch in batches]
    np.testing.assert_allclose(clipped["loss"], still, rtol=1e-4)
    assert abs(free["loss"][2] - still[2]) > 1e-3
