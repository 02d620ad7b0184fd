"""Random problems for the library and the oracle, and their results in the same format."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax
from gru_jax._zoneout import draw_zoneout, zoneout_key
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
    "mgu": gru_jax.MGU(),
    "ligru": gru_jax.LiGRU(),
    "ligru_layer": gru_jax.LiGRU(norm="layer"),
    "indrnn": gru_jax.IndRNN(max_u=0.5),
    "layer_norm_gru": gru_jax.LayerNormGRU(),
    "layer_norm_lstm": gru_jax.LayerNormLSTM(),
    "block_gru": gru_jax.BlockGRU(blocks=2),
    "block_gru_rms": gru_jax.BlockGRU(blocks=2, norm="rms"),
    "lem": gru_jax.LEM(dt=0.7),
}
GATES = {"gru_before": 3, "gru_after": 3, "lstm": 4, "elman": 1, "elman_relu": 1, "minimal": 2}


class Problem(NamedTuple):
    """A cell, its arrays in float64 with leading batch axes, and a loss.

    Attributes:
      name: the name of the cell.
      arrays: the arrays to differentiate: the parameters, xs and the state; reset_h and so on if there is a
        reset_state; decay, or decay_h and so on, if the state decays.
      lengths: (...,) or None.
      mask: (..., T) or None.
      resets: (..., T) or None.
      zoneout: a rate for each array of the state, or None.
      key: the seed of the key for zoneout, or None for its expectation.
      weights: the weights of the loss, a weighted sum of the entries of ys and of the arrays of the final state.
    """

    name: str
    arrays: dict[str, np.ndarray]
    lengths: Any
    mask: Any
    resets: Any
    zoneout: tuple[float, ...] | None
    key: int | None
    weights: tuple[np.ndarray, ...]


class Answer(NamedTuple):
    """The results of `unroll`: ys (..., T, H), the final state, arrays (..., H), and the gradient of the loss."""

    ys: Any
    final: tuple[Any, ...]
    gradient: dict[str, Any]


def draw(
    name: str,
    batch_shape=(3,),
    T=7,
    I=3,
    H=4,
    *,
    lengths=False,
    mask=False,
    resets: bool | str = False,
    decay: bool | str = False,
    zoneout: str | None = None,
    seed=0,
) -> Problem:
    """Draws a problem.

    Lengths range from 0 to T. A step is masked with a probability of 0.4, and all steps of one sequence of a batch are.
    Resets have a probability of 0.3. "state" draws one reset_state for all resets of a sequence, "state per mark" one
    for each reset. Decay ranges from 0 to 1; "one" draws one factor per step for all arrays of the state. Zoneout is
    that of "training" or its "expectation".
    """
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(name, I, H)
    weights = [key for key, shape in shapes.items() if len(shape) > 1]
    shapes |= {"xs": (*batch_shape, T, I)} | dict.fromkeys(state_names(name), (*batch_shape, H))
    if resets in ("state", "state per mark"):
        time = (T,) if resets == "state per mark" else ()
        shapes |= {f"reset_{key}": (*batch_shape, *time, H) for key in state_names(name)}
    arrays = {key: rng.normal(size=shape) * (0.7 if key in weights else 0.5) for key, shape in shapes.items()}
    if decay == "one":
        arrays["decay"] = rng.random((*batch_shape, T, 1))
    elif decay:
        arrays |= {f"decay_{key}": rng.random((*batch_shape, T, H)) for key in state_names(name)}
    outputs = [(*batch_shape, T, H)] + [(*batch_shape, H)] * len(state_names(name))
    spread = rng.permutation(np.linspace(T, 0, math.prod(batch_shape)).round().astype(int))
    return Problem(
        name,
        arrays,
        (spread.reshape(batch_shape) if batch_shape else np.asarray(max(T - 2, 0))) if lengths else None,
        _draw_mask(rng, batch_shape, T) if mask else None,
        rng.random((*batch_shape, T)) < 0.3 if resets else None,
        (0.3, 0.5)[: len(state_names(name))] if zoneout else None,
        5 if zoneout == "training" else None,
        tuple(rng.normal(size=shape) for shape in outputs),
    )


def _draw_mask(rng: np.random.Generator, batch_shape: tuple[int, ...], T: int) -> np.ndarray:
    mask = rng.random((*batch_shape, T)) < 0.6
    if batch_shape:
        mask[(0,) * len(batch_shape)] = False
    return mask


def parameter_shapes(name: str, I: int, H: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters that are not None."""
    return {key: leaf.shape for key, leaf in outline(name, I, H)._asdict().items() if leaf is not None}


def outline(name: str, I: int = 3, H: int = 4) -> Any:
    """Returns the parameters without their values."""
    return jax.eval_shape(lambda: CELLS[name].init(jax.random.key(0), I, H))


