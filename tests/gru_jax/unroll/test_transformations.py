"""`unroll` under JAX transformations, and the number of its traces."""

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import GRU, LSTM, Elman, Stack, unroll
from tests.gru_jax.minimal_gated_unit import Minimal

BACKENDS = ("scan", "fused")
GRU_PARAMS = GRU().init(jax.random.key(0), 2, 3)
XS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 2)), jnp.float32)
LENGTHS = jnp.array([5, 2, 0, 4])


def close(a, b, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_close(a, b, rtol=rtol, atol=atol)


def loss(params, xs, backend, lengths=None):
    ys, h_last = unroll(GRU(), params, xs, lengths=lengths, backend=backend, block_length=2)
    return (ys**2).sum() + h_last.sum()


@dataclass(frozen=True)
class Counting(Minimal):
    """A cell that counts how often its step is traced."""

    label: str

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        TRACES.append(self.label)
        return super().step(params, state, gate_inputs, matmul_dtype)


TRACES: list[str] = []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["eager", "jit", "grad", "jit of grad"])
def test_second_call_is_not_traced(mode, backend):
    cell = Counting(f"{mode} {backend}")
    params = cell.init(jax.random.key(0), 2, 3)

    def outputs(params, xs, lengths):
        return unroll(Counting(f"{mode} {backend}"), params, xs, lengths=lengths, backend=backend)[0].sum()

    call = {
        "eager": outputs,
        "jit": jax.jit(outputs),
        "grad": jax.grad(outputs),
        "jit of grad": jax.jit(jax.grad(outputs)),
    }[mode]
    first = call(params, XS, LENGTHS)
    traced = TRACES.count(cell.label)
    assert traced > 0
    second = call(jax.tree.map(lambda a: a + 1, params), XS + 1, LENGTHS[::-1])
    assert TRACES.count(cell.label) == traced
    assert not np.array_equal(*(jax.tree.leaves(result)[0] for result in (first, second)))
    call(params, XS[:, :4], jnp.minimum(LENGTHS, 4))
    assert TRACES.count(cell.label) > traced


def test_equal_options_are_compiled_once():
    """Equal cells, and equal options of different types, share one program."""
    cell = Counting("options")
    params = cell.init(jax.random.key(0), 2, 3)
    for matmul_dtype in (jnp.bfloat16, "bfloat16", jnp.dtype("bfloat16")):
        unroll(Counting("options"), params, XS, matmul_dtype=matmul_dtype, reverse=np.bool_(True), backend="scan")
        unroll(Counting("options"), params, XS, matmul_dtype=matmul_dtype, reverse=True, backend="scan")
    once = TRACES.count("options")
    unroll(cell, params, XS, matmul_dtype=None, reverse=True, backend="scan")
    assert TRACES.count("options") == 2 * once


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_over_sequences_equals_a_batch(backend):
    batched = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)(GRU_PARAMS, XS, backend, LENGTHS)

    def over_sequences(params, xs):
        return jax.vmap(lambda x, n: loss(params, x, backend, n))(xs, LENGTHS).sum()

    close(jax.jit(jax.grad(over_sequences, argnums=(0, 1)))(GRU_PARAMS, XS), batched)

    def of_each(x, n):
        return jax.grad(lambda x: loss(GRU_PARAMS, x, backend, n))(x)

    close(jax.jit(jax.vmap(of_each))(XS, LENGTHS), batched[1])


@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_over_parameters_equals_each_member(backend):
    keys = jax.random.split(jax.random.key(1), 3)
    ensemble = jax.vmap(lambda key: GRU().init(key, 2, 3))(keys)
    gradients = jax.jit(jax.vmap(jax.grad(lambda p: loss(p, XS, backend, LENGTHS))))(ensemble)
    one = jax.jit(jax.grad(lambda p: loss(p, XS, backend, LENGTHS)))
    for member, key in enumerate(keys):
        params = jax.tree.map(lambda a, member=member: a[member], ensemble)
        close(params, GRU().init(key, 2, 3))
        close(jax.tree.map(lambda a, member=member: a[member], gradients), one(params))


