"""Meshes with explicit axes: results equal one device and have the sharding of the inputs."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from gru_jax import GRU, LSTM, Stack, unroll

CELLS = [GRU(), Stack(LSTM(), num_layers=2, bidirectional=True)]


@pytest.fixture(params=[True, False], ids=["in its context", "outside"])
def mesh(request):
    """A mesh of 2 x 2 devices, inside and outside `jax.set_mesh`."""
    made = jax.make_mesh((2, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(made) if request.param else contextlib.nullcontext():
        yield made


def put(tree, mesh, *spec):
    return jax.tree.map(lambda a: jax.device_put(a, NamedSharding(mesh, P(*spec))), tree)


def problem(cell, seed=0):
    params = cell.init(jax.random.key(seed), 3, 8)
    xs = jax.random.normal(jax.random.key(seed + 1), (4, 6, 3))
    h0 = jax.tree.map(lambda a: a + 0.5, cell.initial_state(8, (4,)))
    return params, xs, h0, jnp.array([6, 1, 4, 0])


def gradient(cell, **options):
    def loss(params, xs, h0, lengths):
        ys, h_last = unroll(cell, params, xs, h0, lengths=lengths, **options)
        return jnp.sum(ys**2) + sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(h_last))

    return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))


def assert_equal(got, expected):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)


@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
def test_gradients_of_a_sharded_batch_equal_one_device(cell, backend, mesh):
    given = problem(cell)
    expected = gradient(cell, backend=backend)(*given)
    params, *rows = given
    got = gradient(cell, backend=backend)(put(params, mesh), *put(rows, mesh, "data"))
    assert_equal(got, expected)
    assert jax.typeof(got[1]).sharding.spec == P("data", None, None)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: type(cell).__name__)
def test_outputs_have_the_sharding_of_the_inputs(cell, mesh):
    params, xs, h0, _ = problem(cell)
    expected = unroll(cell, params, xs), unroll(cell, params, xs, h0)
    params, xs = put(params, mesh), put(xs, mesh, "data")
    for given_h0, (expected_ys, expected_last) in zip((None, put(h0, mesh, "data")), expected, strict=True):
        ys, h_last = jax.jit(lambda *given: unroll(cell, *given))(params, xs, given_h0)
        assert jax.typeof(ys).sharding.spec == P("data", None, None)
        assert {jax.typeof(leaf).sharding.spec for leaf in jax.tree.leaves(h_last)} == {P("data", None)}
        assert_equal((ys, h_last), (expected_ys, expected_last))


@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_mask_decay_and_zoneout_on_a_sharded_batch_equal_one_device(backend, mesh):
    cell = GRU()
    params, xs, _, _ = problem(cell)
    mask, decay = xs[..., 0] > 0, jax.nn.sigmoid(xs[..., :1])

    def loss(params, xs, mask, decay):
        ys, _ = unroll(cell, params, xs, mask=mask, decay=decay, zoneout=0.3, key=jax.random.key(7), backend=backend)
        return jnp.sum(ys**2)

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 3)))
    expected = gradient(params, xs, mask, decay)
    got = gradient(put(params, mesh), *put((xs, mask, decay), mesh, "data"))
    assert_equal(got, expected)
    assert jax.typeof(got[2]).sharding.spec == P("data", None, None)


def test_two_sharded_batch_axes_equal_one_device(mesh):
    cell = GRU()
    params = cell.init(jax.random.key(0), 3, 8)
    xs = jax.random.normal(jax.random.key(1), (6, 2, 4, 3))
    expected = unroll(cell, params, xs, time_major=True)
    sharded = put(xs, mesh, None, "data", "model")
    got = jax.jit(lambda params, xs: unroll(cell, params, xs, time_major=True))(put(params, mesh), sharded)
    assert_equal(got, expected)
    assert jax.typeof(got[0]).sharding.spec == P(None, "data", "model", None)
    assert jax.typeof(got[1]).sharding.spec == P("data", "model", None)


def test_final_state_has_the_sharding_of_h0(mesh):
    """A `lax.scan` around `unroll` can then carry it."""
    cell = GRU()
    params, xs, h0, _ = problem(cell)
    params, xs, h0 = put(params, mesh), put(xs, mesh, "data"), put(h0, mesh, "data", "model")

    def body(h, xs):
        return unroll(cell, params, xs, h)[::-1]

    stacked = put(jnp.stack([xs, xs]), mesh, None, "data")
    h_last, _ = jax.jit(lambda h0, stacked: jax.lax.scan(body, h0, stacked))(h0, stacked)
    assert jax.typeof(h_last).sharding.spec == P("data", "model")
    assert_equal(h_last, unroll(cell, params, xs, unroll(cell, params, xs, h0)[1])[1])


def test_gradients_of_sharded_weights_equal_one_device(mesh):
    cell = GRU()
    given = problem(cell)
    expected = gradient(cell)(*given)
    params, *rows = given
    cut = jax.tree.map(lambda a: put(a, mesh, *(None,) * (a.ndim - 1), "model"), params)
    got = gradient(cell)(cut, *put(rows, mesh, "data"))
    assert_equal(got, expected)
    assert jax.typeof(got[0].U).sharding.spec == P(None, "model")


def test_vmap_over_parameters_equals_one_device(mesh):
    cell = GRU()
    _, xs, _, _ = problem(cell)
    many = jax.vmap(lambda key: cell.init(key, 3, 8))(jax.random.split(jax.random.key(3), 3))
    mapped = jax.jit(jax.vmap(lambda params, xs: unroll(cell, params, xs)[0], in_axes=(0, None)))
    assert_equal(mapped(put(many, mesh), put(xs, mesh, "data")), mapped(many, xs))