def state_names(name: str) -> tuple[str, ...]:
    """Returns the names of the arrays of the state, `("h",)` if it is one array."""
    return getattr(CELLS[name].initial_state(1), "_fields", ("h",))


def kept_units(problem: Problem) -> tuple[np.ndarray, ...] | None:
    """Returns where zoneout keeps a unit, (..., T, H) for each array of the state; None without a key."""
    if problem.zoneout is None or problem.key is None:
        return None
    *batch_shape, T, _ = problem.arrays["xs"].shape
    state = tuple(problem.arrays[key].reshape(math.prod(batch_shape), -1) for key in state_names(problem.name))
    kept = draw_zoneout(zoneout_key(jax.random.key(problem.key)), problem.zoneout, T, state)
    return tuple(np.moveaxis(np.asarray(a).reshape(T, *batch_shape, -1), 0, -2) for a in kept)


def oracle_answer(problem: Problem, reverse: bool = False) -> Answer:
    """Returns the results of the NumPy loop."""
    name, kept = problem.name, kept_units(problem)

    def run(arrays):
        fresh = [arrays[f"reset_{key}"] for key in state_names(name) if f"reset_{key}" in arrays]
        decay = tuple(arrays.get(f"decay_{key}", arrays.get("decay")) for key in state_names(name))
        options = oracle.Options(problem.lengths, problem.mask, problem.resets, fresh or None)
        options = options._replace(zoneout=problem.zoneout, kept=kept, reverse=reverse)
        if decay[0] is not None:
            options = options._replace(decay=decay)
        return oracle.unroll(name, arrays, arrays["xs"], tuple(arrays[key] for key in state_names(name)), options)

    def loss(**arrays):
        ys, final = run(arrays)
        return oracle.weighted_sum((ys, *final), problem.weights)

    ys, final = run(oracle.one_copy(problem.arrays))
    return Answer(ys[0], tuple(array[0] for array in final), oracle.gradients(loss, problem.arrays))


def library_answer(problem: Problem, dtype: Any, *, time_major: bool = False, **options: Any) -> Answer:
    """Returns the results of `gru_jax.unroll` under `jit` and `grad`, with leading batch axes."""
    name = problem.name

    def steps_first(a):
        return jnp.moveaxis(a, -2, 0) if time_major and a.ndim == problem.arrays["xs"].ndim else a

    def run(arrays, lengths, mask, resets):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        xs, reset_state = steps_first(arrays["xs"]), jax.tree.map(steps_first, library_reset_state(name, arrays))
        if time_major:
            mask, resets = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), (mask, resets))
        steps = {"mask": mask, "resets": resets, "decay": jax.tree.map(steps_first, library_decay(name, arrays))}
        steps |= {"lengths": lengths, "reset_state": reset_state, "time_major": time_major}
        ys, final = gru_jax.unroll(CELLS[name], params, xs, h0, **steps, **library_zoneout(problem), **options)
        return (jnp.moveaxis(ys, 0, -2) if time_major else ys), tuple(jax.tree.leaves(final))

    def loss(arrays, *masks):
        ys, final = run(arrays, *masks)
        weights = [jnp.asarray(weight, dtype) for weight in problem.weights]
        return sum((array * weight).sum() for array, weight in zip((ys, *final), weights, strict=True)), (ys, final)

    arrays = {key: jnp.asarray(array, dtype) for key, array in problem.arrays.items()}
    evaluate = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (ys, final)), gradient = evaluate(arrays, problem.lengths, problem.mask, problem.resets)
    return Answer(ys, final, gradient)


def library_params(name: str, arrays: dict[str, Any]) -> Any:
    kind = type(outline(name))
    return kind(*(arrays.get(key) for key in kind._fields))


def library_state(name: str, arrays: dict[str, Any]) -> Any:
    state = CELLS[name].initial_state(1)
    return type(state)(*(arrays[key] for key in state._fields)) if hasattr(state, "_fields") else arrays["h"]


def library_reset_state(name: str, arrays: dict[str, Any]) -> Any:
    """Returns the reset_state, or None if the arrays have none."""
    return _with_prefix(name, arrays, "reset_")


def library_decay(name: str, arrays: dict[str, Any]) -> Any:
    """Returns the decay, or None if the arrays have none."""
    return arrays["decay"] if "decay" in arrays else _with_prefix(name, arrays, "decay_")


def library_zoneout(problem: Problem) -> dict[str, Any]:
    """Returns the arguments `zoneout` and `key` of `unroll`."""
    if problem.zoneout is None:
        return {}
    rates = problem.zoneout if len(problem.zoneout) > 1 else problem.zoneout[0]
    return {"zoneout": rates, "key": None if problem.key is None else jax.random.key(problem.key)}


def _with_prefix(name: str, arrays: dict[str, Any], prefix: str) -> Any:
    own = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
    return library_state(name, own) if own else None


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
