"""Padding and masked steps are ignored, the sequences of a batch are independent, and outputs are causal."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import unroll
from gru_jax._unroll.modifiers import Modifiers, apply_reset, hold_state, mask_out, select
from tests.gru_jax.problems import CELLS, draw, library_decay, library_params, library_state

BACKENDS = {
    "scan": {"backend": "scan"},
    "save": {"backend": "fused", "memory": "save", "block_length": 3},
    "recompute": {"backend": "fused", "memory": "recompute", "block_length": 3},
    "checkpoint": {"backend": "fused", "memory": "checkpoint", "block_length": 3},
}
T = 8


@cache
def evaluation(name, backend, reverse):
    """Returns a function for the gradient of a loss and the outputs, and its arguments.

    The loss depends on every output and every final state.
    """
    problem = draw(name, (4,), T=T, resets=True, seed=3)

    def loss(arrays, lengths, resets):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        options = {"lengths": lengths, "resets": resets, "reverse": reverse, **BACKENDS[backend]}
        ys, h_last = unroll(CELLS[name], params, arrays["xs"], h0, **options)
        weights = [jnp.asarray(weight, jnp.float32) for weight in problem.weights]
        terms = zip((ys, *jax.tree.leaves(h_last)), weights, strict=True)
        return sum((array * weight).sum() for array, weight in terms), (ys, h_last)

    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    return jax.jit(jax.grad(loss, has_aux=True)), arrays, jnp.array([5, T, 0, 3]), jnp.asarray(problem.resets)


def assert_bits_equal(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "backend", "reverse"),
    [
        ("gru_before", "scan", False),
        ("gru_before", "save", True),
        ("gru_before", "checkpoint", False),
        ("gru_after", "scan", True),
        ("gru_after", "recompute", False),
        ("lstm", "save", False),
        ("lstm", "checkpoint", True),
        ("elman", "recompute", True),
        ("minimal", "save", False),
        ("minimal", "checkpoint", True),
    ],
)
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_padding_does_not_change_values_or_gradients(name, backend, reverse, garbage):
    evaluate, arrays, lengths, resets = evaluation(name, backend, reverse)
    past = np.arange(T)[None, :] >= np.asarray(lengths)[:, None]
    gradient, (ys, h_last) = evaluate(arrays, lengths, resets)
    spoilt = arrays | {"xs": jnp.where(past[:, :, None], garbage, arrays["xs"])}
    assert_bits_equal(evaluate(spoilt, lengths, resets ^ past), (gradient, (ys, h_last)))
    assert np.isfinite(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])).all()
    assert not np.asarray(gradient["xs"])[past].any()
    assert np.asarray(gradient["xs"])[~past].any(axis=-1).all()
    assert not np.asarray(ys)[past].any()


def masked_evaluation(name, backend, reverse):
    """Returns a function for the gradient of a loss and the outputs, and its arguments: arrays and a mask."""
    problem = draw(name, (4,), T=T, mask=True, decay=True, resets=True, seed=3)

    def loss(arrays, mask):
        params, h0 = library_params(name, arrays), library_state(name, arrays)
        steps = {"mask": mask, "resets": problem.resets, "decay": library_decay(name, arrays)}
        options = {"reverse": reverse, **BACKENDS[backend]}
        ys, h_last = unroll(CELLS[name], params, arrays["xs"], h0, **steps, **options)
        terms = zip((ys, *jax.tree.leaves(h_last)), problem.weights, strict=True)
        return sum((array * weight).sum() for array, weight in terms), (ys, h_last)

    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    return jax.jit(jax.grad(loss, has_aux=True)), arrays, np.asarray(problem.mask)


@pytest.mark.parametrize(
    ("name", "backend", "reverse"),
    [
        ("gru_before", "scan", False),
        ("gru_after", "recompute", True),
        ("lstm", "checkpoint", False),
        ("elman", "save", True),
        ("minimal", "save", False),
    ],
)
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_masked_steps_do_not_change_values_or_gradients(name, backend, reverse, garbage):
    """Neither inputs nor decay at masked steps have an effect. A row is masked at all steps."""
    evaluate, arrays, mask = masked_evaluation(name, backend, reverse)
    assert not mask[0].any()
    assert mask[1:].any(-1).all()
    spoilt = arrays | {
        key: jnp.where(mask[..., None], a, garbage) for key, a in arrays.items() if key == "xs" or "decay" in key
    }
    gradient, (ys, h_last) = evaluate(arrays, mask)
    assert_bits_equal(evaluate(spoilt, mask), (gradient, (ys, h_last)))
    assert np.isfinite(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])).all()
    for key in spoilt.keys() - {"W", "U", "b", "b_hn", "h", "c"}:
        assert not np.asarray(gradient[key])[~mask].any()
    assert np.asarray(gradient["xs"])[mask].any(-1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_state_and_output_of_a_masked_row_are_held(backend):
    problem = draw("lstm", (4,), T=T, mask=True)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    params, h0 = library_params("lstm", arrays), library_state("lstm", arrays)
    decay = jnp.full((4, T, 1), 0.5)
    options = {"mask": problem.mask, "decay": decay, **BACKENDS[backend]}
    ys, h_last = unroll(CELLS["lstm"], params, arrays["xs"], h0, **options)
    np.testing.assert_array_equal(ys[0], np.repeat(h0.h[:1], T, 0))
    assert_bits_equal([a[0] for a in h_last], [a[0] for a in h0])
    outputs = np.concatenate((np.asarray(h0.h)[:, None], ys), 1)
    held = (outputs[:, 1:] == outputs[:, :-1]).all(-1)
    np.testing.assert_array_equal(held, ~problem.mask)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", ["gru_before", "lstm"])
def test_masked_steps_may_be_left_out(name, reverse):
    """Also with decay: the time before a masked step has no decay."""
    problem = draw(name, (), T=T, decay=True, seed=6)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    mask = np.array([True, True, False, True, False, False, True, False])
    params, h0, decay = library_params(name, arrays), library_state(name, arrays), library_decay(name, arrays)
    ys, h_last = unroll(CELLS[name], params, arrays["xs"], h0, mask=mask, decay=decay, reverse=reverse)
    decay = jax.tree.map(lambda a: a[mask], decay)
    expected = unroll(CELLS[name], params, arrays["xs"][mask], h0, decay=decay, reverse=reverse)
    for a, b in zip(jax.tree.leaves((ys[mask], h_last)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_lengths_override_mask_and_decay():
    problem = draw("gru_before", (4,), T=T, mask=True, lengths=True, decay="one")
    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    params, h0, past = library_params("gru_before", arrays), arrays["h"], np.arange(T) >= problem.lengths[:, None]

    def outputs(mask, decay):
        options = {"lengths": problem.lengths, "mask": mask, "decay": decay, "reverse": True}
        return unroll(CELLS["gru_before"], params, arrays["xs"], h0, **options)

    ys, h_last = outputs(problem.mask, arrays["decay"])
    spoilt = outputs(problem.mask ^ past, jnp.where(past[..., None], jnp.nan, arrays["decay"]))
    assert_bits_equal(spoilt, (ys, h_last))
    assert not np.asarray(ys)[past].any()


@pytest.mark.parametrize(("name", "backend", "reverse"), [("gru_before", "save", True), ("lstm", "checkpoint", True)])
def test_final_state_of_an_empty_sequence_is_its_initial_state(name, backend, reverse):
    evaluate, arrays, lengths, resets = evaluation(name, backend, reverse)
    gradient, (ys, h_last) = evaluate(arrays, lengths, resets)
    start = library_state(name, arrays)
    assert_bits_equal(jax.tree.map(lambda a: a[2], h_last), jax.tree.map(lambda a: a[2], start))
    assert not ys[2].any()
    assert gradient["h"][2].all()


@pytest.mark.parametrize(
    ("name", "backend", "reverse"),
    [
        ("gru_before", "save", True),
        ("gru_after", "scan", True),
        ("gru_after", "recompute", False),
        ("lstm", "checkpoint", True),
        ("minimal", "save", False),
    ],
)
def test_sequences_of_a_batch_are_independent(name, backend, reverse):
    evaluate, arrays, lengths, resets = evaluation(name, backend, reverse)
    changed = arrays | {key: arrays[key].at[0].add(1.0) for key in arrays if key in ("xs", "h", "c")}
    with_other = evaluate(changed, lengths.at[0].set(T), resets.at[0].set(~resets[0]))
    gradient, values = evaluate(arrays, lengths, resets)

    def of_the_others(gradient, values):
        return jax.tree.map(lambda a: a[1:], (values, [gradient[key] for key in ("xs", "h", "c") if key in gradient]))

    assert_bits_equal(of_the_others(gradient, values), of_the_others(*with_other))
    assert not np.array_equal(values[0][0], with_other[1][0][0])


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_outputs_do_not_depend_on_later_inputs(name, reverse):
    problem = draw(name, (), T=5, I=1, H=2, seed=1)
    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    params, h0 = library_params(name, arrays), library_state(name, arrays)
    backend = {"memory": "checkpoint" if reverse else "save", "block_length": 2}

    def outputs(xs):
        return unroll(CELLS[name], params, xs, h0, reverse=reverse, backend="fused", **backend)[0]

    jacobian = jax.jit(jax.jacrev(outputs))(arrays["xs"])[:, :, :, 0]  # (t, H, s)
    influence = np.abs(jacobian).max(axis=1)
    earlier = np.tril(np.ones((5, 5), bool))
    allowed = earlier.T if reverse else earlier
    assert not influence[~allowed].any()
    assert (influence[allowed] > 1e-7).all()


@pytest.mark.parametrize("name", ["gru_before", "lstm"])
def test_reverse_with_lengths_equals_flipping_each_sequence(name):
    problem = draw(name, (3,), T=T, seed=6)
    arrays = {key: jnp.asarray(array, jnp.float32) for key, array in problem.arrays.items()}
    params, h0 = library_params(name, arrays), library_state(name, arrays)
    lengths = np.array([5, 8, 1])

    def flip(batch):
        return np.stack([np.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(batch, lengths, strict=True)])

    xs = np.asarray(arrays["xs"])
    ys, h_last = unroll(CELLS[name], params, xs, h0, lengths=lengths, reverse=True, block_length=3)
    flipped_ys, flipped_h_last = unroll(CELLS[name], params, flip(xs), h0, lengths=lengths, block_length=3)
    np.testing.assert_allclose(ys, flip(np.asarray(flipped_ys)), rtol=1e-5, atol=1e-6)
    for a, b in zip(jax.tree.leaves(h_last), jax.tree.leaves(flipped_h_last), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int32])
def test_lengths_have_any_integer_dtype(dtype, backend):
    """8 bits cannot represent the 300 steps."""
    params = CELLS["gru_before"].init(jax.random.key(0), 1, 2)
    ys, _ = unroll(
        CELLS["gru_before"], params, np.ones((2, 300, 1)), lengths=np.array([100, 7], dtype), backend=backend
    )
    np.testing.assert_array_equal(np.asarray(ys).any(-1).sum(1), [100, 7])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "length"), [(np.uint32, 2**31 + 5), (np.int64, 2**32 + 1), (np.uint64, 2**63 + 1)])
def test_traced_lengths_past_the_end_are_clipped_in_any_integer_dtype(dtype, length):
    cell = CELLS["gru_before"]
    params, xs = cell.init(jax.random.key(0), 2, 3), jnp.ones((1, 4, 2), jnp.float32)
    ys, _ = jax.jit(lambda lengths: unroll(cell, params, xs, lengths=lengths))(np.array([length], dtype))
    np.testing.assert_array_equal(ys, unroll(cell, params, xs)[0])


def test_constant_lengths_equal_eager_lengths_under_jit():
    cell = CELLS["gru_before"]
    params, xs, lengths = cell.init(jax.random.key(0), 2, 3), jnp.ones((2, 4, 2)), jnp.array([4, 1])
    expected, _ = unroll(cell, params, xs, lengths=lengths)
    ys, _ = jax.jit(lambda xs: unroll(cell, params, xs, lengths=lengths))(xs)
    np.testing.assert_allclose(ys, expected, rtol=1e-6)


def test_masks_select_per_sequence():
    where = jnp.array([True, False])
    first, second = {"h": jnp.ones((2, 3))}, {"h": jnp.full((2, 3), 2.0)}
    chosen = [[1.0] * 3, [2.0] * 3]
    np.testing.assert_array_equal(select(where, first, second)["h"], chosen)
    np.testing.assert_array_equal(apply_reset(Modifiers(where), first, second)["h"], chosen)
    np.testing.assert_array_equal(apply_reset(Modifiers(where, first), None, second)["h"], chosen)
    np.testing.assert_array_equal(apply_reset(Modifiers(where), None, second)["h"], [[0.0] * 3, [2.0] * 3])
    np.testing.assert_array_equal(hold_state(Modifiers(keep=where[:, None]), first, second)["h"], chosen)
    np.testing.assert_array_equal(mask_out(where, second)["h"], [[2.0] * 3, [0.0] * 3])
    assert apply_reset(Modifiers(), first, second) is second
    np.testing.assert_array_equal(hold_state(Modifiers(), first, second)["h"], second["h"])
    over_time = select(jnp.array([[True, False], [False, True]]), jnp.ones((2, 3)), jnp.zeros((2, 2, 3)))
    np.testing.assert_array_equal(over_time[..., 0], [[1, 0], [0, 1]])