@pytest.mark.parametrize(
    "cell", [GRU("after"), LSTM(), Elman(), Stack(GRU(), 2)], ids=["GRU", "LSTM", "Elman", "Stack"]
)
def test_cells_are_arguments_of_any_transformation(cell):
    """A cell is a static pytree node without leaves."""
    params = cell.init(jax.random.key(0), 2, 3)
    expected = unroll(cell, params, XS)
    close(jax.jit(unroll)(cell, params, XS), expected)
    close(jax.jit(unroll, static_argnums=0)(cell, params, XS), expected)
    close(jax.vmap(unroll, in_axes=(None, None, 0))(cell, params, XS), expected)
    doubled = jax.tree.map(lambda a: 2 * a, {"cell": cell, "params": params})
    assert doubled["cell"] == cell
    close(doubled["params"], jax.tree.map(lambda a: a + a, params))

    def carry(cell_and_state, x):
        cell, state = cell_and_state
        return (cell, unroll(cell, params, x[None], state)[1]), None

    (_, h_last), _ = jax.lax.scan(carry, (cell, cell.initial_state(3)), XS[0])
    close(h_last, unroll(cell, params, XS[0])[1])


def test_equal_cells_share_one_program():
    compiled = jax.jit(lambda cell, params, xs: unroll(cell, params, xs))
    for cell in (GRU(), GRU(reset="before")):
        compiled(cell, GRU_PARAMS, XS)
    assert compiled._cache_size() == 1
    compiled(GRU("after"), GRU("after").init(jax.random.key(0), 2, 3), XS)
    assert compiled._cache_size() == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpoint_does_not_change_gradients(backend):
    def plain(params, xs):
        return loss(params, jnp.tanh(xs), backend, LENGTHS)

    both = jax.jit(lambda *at: [jax.grad(f, argnums=(0, 1))(*at) for f in (plain, jax.checkpoint(plain))])
    close(*both(GRU_PARAMS, XS))


@pytest.mark.parametrize("backend", BACKENDS)
def test_scan_over_chunks_equals_one_long_sequence(backend):
    """Chunks of two steps carry the state, as in truncated backpropagation, but the gradient is not truncated."""
    xs = XS[:, :4]

    def in_chunks(params, xs):
        def chunk(h, x):
            ys, h = unroll(GRU(), params, x, h, backend=backend)
            return h, ys

        h0 = GRU().initial_state(3, (4,))
        h_last, ys = jax.lax.scan(chunk, h0, jnp.moveaxis(xs.reshape(4, 2, 2, 2), 1, 0))
        return (jnp.moveaxis(ys, 0, 1).reshape(4, 4, 3) ** 2).sum() + h_last.sum()

    def whole(params, xs):
        return loss(params, xs, backend)

    close(*jax.jit(lambda *at: [jax.grad(f, argnums=(0, 1))(*at) for f in (in_chunks, whole)])(GRU_PARAMS, xs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_eager_calls_equal_compiled_calls(backend):
    eager = jax.value_and_grad(loss)(GRU_PARAMS, XS, backend, LENGTHS)
    close(eager, jax.jit(jax.value_and_grad(loss), static_argnums=2)(GRU_PARAMS, XS, backend, LENGTHS))


def test_numpy_arrays_are_accepted():
    params = jax.tree.map(np.asarray, GRU_PARAMS)
    resets = np.zeros((4, 5), bool)
    h0 = np.zeros((4, 3), np.float32)
    expected = unroll(GRU(), GRU_PARAMS, XS, lengths=LENGTHS)
    close(unroll(GRU(), params, np.asarray(XS), h0, lengths=np.asarray(LENGTHS), resets=resets), expected)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_is_kept_with_and_without_x64(x64, backend):
    with jax.enable_x64(x64):
        value, gradient = jax.jit(jax.value_and_grad(loss), static_argnums=2)(GRU_PARAMS, XS, backend, LENGTHS)
        assert {leaf.dtype for leaf in jax.tree.leaves((value, gradient))} == {jnp.dtype(jnp.float32)}


def test_typed_and_raw_keys_give_the_same_dropout_masks():
    stack = Stack(LSTM(), num_layers=2, dropout=0.5)
    params = stack.init(jax.random.PRNGKey(3), 2, 3)
    close(params, stack.init(jax.random.key(3), 2, 3))
    typed, raw = (unroll(stack, params, XS, key=key)[0] for key in (jax.random.key(1), jax.random.PRNGKey(1)))
    np.testing.assert_array_equal(typed, raw)
    assert not np.array_equal(typed, unroll(stack, params, XS)[0])


def test_gradient_of_a_constant_loss_is_zero():
    """`jax.grad` supports integer lengths and boolean resets. The gradient of a constant loss is zero."""
    resets = XS[..., 0] > 0
    gradient = jax.grad(lambda p: unroll(GRU(), p, XS, lengths=LENGTHS, resets=resets)[0].sum() * 0)(GRU_PARAMS)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient))
