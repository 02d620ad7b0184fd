"""The oracle: a reference implementation of the cells and of `unroll` in plain NumPy.

It shares no code with the library and uses no masks, blocks or batches. It loops over the steps of each sequence. It
computes each entry of a gradient with a complex step, which is accurate to the last bits of float64:

    df/dp = Im f(p + i e) / e,  e = 1e-30

Parameters, inputs and states have a first axis of N copies, which do not affect one another. All are equal, but for the
entry that a complex step changes in each. `one_copy` adds that axis to given arrays.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

TINY = 1e-30


class Options(NamedTuple):
    """The options of `unroll`, with leading batch axes. Only `reset_state` and `decay` have an axis of copies before.

    Attributes:
      lengths: (...,) integers or None.
      mask: (..., T) booleans or None, false where the state is held.
      resets: (..., T) booleans or None, true at the first step of an episode.
      reset_state: the initial state of episodes, an array (..., H) or (..., T, H) for each array of the state. If
        None, zeros are used.
      decay: an array (..., T, H) or (..., T, 1) for each array of the state, or None.
      zoneout: a rate for each array of the state, or None.
      kept: booleans (..., T, H) for each array of the state, true where zoneout keeps a unit. If None, the expectation
        is computed.
      reverse: whether to run from the last step to the first.
    """

    lengths: Any = None
    mask: Any = None
    resets: Any = None
    reset_state: Any = None
    decay: Any = None
    zoneout: Any = None
    kept: Any = None
    reverse: bool = False


def product(a, matrix):
    """Returns the products of vectors (..., I) and matrices (..., I, K)."""
    return (a[..., None, :] @ matrix)[..., 0, :]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru_step(params, state, x, reset="before", times=product):
    """Runs one step of a GRU. The state is `(h,)`; `times` is the product of a vector and a matrix."""
    (h,), (W_xr, W_xz, W_xn), (U_hr, U_hz, U_hn) = state, np.split(params["W"], 3, -1), np.split(params["U"], 3, -1)
    b_r, b_z, b_n = np.split(params["b"], 3, -1)
    r = sigmoid(times(x, W_xr) + times(h, U_hr) + b_r)
    z = sigmoid(times(x, W_xz) + times(h, U_hz) + b_z)
    if reset == "before":
        n = np.tanh(times(x, W_xn) + times(r * h, U_hn) + b_n)
    else:
        n = np.tanh(times(x, W_xn) + r * (times(h, U_hn) + params["b_hn"]) + b_n)
    return ((1 - z) * h + z * n,)


def lstm_step(params, state, x, times=product):
    """Runs one step of an LSTM. The state is `(h, c)`."""
    h, c = state
    W, U, b = (np.split(params[name], 4, -1) for name in ("W", "U", "b"))
    i = sigmoid(times(x, W[0]) + times(h, U[0]) + b[0])
    f = sigmoid(times(x, W[1]) + times(h, U[1]) + b[1])
    g = np.tanh(times(x, W[2]) + times(h, U[2]) + b[2])
    o = sigmoid(times(x, W[3]) + times(h, U[3]) + b[3])
    c = f * c + i * g
    return o * np.tanh(c), c


def elman_step(params, state, x, times=product):
    """Runs one step of an Elman network. The state is `(h,)`."""
    return (np.tanh(times(x, params["W"]) + times(state[0], params["U"]) + params["b"]),)


def relu_step(params, state, x, times=product):
    """Runs one step of an Elman network with a ReLU. The state is `(h,)`."""
    a = times(x, params["W"]) + times(state[0], params["U"]) + params["b"]
    return (np.where(a.real > 0, a, 0),)


def minimal_step(params, state, x, times=product):
    """Runs one step of a minimal gated unit (Zhou et al., 2016). The state is `(h,)`."""
    (h,) = state
    W_f, W_n = np.split(params["W"], 2, -1)
    U_f, U_n = np.split(params["U"], 2, -1)
    b_f, b_n = np.split(params["b"], 2, -1)
    f = sigmoid(times(x, W_f) + times(h, U_f) + b_f)
    return ((1 - f) * h + f * np.tanh(times(x, W_n) + times(f * h, U_n) + b_n),)


def positive(a):
    """Computes a + 0.5 for a >= 0, and sigmoid(a) for a < 0."""
    return np.where(a.real >= 0, a + 0.5, sigmoid(a))


def min_gru_step(params, state, x, times=product):
    """Runs one step of a minimal GRU (Feng et al., 2024). The state is `(h,)`."""
    a_z, a_n = np.split(times(x, params["W"]) + params["b"], 2, -1)
    return ((1 - sigmoid(a_z)) * state[0] + sigmoid(a_z) * positive(a_n),)


def min_lstm_step(params, state, x, times=product):
    """Runs one step of a minimal LSTM with normalized gates (Feng et al., 2024). The state is `(h,)`."""
    a_f, a_i, a_n = np.split(times(x, params["W"]) + params["b"], 3, -1)
    f, i = sigmoid(a_f), sigmoid(a_i)
    return (f / (f + i) * state[0] + i / (f + i) * positive(a_n),)


def lru_step(params, state, x, times=product):
    """Runs one step of a Linear Recurrent Unit (Orvieto et al., 2023). The state is `(re, im)`."""
    (re, im), gamma = state, np.exp(params["gamma_log"])
    radius, angle = np.exp(-np.exp(params["nu_log"])), np.exp(params["theta_log"])
    return (
        radius * (np.cos(angle) * re - np.sin(angle) * im) + gamma * times(x, params["B_re"]),
        radius * (np.cos(angle) * im + np.sin(angle) * re) + gamma * times(x, params["B_im"]),
    )


def first_array(params, state, x):
    """Returns the first array of a state, the output of most cells."""
    return state[0]


def lru_output(params, state, x):
    """Returns the output of a Linear Recurrent Unit, Re(C h) + D x."""
    return product(state[0], params["C_re"]) - product(state[1], params["C_im"]) + product(x, params["D"])


def ligru_step(params, state, x, norm=False, times=product):
    """Runs one step of a Li-GRU (Ravanelli et al., 2018). The state is `(h,)`."""
    (h,), a_x, a_h = state, times(x, params["W"]), times(state[0], params["U"])
    if norm:
        centered = a_x - a_x.mean(-1, keepdims=True)
        a_x = params["gain"] * centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
    a_z, a_n = np.split(a_x + a_h + params["b"], 2, -1)
    z, n = sigmoid(a_z), np.where(a_n.real > 0, a_n, 0)
    return (z * h + (1 - z) * n,)


def indrnn_step(params, state, x, max_u=0.5, times=product):
    """Runs one step of an IndRNN (Li et al., 2018). The state is `(h,)`."""
    u = params["u"]
    u = np.where(np.abs(u.real) <= max_u, u, max_u * np.sign(u.real))
    a = times(x, params["W"]) + u * state[0] + params["b"]
    return (np.where(a.real > 0, a, 0),)


def layer_norm(a, epsilon=1e-5):
    """Computes (a - mean) / sqrt(variance + epsilon). It is analytic, for complex steps."""
    centered = a - a.mean(-1, keepdims=True)
    return centered / np.sqrt((centered * centered).mean(-1, keepdims=True) + epsilon)


def layer_norm_gru_step(params, state, x, times=product):
    """Runs one step of a GRU with layer normalization (Ba et al., 2016). The state is `(h,)`."""
    (h,), H = state, state[0].shape[-1]
    x_rz, x_n = np.split(times(x, params["W"]), [2 * H], -1)
    h_rz, h_n = np.split(times(h, params["U"]), [2 * H], -1)
    (gain_x_rz, gain_x_n), (gain_h_rz, gain_h_n), (b_rz, b_n) = (
        np.split(params[name], [2 * H], -1) for name in ("gain_x", "gain_h", "b")
    )
    r, z = np.split(sigmoid(gain_x_rz * layer_norm(x_rz) + gain_h_rz * layer_norm(h_rz) + b_rz), 2, -1)
    reached = gain_h_n * layer_norm(h_n) + params["b_hn"]
    return ((1 - z) * h + z * np.tanh(gain_x_n * layer_norm(x_n) + b_n + r * reached),)


def layer_norm_lstm_step(params, state, x, times=product):
    """Runs one step of an LSTM with layer normalization (Ba et al., 2016). The state is `(h, c)`."""
    h, c = state
    from_x, from_h = layer_norm(times(x, params["W"])), layer_norm(times(h, params["U"]))
    i, f, g, o = np.split(params["gain_x"] * from_x + params["gain_h"] * from_h + params["b"], 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(params["gain_c"] * layer_norm(c) + params["b_c"]), c


def block_gru_step(params, state, x, times=product, epsilon=1e-4):
    """Runs one step of the block-diagonal GRU of DreamerV3 (Hafner et al., 2025). The state is `(h,)`."""
    (h,), U = state, params["U"]
    parts = np.split(h, U.shape[-3], -1)
    from_h = [np.split(times(part, U[..., k, :, :]), 3, -1) for k, part in enumerate(parts)]
    a = times(x, params["W"]) + np.concatenate([part[gate] for gate in range(3) for part in from_h], -1)
    if "gain" in params:
        a = params["gain"] * a / np.sqrt((a * a).mean(-1, keepdims=True) + epsilon)
    reset, candidate, update = np.split(a + params["b"], 3, -1)
    candidate = np.tanh(sigmoid(reset) * candidate)
    update = sigmoid(update - 1)
    return (update * candidate + (1 - update) * h,)


def lem_step(params, state, x, times=product, dt=1.0):
    """Runs one step of a Long Expressive Memory (Rusch et al., 2022). The state is `(y, z)`."""
    y, z = state
    (V_1, V_2, V_z, V_y), (b_1, b_2, b_z, b_y) = np.split(params["V"], 4, -1), np.split(params["b"], 4, -1)
    W_1, W_2, W_z = np.split(params["W"], 3, -1)
    step_1 = dt * sigmoid(times(y, W_1) + times(x, V_1) + b_1)
    step_2 = dt * sigmoid(times(y, W_2) + times(x, V_2) + b_2)
    z = (1 - step_1) * z + step_1 * np.tanh(times(y, W_z) + times(x, V_z) + b_z)
    y = (1 - step_2) * y + step_2 * np.tanh(times(z, params["W_y"]) + times(x, V_y) + b_y)
    return y, z


STEPS: dict[str, Callable] = {
    "gru_before": gru_step,
    "gru_after": partial(gru_step, reset="after"),
    "lstm": lstm_step,
    "elman": elman_step,
    "elman_relu": relu_step,
    "minimal": minimal_step,
    "min_gru": min_gru_step,
    "min_lstm": min_lstm_step,
    "lru": lru_step,
    "mgu": minimal_step,
    "ligru": ligru_step,
    "ligru_layer": partial(ligru_step, norm=True),
    "indrnn": indrnn_step,
    "layer_norm_gru": layer_norm_gru_step,
    "layer_norm_lstm": layer_norm_lstm_step,
    "block_gru": block_gru_step,
    "block_gru_rms": block_gru_step,
    "lem": partial(lem_step, dt=0.7),
}
OUTPUTS: dict[str, Callable[..., Any]] = {"lru": lru_output}
"""Functions of the parameters, the state after a step and its input. Other cells have `first_array`."""


class Steps(NamedTuple):
    """The options of one sequence: mask and resets (T,), reset_state and decay, tuples of arrays (N, T, H), and kept, a
    tuple of arrays (T, H)."""

    mask: np.ndarray
    resets: np.ndarray
    reset_state: tuple[np.ndarray, ...]
    decay: tuple[np.ndarray, ...]
    kept: tuple[np.ndarray, ...]


def unroll_one(step, output, params, xs, h0, length, steps: Steps, reverse):
    """Runs one sequence.

    Args:
      step: the step of a cell.
      output: its output, a function of the parameters, the state after a step and its input.
      params: its parameters.
      xs: (N, T, I).
      h0: arrays (N, H).
      length: the number of steps to run.
      steps: what happens at each step beside the cell. `kept` may be a probability.
      reverse: whether to run from the last step to the first.

    Returns:
      ys (N, T, H) and the final state.
    """
    (N, T, _), state = xs.shape, h0
    dtype = np.result_type(xs, *h0, *params.values(), *steps.reset_state, *steps.decay)
    ys = np.zeros((N, T, h0[0].shape[-1]), dtype)
    for t in reversed(range(length)) if reverse else range(length):
        first = t + 1 if reverse else t  # The step that follows the time between this step and the one before it.
        if first < length and steps.resets[first]:
            state = tuple(array[:, first] for array in steps.reset_state)
        if first < length and steps.mask[first]:
            state = tuple(array * factor[:, first] for array, factor in zip(state, steps.decay, strict=True))
        if steps.mask[t]:
            after = step(params, state, xs[:, t])
            state = tuple(k[t] * a + (1 - k[t]) * b for k, a, b in zip(steps.kept, state, after, strict=True))
        ys[:, t] = output(params, state, xs[:, t] if steps.mask[t] else np.zeros_like(xs[:, t]))
    return ys, state


def unroll(cell: str, params, xs, h0, options: Options, times=product):
    """Runs a cell on xs (N, ..., T, I) from h0, arrays (N, ..., H). Returns ys (N, ..., T, H) and the final state."""
    (N, *batch_shape, T, _), H, number = xs.shape, h0[0].shape[-1], len(h0)
    every = (N, *batch_shape, T, H)
    lengths = np.full(batch_shape, T) if options.lengths is None else options.lengths
    reset_state = [np.zeros((N, *batch_shape, H))] * number if options.reset_state is None else options.reset_state
    rates = (0.0,) * number if options.zoneout is None else options.zoneout
    mask = np.ones((*batch_shape, T), bool) if options.mask is None else options.mask
    resets = np.zeros((*batch_shape, T), bool) if options.resets is None else options.resets
    reset_state = tuple(a if a.ndim == len(every) else np.repeat(a[..., None, :], T, -2) for a in reset_state)
    decay = (np.ones(every),) * number if options.decay is None else options.decay
    kept = tuple(np.full(every[1:], rate) for rate in rates) if options.kept is None else options.kept
    dtype = np.result_type(xs, *h0, *params.values(), *reset_state, *decay)
    ys, final = np.zeros(every, dtype), tuple(np.zeros((N, *batch_shape, H), dtype) for _ in h0)
    step, output = partial(STEPS[cell], times=times), OUTPUTS.get(cell, first_array)
    for at in np.ndindex(*batch_shape):
        copies = (slice(None), *at)
        start = tuple(array[copies] for array in h0)
        in_copies = (tuple(array[copies] for array in arrays) for arrays in (reset_state, decay))
        own = Steps(mask[at], resets[at], *in_copies, kept=tuple(array[at] for array in kept))
        ys[copies], end = unroll_one(step, output, params, xs[copies], start, int(lengths[at]), own, options.reverse)
        for array, value in zip(final, end, strict=True):
            array[copies] = value
    return ys, final


def unroll_stack(cell: str, layers, xs, h0, options: Options, merge="concat"):
    """Runs a stack: `layers`, `h0` and `options.reset_state` have a tuple per layer with an entry per direction."""
    finals = []
    for layer, (directions, starts) in enumerate(zip(layers, h0, strict=True)):
        runs = []
        for number, (params, start) in enumerate(zip(directions, starts, strict=True)):
            fresh = None if options.reset_state is None else options.reset_state[layer][number]
            turned = options._replace(reset_state=fresh, reverse=options.reverse ^ bool(number))
            runs.append(unroll(cell, params, xs, start, turned))
        finals.append(tuple(final for _, final in runs))
        outputs = [ys for ys, _ in runs]
        xs = outputs[0] if len(outputs) == 1 else merge_two(*outputs, merge)
    return xs, tuple(finals)


def merge_two(forward, backward, merge):
    """Merges the outputs of two directions."""
    if merge == "concat":
        return np.concatenate([forward, backward], -1)
    return {"sum": forward + backward, "ave": (forward + backward) / 2, "mul": forward * backward}[merge]


def one_copy(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the arrays with a first axis of length 1."""
    return {name: array[None] for name, array in arrays.items()}


def weighted_sum(arrays: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> np.ndarray:
    """Returns (N,), the sum over the entries of all arrays (N, ...), each multiplied by its weight."""
    terms = [array * weight for array, weight in zip(arrays, weights, strict=True)]
    return np.sum([term.sum(tuple(range(1, term.ndim))) for term in terms], 0)


def gradients(function: Callable[..., Any], arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the gradient of `function(**arrays) -> (N,)` with respect to every entry of every array."""
    result = {}
    for name, array in arrays.items():
        copies = {key: np.broadcast_to(other, (array.size, *other.shape)) for key, other in arrays.items()}
        copies[name] = copies[name] + 1j * TINY * np.eye(array.size).reshape(array.size, *array.shape)
        result[name] = np.imag(function(**copies)).reshape(array.shape) / TINY
    return result
