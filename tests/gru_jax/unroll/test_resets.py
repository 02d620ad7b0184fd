"""Resets: packed episodes equal single episodes, in both directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax
from gru_jax import LSTM, Stack, linen, unroll
from gru_jax import nnx as modules
from gru_jax._unroll.modifiers import Modifiers
from tests.gru_jax.problems import CELLS, draw, library_decay, library_params, library_state

T, I, H = 8, 3, 4
EPISODES = [slice(0, 3), slice(3, 4), slice(4, 8)]
MARKS = np.isin(np.arange(T), [episode.start for episode in EPISODES])
BACKENDS = {
    "scan": {"backend": "scan"},
    "save": {"backend": "fused", "memory": "save", "block_length": 3},
    "recompute": {"backend": "fused", "memory": "recompute", "block_length": 3},
    "checkpoint": {"backend": "fused", "memory": "checkpoint", "block_length": 3},
}
pytestmark = pytest.mark.usefixtures("x64")


def close(found, expected, rtol=1e-11, atol=1e-12):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol, atol)


def values_and_gradients(run, arrays):
    """Returns `run(arrays)` and the gradient of a weighted sum of its squares."""

    def loss(arrays):
        outputs = run(arrays)
        leaves = jax.tree.leaves(outputs)
        return sum(
            (leaf**2 * (1 + jnp.sin(jnp.arange(leaf.size).reshape(leaf.shape)))).sum() for leaf in leaves
        ), outputs

    return jax.jit(jax.grad(loss, has_aux=True))(arrays)


@pytest.mark.parametrize(
    ("name", "reverse", "backend"),
    [
        ("gru_before", True, "save"),
        ("gru_after", False, "recompute"),
        ("lstm", True, "checkpoint"),
        ("lstm", False, "scan"),
        ("elman", True, "recompute"),
        ("minimal", True, "scan"),
        ("minimal", False, "save"),
    ],
)
def test_packed_episodes_equal_single_episodes(name, reverse, backend):
    """Each episode starts from the state of its mark. The first one in the run starts from h0 if it has no mark."""
    arrays = jax.tree.map(jnp.asarray, draw(name, (), T=T, resets="state per mark", seed=5).arrays)
    options = {"reverse": reverse, **BACKENDS[backend]}

    def start(arrays, episode):
        """In reverse, the mark at t sets the state before step t - 1."""
        if reverse:
            fresh = {key: arrays["reset_" + key][episode.stop] if episode.stop < T else arrays[key] for key in states}
        else:
            fresh = {key: arrays["reset_" + key][episode.start] for key in states}
        return library_state(name, fresh)

    states = [key for key in ("h", "c") if key in arrays]

    def packed(arrays):
        fresh = library_state(name, {key: arrays["reset_" + key] for key in states})
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        return unroll(CELLS[name], params, arrays["xs"], h0, resets=MARKS, reset_state=fresh, **options)

    def alone(arrays):
        params = library_params(name, arrays)
        runs = [
            unroll(CELLS[name], params, arrays["xs"][episode], start(arrays, episode), reverse=reverse, backend="scan")
            for episode in EPISODES
        ]
        return jnp.concatenate([ys for ys, _ in runs]), runs[0 if reverse else -1][1]

    close(values_and_gradients(packed, arrays), values_and_gradients(alone, arrays))


def rows():
    """Returns a row of two packed episodes, and a padded row of one episode with marks in the padding."""
    xs = np.random.default_rng(0).normal(size=(2, T, I))
    marks = np.stack([np.isin(np.arange(T), marked) for marked in ([0, 3], [0, 5, 7])])
    return jnp.asarray(xs), marks, np.array([T, 5]), [(0, 0, 3), (0, 3, 8), (1, 0, 5)]


def laid_out(outputs, episodes):
    """Returns the outputs of single episodes at their positions in the rows, and zeros elsewhere."""
    ys = jnp.zeros((2, T, outputs[0].shape[-1]))
    for output, (row, start, stop) in zip(outputs, episodes, strict=True):
        ys = ys.at[row, start:stop].set(output)
    return ys


@pytest.mark.parametrize(
    ("name", "backend", "reverse", "time_major"),
    [
        ("gru_before", "scan", False, False),
        ("gru_after", "save", True, True),
        ("lstm", "recompute", False, True),
        ("minimal", "checkpoint", True, False),
    ],
)
def test_packed_episodes_equal_single_episodes_in_a_bidirectional_stack(name, backend, reverse, time_major):
    stack = Stack(CELLS[name], num_layers=2, bidirectional=True)
    params = stack.init(jax.random.key(0), I, H, jnp.float64)
    xs, marks, lengths, episodes = rows()

    def packed(both):
        params, xs = both
        if time_major:
            options = {"resets": marks.T, "lengths": lengths, "time_major": True, "reverse": reverse}
            return unroll(stack, params, xs.swapaxes(0, 1), **options, **BACKENDS[backend])[0].swapaxes(0, 1)
        return unroll(stack, params, xs, lengths=lengths, resets=marks, reverse=reverse, **BACKENDS[backend])[0]

    def alone(both):
        params, xs = both
        outputs = [unroll(stack, params, xs[n, i:k], reverse=reverse, backend="scan")[0] for n, i, k in episodes]
        return laid_out(outputs, episodes)

    close(values_and_gradients(packed, (params, xs)), values_and_gradients(alone, (params, xs)))


@pytest.mark.parametrize("reverse", [False, True])
def test_packed_episodes_equal_single_episodes_in_modules(reverse):
    xs, marks, lengths, episodes = rows()
    options = {"lengths": lengths, "resets": marks, "reverse": reverse}
    layer = modules.GRU(I, H, num_layers=2, bidirectional=True, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    alone = [layer(xs[n, i:k], reverse=reverse)[0] for n, i, k in episodes]
    close(layer(xs, **options)[0], laid_out(alone, episodes))

    layer = linen.LSTM(H, num_layers=2, bidirectional=True, param_dtype=jnp.float64)
    variables = layer.init(jax.random.key(0), xs)
    alone = [layer.apply(variables, xs[n, i:k], reverse=reverse)[0] for n, i, k in episodes]
    close(layer.apply(variables, xs, **options)[0], laid_out(alone, episodes))


@pytest.mark.parametrize(
    ("name", "resets", "backend"),
    [
        ("gru_before", True, "save"),
        ("gru_after", "state", "checkpoint"),
        ("lstm", "state per mark", "recompute"),
        ("lstm", True, "scan"),
        ("minimal", "state", "save"),
    ],
)
def test_chunks_with_a_carried_state_equal_one_pass(name, resets, backend):
    """A mark inside a later chunk starts an episode from the reset state, not from the initial state of the chunk.

    The first decay of a chunk multiplies the carried state.
    """
    problem = draw(name, (3,), T=T, resets=resets, decay=True, seed=7)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    marks = np.asarray(problem.resets)
    assert marks[:, 1:3].any()
    assert marks[:, 4:].any()

    def run(arrays, h0, steps):
        fresh = {key[len("reset_") :]: a for key, a in arrays.items() if key.startswith("reset_")}
        if resets == "state per mark":
            fresh = {key: a[:, steps] for key, a in fresh.items()}
        fresh = library_state(name, fresh) if fresh else None
        decay = jax.tree.map(lambda a: a[:, steps], library_decay(name, arrays))
        masks = {"resets": marks[:, steps], "reset_state": fresh, "decay": decay}
        return unroll(
            CELLS[name], library_params(name, arrays), arrays["xs"][:, steps], h0, **masks, **BACKENDS[backend]
        )

    def in_chunks(arrays):
        h, outputs = library_state(name, arrays), []
        for steps in (slice(0, 3), slice(3, 4), slice(4, T)):
            ys, h = run(arrays, h, steps)
            outputs.append(ys)
        return jnp.concatenate(outputs, 1), h

    def at_once(arrays):
        return run(arrays, library_state(name, arrays), slice(0, T))

    close(values_and_gradients(in_chunks, arrays), values_and_gradients(at_once, arrays))


@pytest.mark.parametrize("backend", BACKENDS)
def test_episodes_start_from_zeros_or_the_reset_state(backend):
    """One unit halves its state at each step: if all parameters are zero, z = 1/2 and n = 0."""
    params = jax.tree.map(jnp.zeros_like, gru_jax.GRU().init(jax.random.key(0), 1, 1, jnp.float64))
    xs, h0, marks = jnp.zeros((4, 1)), jnp.full((1,), 8.0), np.array([False, False, True, False])

    def outputs(reset_state, reverse=False, resets=marks):
        options = {"resets": resets, "reset_state": reset_state, "reverse": reverse}
        return np.asarray(unroll(gru_jax.GRU(), params, xs, h0, **options, **BACKENDS[backend])[0])[:, 0].tolist()

    assert outputs(None) == [4, 2, 0, 0]
    assert outputs(jnp.full((1,), 16.0)) == [4, 2, 8, 4]
    assert outputs(jnp.array([[2.0], [4.0], [32.0], [64.0]])) == [4, 2, 16, 8]
    assert outputs(None, reverse=True) == [0, 0, 2, 4]
    assert outputs(jnp.array([[2.0], [4.0], [32.0], [64.0]]), reverse=True) == [8, 16, 2, 4]
    at_the_start = np.array([True, False, False, False])
    assert outputs(None, resets=at_the_start) == [0, 0, 0, 0]
    assert outputs(None, reverse=True, resets=at_the_start) == [0.5, 1, 2, 4]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_unused_reset_states_do_not_change_values_or_gradients(backend, reverse):
    """Reset states of unmarked steps and of marks in the padding are unused, and their gradient is zero."""
    problem = draw("lstm", (3,), T=T, lengths=True, resets="state per mark", seed=3)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    read = problem.resets & (np.arange(T) < problem.lengths[:, None])
    read[:, 0] &= not reverse

    def run(arrays):
        fresh = library_state("lstm", {"h": arrays["reset_h"], "c": arrays["reset_c"]})
        options = {"lengths": problem.lengths, "resets": problem.resets, "reset_state": fresh, "reverse": reverse}
        params, h0 = library_params("lstm", arrays), library_state("lstm", arrays)
        return unroll(LSTM(), params, arrays["xs"], h0, **options, **BACKENDS[backend])

    spoilt = arrays | {key: jnp.where(read[..., None], arrays[key], jnp.nan) for key in ("reset_h", "reset_c")}
    gradient, values = values_and_gradients(run, spoilt)
    close((gradient, values), values_and_gradients(run, arrays))
    for key in ("reset_h", "reset_c"):
        assert np.asarray(gradient[key])[read].all()
        assert not np.asarray(gradient[key])[~read].any()


def test_reset_state_may_be_per_mark_in_one_field_only():
    problem = draw("lstm", (3,), T=T, resets="state per mark", seed=3)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    constant = arrays["reset_c"][:, 0]
    everywhere = jnp.stack([constant] * T, 1)
    params, h0 = library_params("lstm", arrays), library_state("lstm", arrays)

    def run(c):
        fresh = gru_jax.LSTMState(h=arrays["reset_h"], c=c)
        return unroll(LSTM(), params, arrays["xs"], h0, resets=problem.resets, reset_state=fresh)

    close(run(constant), run(everywhere))


def test_reversed_modifiers_are_shifted_by_one_step():
    marks, states = jnp.array([[True], [False], [True]]), jnp.arange(3.0)[:, None, None]
    turned = Modifiers(marks, states, decay=states + 4).reverse()
    np.testing.assert_array_equal(turned.resets[:, 0], [False, True, False])
    np.testing.assert_array_equal(turned.reset_states[:, 0, 0], [1, 2, 0])
    np.testing.assert_array_equal(turned.decay[:, 0, 0], [5, 6, 1])
    assert Modifiers(marks[:0]).reverse().resets.shape == (0, 1)


B = 2
H0 = jnp.zeros((B, H), jnp.float32)
RESETS = jnp.zeros((B, T), bool)
STACKED = Stack(gru_jax.GRU(), num_layers=2, bidirectional=True)


@pytest.mark.parametrize(
    ("cell", "options", "error", "message"),
    [
        (gru_jax.GRU(), {"reset_state": H0}, ValueError, "reset_state: expected None without resets, got a state"),
        (
            gru_jax.GRU(),
            {"resets": RESETS, "reset_state": H0[:1]},
            ValueError,
            "reset_state: expected shape (2, 4), or (2, 8, 4) for a state per reset, got (1, 4)",
        ),
        (
            gru_jax.GRU(),
            {"resets": RESETS.T, "reset_state": jnp.zeros((B, T, H), jnp.float32), "time_major": True},
            ValueError,
            "reset_state: expected shape (2, 4), or (8, 2, 4) for a state per reset, got (2, 8, 4)",
        ),
        (
            LSTM(),
            {"resets": RESETS, "reset_state": gru_jax.LSTMState(H0, H0[:, :2])},
            ValueError,
            "reset_state.c: expected shape (2, 4), or (2, 8, 4) for a state per reset, got (2, 2)",
        ),
        (
            gru_jax.GRU(),
            {"resets": RESETS, "reset_state": H0.astype(jnp.int32)},
            TypeError,
            "reset_state: expected a floating-point dtype, got int32",
        ),
        (
            gru_jax.GRU(),
            {"resets": RESETS, "reset_state": H0.astype(jnp.bfloat16)},
            TypeError,
            "reset_state: expected dtype float32, as the parameters, got bfloat16",
        ),
        (
            LSTM(),
            {"resets": RESETS, "reset_state": (H0, H0)},
            TypeError,
            "reset_state: expected LSTMState(h, c), got a tuple of (an array, an array)",
        ),
        (
            STACKED,
            {"resets": RESETS, "reset_state": H0},
            TypeError,
            "reset_state: expected a tuple of (a tuple of (an array, an array), a tuple of (an array, an array)), "
            "got an array",
        ),
    ],
)
def test_wrong_reset_state_raises_one_line(cell, options, error, message):
    params = cell.init(jax.random.key(0), I, H)
    xs = jnp.zeros((T, B, I) if options.get("time_major") else (B, T, I), jnp.float32)
    with pytest.raises(error) as caught:
        unroll(cell, params, xs, **options)
    assert str(caught.value) == message
