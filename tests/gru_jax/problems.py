"""Random problems for the library and the oracle, and their results in the same format."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax
from tests.gru_jax import oracle
from tests.gru_jax.minimal_gated_unit import Minimal

CELLS: dict[str, Any] = {
    "gru_before": gru_jax.GRU(),
    "gru_after": gru_jax.GRU(reset="after"),
    "lstm": gru_jax.LSTM(),
    "elman": gru_jax.Elman(),
    "elman_relu": gru_jax.Elman(activation="relu"),
    "minimal": Minimal(),
    "min_gru": gru_jax.MinGRU(),
    "min_lstm": gru_jax.MinLSTM(),
    "lru": gru_jax.LRU(),
}
GATES = {"gru_before": 3, "gru_after": 3, "lstm": 4, "elman": 1, "elman_relu": 1, "minimal": 2}


class Problem(NamedTuple):
    """A cell, its arrays in float64 with leading batch axes, and a loss.

    Attributes:
      name: the name of the cell.
      arrays: the arrays to differentiate: parameters, xs and the state; reset_h and so on if there is a reset_state.
      lengths: (...,) or None.
      resets: (..., T) or None.
      weights: the weights of the loss, a weighted sum of the entries of ys and of the arrays of the final state.
    """

    name: str
    arrays: dict[str, np.ndarray]
    lengths: Any
    resets: Any
    weights: tuple[np.ndarray, ...]


class Answer(NamedTuple):
    """The results of `unroll`: ys (..., T, H), the final state, arrays (..., H), and the gradient of the loss."""

    ys: Any
    final: tuple[Any, ...]
    gradient: dict[str, Any]


def draw(name: str, batch_shape=(3,), T=7, I=3, H=4, *, lengths=False, resets: bool | str = False, seed=0) -> Problem:
    """Draws a problem.

    Lengths range from 0 to T. Resets have a probability of 0.3. "state" draws one reset_state for all resets of a
    sequence, "state per mark" one for each reset.
    """
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(name, I, H)
    weights = [key for key, shape in shapes.items() if len(shape) > 1]
    shapes |= {"xs": (*batch_shape, T, I)} | dict.fromkeys(state_names(name), (*batch_shape, H))
    if resets in ("state", "state per mark"):
        time = (T,) if resets == "state per mark" else ()
        shapes |= {f"reset_{key}": (*batch_shape, *time, H) for key in state_names(name)}
    arrays = {key: rng.normal(size=shape) * (0.7 if key in weights else 0.5) for key, shape in shapes.items()}
    outputs = [(*batch_shape, T, H)] + [(*batch_shape, H)] * len(state_names(name))
    spread = rng.permutation(np.linspace(T, 0, math.prod(batch_shape)).round().astype(int))
    return Problem(
        name,
        arrays,
        (spread.reshape(batch_shape) if batch_shape else np.asarray(max(T - 2, 0))) if lengths else None,
        rng.random((*batch_shape, T)) < 0.3 if resets else None,
        tuple(rng.normal(size=shape) for shape in outputs),
    )


def parameter_shapes(name: str, I: int, H: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters that are not None."""
    return {key: leaf.shape for key, leaf in outline(name, I, H)._asdict().items() if leaf is not None}


def outline(name: str, I: int = 3, H: int = 4) -> Any:
    """Returns the parameters without their values."""
    return jax.eval_shape(lambda: CELLS[name].init(jax.random.key(0), I, H))


def state_names(name: str) -> tuple[str, ...]:
    """Returns the names of the arrays of the state, `("h",)` if it is one array."""
    return getattr(CELLS[name].initial_state(1), "_fields", ("h",))


def oracle_answer(problem: Problem, reverse: bool = False) -> Answer:
    """Returns the results of the NumPy loop."""
    name = problem.name

    def run(arrays):
        fresh = [arrays[f"reset_{key}"] for key in state_names(name) if f"reset_{key}" in arrays]
        options = oracle.Options(problem.lengths, problem.resets, fresh or None, reverse)
        return oracle.unroll(name, arrays, arrays["xs"], tuple(arrays[key] for key in state_names(name)), options)

    def loss(**arrays):
        ys, final = run(arrays)
        return sum((array * weight).sum() for array, weight in zip((ys, *final), problem.weights, strict=True))

    return Answer(*run(problem.arrays), oracle.gradients(loss, problem.arrays))


def library_answer(problem: Problem, dtype: Any, *, time_major: bool = False, **options: Any) -> Answer:
    """Returns the results of `gru_jax.unroll` under `jit` and `grad`, with leading batch axes."""
    name = problem.name

    def run(arrays, lengths, resets):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        xs, reset_state = arrays["xs"], library_reset_state(name, arrays)
        if time_major:
            xs = jnp.moveaxis(xs, -2, 0)
            resets = None if resets is None else jnp.moveaxis(resets, -1, 0)
            reset_state = jax.tree.map(lambda a: jnp.moveaxis(a, -2, 0) if a.ndim == xs.ndim else a, reset_state)
        masks = {"lengths": lengths, "resets": resets, "reset_state": reset_state}
        ys, final = gru_jax.unroll(CELLS[name], params, xs, h0, time_major=time_major, **masks, **options)
        return (jnp.moveaxis(ys, 0, -2) if time_major else ys), tuple(jax.tree.leaves(final))

    def loss(arrays, lengths, resets):
        ys, final = run(arrays, lengths, resets)
        weights = [jnp.asarray(weight, dtype) for weight in problem.weights]
        return sum((array * weight).sum() for array, weight in zip((ys, *final), weights, strict=True)), (ys, final)

    arrays = {key: jnp.asarray(array, dtype) for key, array in problem.arrays.items()}
    evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (ys, final)), gradient = evaluate(arrays, problem.lengths, problem.resets)
    return Answer(ys, final, gradient)


def library_params(name: str, arrays: dict[str, Any]) -> Any:
    kind = type(outline(name))
    return kind(*(arrays.get(key) for key in kind._fields))


def library_state(name: str, arrays: dict[str, Any]) -> Any:
    state = CELLS[name].initial_state(1)
    return type(state)(*(arrays[key] for key in state._fields)) if hasattr(state, "_fields") else arrays["h"]


def library_reset_state(name: str, arrays: dict[str, Any]) -> Any:
    """Returns the reset_state, or None if the arrays have none."""
    if not any(key.startswith("reset_") for key in arrays):
        return None
    return library_state(name, {key.removeprefix("reset_"): a for key, a in arrays.items() if key.startswith("reset_")})


def assert_answers_agree(answer: Answer, expected: Answer, dtype: Any, values: float, gradients: float) -> None:
    """Compares dtypes and entries. `values` and `gradients` are both relative and absolute tolerances."""
    assert answer.gradient.keys() == expected.gradient.keys()
    for array in jax.tree.leaves(answer):
        assert array.dtype == dtype
    np.testing.assert_allclose(answer.ys, expected.ys, values, values, err_msg="ys")
    for number, (array, wanted) in enumerate(zip(answer.final, expected.final, strict=True)):
        np.testing.assert_allclose(array, wanted, values, values, err_msg=f"final state {number}")
    for key, wanted in expected.gradient.items():
        np.testing.assert_allclose(answer.gradient[key], wanted, gradients, gradients, err_msg=f"gradient of {key}")
