"""Long Expressive Memory: steps computed by hand, limits of the step sizes, parameters and wrong arguments."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import LEM, LEMParams, LEMState, step, unroll

I, H = 3, 4


@pytest.mark.usefixtures("x64")
def test_step_equals_values_computed_by_hand():
    """One unit, columns [1 | 2 | z | y], y = 0.5, z = -1, x = 2, dt = 0.5.

    s_1 = 0.5 sigmoid(0.5 * 1 + 2 * 0.5 + 0) = 0.5 sigmoid(1.5)
    s_2 = 0.5 sigmoid(0.5 * -1 - 2 * 0.5 + 0) = 0.5 sigmoid(-1.5)
    z' = (1 - s_1) * -1 + s_1 tanh(0.5 * 2 + 2 * 0.25 - 1) = -1 + s_1 (1 + tanh(0.5))
    y' = (1 - s_2) * 0.5 + s_2 tanh(3 z' - 2 + 1)
    """
    params = LEMParams(
        V=jnp.array([[0.5, -0.5, 0.25, -1.0]]),
        W=jnp.array([[1.0, -1.0, 2.0]]),
        W_y=jnp.array([[3.0]]),
        b=jnp.array([0.0, 0.0, -1.0, 1.0]),
    )
    y, after = step(LEM(dt=0.5), params, LEMState(jnp.array([0.5]), jnp.array([-1.0])), jnp.array([2.0]))
    s_1, s_2 = 0.5 / (1 + math.exp(-1.5)), 0.5 / (1 + math.exp(1.5))
    z = -1 + s_1 * (1 + math.tanh(0.5))
    np.testing.assert_allclose(after.z, [z], rtol=1e-14)
    np.testing.assert_allclose(after.y, [(1 - s_2) * 0.5 + s_2 * math.tanh(3 * z - 1)], rtol=1e-14)
    np.testing.assert_array_equal(y, after.y)


def test_step_sizes_interpolate_between_keeping_and_replacing_the_state():
    cell = LEM()
    params = cell.init(jax.random.key(0), I, H)
    state = LEMState(jnp.full(H, 0.25), jnp.full(H, -0.75))
    x = jnp.ones(I)
    kept = step(cell, params._replace(b=params.b.at[: 2 * H].set(-100)), state, x)[1]
    np.testing.assert_array_equal(kept.y, state.y)
    np.testing.assert_array_equal(kept.z, state.z)
    replaced = step(cell, params._replace(b=params.b.at[: 2 * H].set(100)), state, x)[1]
    a_z = state.y @ params.W[:, 2 * H :] + x @ params.V[:, 2 * H : 3 * H] + params.b[2 * H : 3 * H]
    np.testing.assert_allclose(replaced.z, np.tanh(a_z), rtol=1e-5)
    a_y = replaced.z @ params.W_y + x @ params.V[:, 3 * H :] + params.b[3 * H :]
    np.testing.assert_allclose(replaced.y, np.tanh(a_y), rtol=1e-5)


def test_small_time_steps_change_the_state_in_proportion():
    """The cell discretizes differential equations, so a state moves by dt times their right-hand side."""
    params = LEM().init(jax.random.key(0), I, H)
    state = LEMState(jnp.zeros(H), jnp.zeros(H))
    moves = [step(LEM(dt=dt), params, state, jnp.ones(I))[1] for dt in (1e-3, 2e-3)]
    np.testing.assert_allclose(moves[1].z, 2 * moves[0].z, rtol=1e-5)
    np.testing.assert_allclose(moves[1].y, 2 * moves[0].y, rtol=1e-2)


def test_initial_parameters_are_uniform_as_those_of_the_authors():
    params = LEM().init(jax.random.key(0), input_size=50, hidden_size=100)
    for name, leaf in params._asdict().items():
        assert np.abs(leaf).max() <= 0.1, name
        np.testing.assert_allclose(np.abs(leaf).max(), 0.1, rtol=0.02, err_msg=name)
        np.testing.assert_allclose(np.std(leaf), 0.1 / math.sqrt(3), rtol=0.1, err_msg=name)
    assert LEM().dt == 1.0


def test_parameters_and_states_have_the_documented_shapes():
    params = LEM().init(jax.random.key(0), I, H, jnp.bfloat16)
    assert jax.tree.map(jnp.shape, params) == LEMParams(V=(3, 16), W=(4, 12), W_y=(4, 4), b=(16,))
    assert {leaf.dtype for leaf in params} == {jnp.dtype(jnp.bfloat16)}
    state = LEM().initial_state(H, (2,), jnp.bfloat16)
    assert state._fields == ("y", "z")
    ys, last = unroll(LEM(), params, jnp.ones((2, 5, I), jnp.bfloat16), state)
    assert ys.shape == (2, 5, H)
    np.testing.assert_array_equal(ys[:, -1], last.y)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: LEM(dt=0.0), ValueError, "LEM: dt: expected a positive number, got 0.0"),
        (lambda: LEM(dt=-1), ValueError, "LEM: dt: expected a positive number, got -1"),
        (lambda: LEM(dt=float("inf")), ValueError, "LEM: dt: expected a finite number, got inf"),
        (lambda: LEM(dt="1"), TypeError, "LEM: dt: expected a number, got '1'"),  # type: ignore[arg-type]
        (lambda: LEM(V_init="he"), ValueError, "LEM: V_init: expected one of 'glorot', .*, got 'he'"),
        (lambda: LEM(W_init="he"), ValueError, "LEM: W_init: expected one of 'orthogonal', .*, got 'he'"),
        (lambda: LEM(b_init="chrono"), ValueError, "LEM: b_init: expected one of 'zeros', 'uniform', got 'chrono'"),
    ],
)  # fmt: skip
def test_wrong_hyperparameters_are_an_error(make, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        make()


@pytest.mark.parametrize(
    ("field", "expected", "got"),
    [
        ("V", r"\(3, 16\)", r"\(3, 8\)"),
        ("W_y", r"\(4, 4\)", r"\(4, 2\)"),
        ("b", r"\(16,\)", r"\(8,\)"),
    ],
)
def test_parameters_that_do_not_match_are_an_error(field, expected, got):
    params = LEM().init(jax.random.key(0), I, H)
    with pytest.raises(ValueError, match=rf"^params\.{field}: expected shape {expected}, got {got}$"):
        LEM().infer_sizes(params._replace(**{field: getattr(params, field)[..., ::2]}))
    with pytest.raises(TypeError, match=r"^params\..*: expected dtype .*, as params\.W, got .*"):
        LEM().infer_sizes(params._replace(**{field: getattr(params, field).astype(jnp.bfloat16)}))
