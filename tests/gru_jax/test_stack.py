"""Stacks of layers and directions against the oracle, and dropout between layers."""

from dataclasses import dataclass
from itertools import combinations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.nnx import Rngs

from gru_jax import GRU, LSTM, Elman, LSTMState, Stack, linen, nnx, unroll
from tests.gru_jax import oracle
from tests.gru_jax.minimal_gated_unit import Minimal
from tests.gru_jax.problems import CELLS, draw, library_params, library_reset_state, library_state, state_names

B, T, I, H = 3, 5, 2, 3
CASES = [
    # cell, layers, both directions, merge, lengths, resets, reverse, backend
    ("gru_before", 1, True, "concat", True, "state per mark", False, {"backend": "fused", "block_length": 2}),
    ("gru_before", 3, False, "concat", True, False, True, {"backend": "fused", "memory": "checkpoint"}),
    ("gru_after", 2, True, "sum", True, False, False, {"backend": "fused", "memory": "recompute", "block_length": 2}),
    ("gru_after", 2, True, "concat", False, "state", True, {"backend": "scan"}),
    ("lstm", 2, True, "concat", True, False, False, {"backend": "fused", "block_length": 3}),
    ("lstm", 1, True, "sum", False, True, True, {"backend": "fused", "memory": "checkpoint", "block_length": 2}),
    ("lstm", 2, True, "concat", True, "state", False, {"backend": "fused", "memory": "recompute", "block_length": 2}),
    ("elman", 3, True, "sum", True, True, False, {"backend": "scan"}),
    ("elman_relu", 2, True, "ave", True, True, True, {"backend": "fused", "block_length": 2}),
    ("gru_after", 3, True, "mul", True, False, False, {"backend": "fused", "memory": "recompute"}),
    ("lstm", 2, True, "ave", False, True, False, {"backend": "scan"}),
    ("gru_before", 1, True, "mul", False, False, True, {"backend": "fused"}),
    ("layer_norm_lstm", 2, True, "sum", True, "state", False, {"backend": "fused", "block_length": 2}),
    ("lem", 2, True, "concat", True, False, True, {"backend": "fused", "memory": "recompute"}),
    ("minimal", 2, False, "concat", False, False, False, {"backend": "fused", "block_length": 2}),
]


def stacked(name, num_layers, bidirectional, merge, resets=False):
    """Returns random arrays for every layer and direction, named `layer.direction.array`, and the loss weights."""
    directions, arrays = 2 if bidirectional else 1, {}
    width = H * directions if merge == "concat" else H
    for number, direction in product(range(num_layers), range(directions)):
        sizes = {"T": T, "I": I if number == 0 else width, "H": H}
        one = draw(name, (B,), **sizes, resets=resets, seed=10 * number + direction)
        arrays |= {f"{number}.{direction}.{key}": array for key, array in one.arrays.items() if key != "xs"}
    rng = np.random.default_rng(99)
    arrays["xs"] = rng.normal(size=(B, T, I))
    weights = [rng.normal(size=(B, T, width))]
    weights += [rng.normal(size=(B, H)) for _ in range(num_layers * directions * len(state_names(name)))]
    return arrays, weights


def by_layer(arrays, num_layers, bidirectional, make):
    """Returns `make(arrays)` for every layer and direction, with the structure of a stack."""
    return tuple(
        tuple(
            make({key.split(".")[2]: a for key, a in arrays.items() if key.startswith(f"{number}.{direction}.")})
            for direction in range(2 if bidirectional else 1)
        )
        for number in range(num_layers)
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "num_layers", "both", "merge", "lengths", "resets", "reverse", "backend"), CASES)
def test_values_and_gradients_equal_the_oracle(name, num_layers, both, merge, lengths, resets, reverse, backend):
    arrays, weights = stacked(name, num_layers, both, merge, resets)
    masks = {
        "lengths": np.array([3, 5, 0]) if lengths else None,
        "resets": np.random.default_rng(5).random((B, T)) < 0.3 if resets else None,
    }

    def expected(**arrays):
        layers = by_layer(arrays, num_layers, both, lambda one: one)
        h0 = by_layer(arrays, num_layers, both, lambda one: tuple(one[key] for key in state_names(name)))
        fresh = None
        if isinstance(resets, str):
            fresh = by_layer(arrays, num_layers, both, lambda one: [one[f"reset_{key}"] for key in state_names(name)])
        options = oracle.Options(reverse=reverse, reset_state=fresh, **masks)
        return oracle.unroll_stack(name, layers, arrays["xs"], h0, options, merge)

    def loss(outputs):
        return sum((a * w).sum() for a, w in zip(jax.tree.leaves(outputs), weights, strict=True))

    def run(arrays):
        params = by_layer(arrays, num_layers, both, lambda one: library_params(name, one))
        h0 = by_layer(arrays, num_layers, both, lambda one: library_state(name, one))
        fresh = None
        if isinstance(resets, str):
            fresh = by_layer(arrays, num_layers, both, lambda one: library_reset_state(name, one))
        stack = Stack(CELLS[name], num_layers, bidirectional=both, merge=merge)
        outputs = unroll(stack, params, arrays["xs"], h0, reverse=reverse, reset_state=fresh, **masks, **backend)
        return loss(outputs), outputs

    gradient, (ys, h_last) = jax.jit(jax.grad(run, has_aux=True))(jax.tree.map(jnp.asarray, arrays))
    wanted_ys, wanted_last = expected(**oracle.one_copy(arrays))
    np.testing.assert_allclose(ys, wanted_ys[0], rtol=1e-10, atol=1e-10)
    for a, b in zip(jax.tree.leaves(h_last), jax.tree.leaves(wanted_last), strict=True):
        np.testing.assert_allclose(a, b[0], rtol=1e-10, atol=1e-10)
    wanted = oracle.gradients(
        lambda **arrays: oracle.weighted_sum(jax.tree.leaves(expected(**arrays)), weights), arrays
    )
    for key in arrays:
        np.testing.assert_allclose(gradient[key], wanted[key], rtol=1e-10, atol=1e-10, err_msg=key)


def test_parameters_and_states_have_an_entry_per_layer_and_direction():
    stack = Stack(LSTM(), num_layers=2, bidirectional=True)
    params = stack.init(jax.random.key(0), input_size=I, hidden_size=H)
    assert [[p.W.shape for p in layer] for layer in params] == [[(I, 4 * H)] * 2, [(2 * H, 4 * H)] * 2]
    summed = Stack(LSTM(), num_layers=2, bidirectional=True, merge="sum").init(jax.random.key(0), I, H)
    assert summed[1][0].W.shape == (H, 4 * H)
    state = stack.initial_state(H, (B,))
    assert jax.tree.structure(state) == jax.tree.structure(((LSTMState(0, 0),) * 2,) * 2)
    assert {leaf.shape for leaf in jax.tree.leaves(state)} == {(B, H)}
    ys, h_last = unroll(stack, params, jnp.ones((B, T, I)))
    assert ys.shape == (B, T, 2 * H)
    assert jax.tree.structure(h_last) == jax.tree.structure(state)
    first, second = params[0]
    assert not np.array_equal(first.W, second.W)


def test_stack_of_one_layer_equals_its_cell():
    cell, xs = GRU(), jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
    params = cell.init(jax.random.key(0), I, H)
    ys, h_last = unroll(cell, params, xs)
    stacked_ys, ((stacked_last,),) = unroll(Stack(cell), ((params,),), xs)
    np.testing.assert_array_equal(stacked_ys, ys)
    np.testing.assert_array_equal(stacked_last, h_last)


def test_first_half_of_a_bidirectional_output_is_the_forward_direction():
    stack, xs = Stack(GRU(), bidirectional=True), jnp.ones((B, T, I))
    params = stack.init(jax.random.key(0), I, H)
    ys, ((forward_last, backward_last),) = unroll(stack, params, xs)
    np.testing.assert_array_equal(ys[:, -1, :H], forward_last)
    np.testing.assert_array_equal(ys[:, 0, H:], backward_last)


@pytest.mark.parametrize("merge", ["concat", "sum"])
def test_bidirectional_outputs_depend_on_all_inputs(merge):
    stack = Stack(GRU(), bidirectional=True, merge=merge)
    params = stack.init(jax.random.key(0), 1, 2)
    jacobian = jax.jit(jax.jacrev(lambda xs: unroll(stack, params, xs)[0]))(jnp.ones((4, 1)))
    assert (np.abs(jacobian).max(axis=(1, 3)) > 1e-6).all()


def test_stack_supports_time_major_inputs_and_any_batch_axes():
    stack = Stack(LSTM(), num_layers=2, bidirectional=True)
    params = stack.init(jax.random.key(0), I, H)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, T, I)), jnp.float32)
    lengths = jnp.array([[1, 5, 3], [0, 2, 4]])
    ys, h_last = unroll(stack, params, xs, lengths=lengths)
    swapped, swapped_last = unroll(stack, params, jnp.moveaxis(xs, 2, 0), lengths=lengths, time_major=True)
    np.testing.assert_allclose(jnp.moveaxis(swapped, 0, 2), ys, rtol=1e-6, atol=1e-7)
    one_ys, one_last = unroll(stack, params, xs[1, 2], lengths=lengths[1, 2])
    np.testing.assert_allclose(one_ys, ys[1, 2], rtol=1e-5, atol=1e-6)
    for a, b, c in zip(*map(jax.tree.leaves, (h_last, swapped_last, one_last)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(a[1, 2], c, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Echo(Minimal):
    """A cell that returns its input, to test the operations between the layers of a stack."""

    def infer_sizes(self, params):
        return params.W.shape[0], params.W.shape[0], params.W.dtype

    def project(self, params, xs, matmul_dtype=None):
        return xs

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        return gate_inputs


def echo(num_layers, rate, key, size=40, **options):
    stack = Stack(Echo(), num_layers, dropout=rate)
    params = stack.init(jax.random.key(0), size, size)
    return np.asarray(unroll(stack, params, jnp.full((20, 50, size), 2.0), key=key, **options)[0])


def test_dropout_is_not_applied_without_a_key_or_a_rate():
    np.testing.assert_array_equal(echo(3, 0.5, None), 2.0)
    np.testing.assert_array_equal(echo(3, 0.0, jax.random.key(1)), 2.0)


def test_dropout_is_not_applied_after_the_last_layer():
    np.testing.assert_array_equal(echo(1, 0.5, jax.random.key(1)), 2.0)


@pytest.mark.parametrize(("num_layers", "rate"), [(2, 0.25), (3, 0.5)])
def test_dropout_masks_are_independent_between_layers(num_layers, rate):
    ys = echo(num_layers, rate, jax.random.key(1))
    kept = (1 - rate) ** (num_layers - 1)  # Masks of different layers are independent.
    assert abs((ys != 0).mean() - kept) < 5 * np.sqrt(kept * (1 - kept) / ys.size)
    np.testing.assert_allclose(ys[ys != 0], 2 / kept, rtol=1e-6)
    assert (ys == 0).any(axis=1).any()
    assert not (ys == 0).all(axis=1).any()  # Masks differ between steps.


def test_dropout_masks_depend_on_the_key_and_not_on_the_backend():
    first, again, other = (echo(2, 0.5, jax.random.key(seed), backend="scan") for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(echo(2, 0.5, jax.random.key(1), memory="checkpoint", block_length=7), first)
    np.testing.assert_array_equal(echo(2, 0.5, jax.random.PRNGKey(1)), first)


def test_outputs_of_padding_are_zero_with_dropout():
    lengths = jnp.arange(20)
    ys = echo(3, 0.5, jax.random.key(1), lengths=lengths)
    assert not ys[np.arange(50)[None] >= np.asarray(lengths)[:, None]].any()


def dropped_weights(stack, params, xs, key):
    """Returns the parameters of each layer and direction after weight dropout."""
    dropped = []

    def run(cell, params, xs, *, at, reverse):
        dropped.append(params)
        return xs, None

    stack.compose(run, params, xs, reverse=False, key=key)
    return dropped


@pytest.mark.parametrize("cell", [GRU(), LSTM()])
def test_weight_dropout_masks_the_recurrent_matrix_for_all_steps(cell):
    stack = Stack(cell, weight_dropout=0.5)
    params = stack.init(jax.random.key(0), 2, 8)
    xs, key = jax.random.normal(jax.random.key(1), (3, 6, 2)), jax.random.key(2)
    dropped = dropped_weights(stack, params, xs, key)
    U, whole = np.asarray(dropped[0].U), np.asarray(params[0][0].U)
    assert 0.3 < (U == 0).mean() < 0.7
    np.testing.assert_allclose(U[U != 0], 2 * whole[U != 0], rtol=1e-6)
    np.testing.assert_array_equal(dropped[0].W, params[0][0].W)

    ys, _ = unroll(stack, params, xs, key=key)
    np.testing.assert_allclose(ys, unroll(cell, dropped[0], xs)[0], rtol=1e-6, atol=1e-7)
    assert np.abs(ys - unroll(stack, params, xs)[0]).max() > 1e-3


def test_layers_and_directions_have_different_weights_and_dropout_masks():
    stack = Stack(GRU(), num_layers=2, bidirectional=True, merge="sum", weight_dropout=0.5)
    params = stack.init(jax.random.key(0), 8, 8)
    dropped = dropped_weights(stack, params, jnp.ones((1, 2, 8)), jax.random.key(2))
    whole = [np.asarray(cell.U) for layer in params for cell in layer]
    masks = [np.asarray(cell.U) != 0 for cell in dropped]
    assert len(whole) == len(masks) == 4
    for one, other in combinations(range(4), 2):
        assert not np.array_equal(whole[one], whole[other])
        assert not np.array_equal(masks[one], masks[other])


@pytest.mark.parametrize("cell", [GRU(reset="after", W_init="uniform", b_init="uniform"), LSTM(), Elman()])
def test_no_key_is_used_twice(cell):
    stack = Stack(cell, num_layers=3, bidirectional=True, dropout=0.5, weight_dropout=0.5)
    with jax.debug_key_reuse(True):
        params = stack.init(jax.random.key(0), I, H)
        ys, _ = unroll(stack, params, jnp.ones((B, T, I)), key=jax.random.key(1))
    assert np.isfinite(ys).all()


class Weightless(Minimal):
    """A cell whose parameters are a plain tuple."""

    def init(self, key, input_size, hidden_size, dtype=jnp.float32):
        return tuple(super().init(key, input_size, hidden_size, dtype))


def test_weight_dropout_needs_a_field_U():
    stack = Stack(Weightless(), weight_dropout=0.5)
    with pytest.raises(ValueError, match=r"params\[0\]\[0\]: expected a field U for weight_dropout"):
        unroll(stack, stack.init(jax.random.key(0), 2, 2), jnp.ones((1, 3, 2)), key=jax.random.key(1))


@pytest.mark.parametrize("merge", ["ave", "mul"])
def test_modules_merge_as_stack_does(merge):
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(B, T, I)), jnp.float32)
    layer = nnx.Recurrent(Elman("relu"), I, H, 2, bidirectional=True, merge=merge, rngs=Rngs(0))
    assert layer.stack == Stack(Elman("relu"), 2, bidirectional=True, merge=merge)
    np.testing.assert_array_equal(layer(xs)[0], unroll(layer.stack, layer.parameters(), xs)[0])
    module = linen.GRU(H, bidirectional=True, merge=merge)
    ys, _ = module.apply(module.init(jax.random.key(0), xs), xs)
    halves, _ = linen.GRU(H, bidirectional=True).apply(module.init(jax.random.key(0), xs), xs)
    forward, backward = jnp.split(halves, 2, axis=-1)
    np.testing.assert_allclose(ys, (forward + backward) / 2 if merge == "ave" else forward * backward, rtol=1e-6)


def test_unknown_merge_raises_one_line():
    line = (
        r'^Stack: merge: expected one of [^\n]+, got None: use "concat", and jnp\.split\(ys, 2, axis=-1\) for [^\n]+$'
    )
    with pytest.raises(ValueError, match=line):
        Stack(GRU(), bidirectional=True, merge=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^Stack: merge: expected one of 'concat', 'sum', 'ave', 'mul', got 'mean'$"):
        Stack(GRU(), bidirectional=True, merge="mean")


def test_stacks_are_hashable_and_equal_by_value():
    assert Stack(GRU(), 2) == Stack(GRU("before"), num_layers=2)
    assert len({Stack(GRU(), 2), Stack(GRU(), 2), Stack(GRU(), 2, dropout=0.1)}) == 2
