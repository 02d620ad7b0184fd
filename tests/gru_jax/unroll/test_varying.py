"""`unroll` on several devices computes the results of one device, in `shard_map` and with sharded arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from gru_jax import GRU, LSTM, Stack, unroll
from gru_jax._unroll.sharding import vary_alike, zeros_like

CELLS = {"gru": GRU(), "stack": Stack(LSTM(), num_layers=2, bidirectional=True)}
LENGTHS = np.array([5, 2, 0, 4, 1, 5, 3, 5], np.int32)
XS = np.random.default_rng(0).normal(size=(8, 5, 2)).astype(np.float32)
BATCH = PartitionSpec("batch")


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])


def loss(cell, params, xs, lengths, backend):
    ys, h_last = unroll(CELLS[cell], params, xs, lengths=lengths, backend=backend, block_length=2)
    return (ys**2).sum() + sum((leaf**3).sum() for leaf in jax.tree.leaves(h_last))


def assert_close(results, expected):
    for a, b in zip(jax.tree.leaves(results), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_shard_map_over_the_batch_equals_one_device(mesh, cell, backend):
    """`shard_map` sums the gradients of replicated parameters over the devices."""
    params = CELLS[cell].init(jax.random.key(0), 2, 3)

    def on_each(params, xs, lengths):
        value, gradient = jax.value_and_grad(loss, argnums=(1, 2))(cell, params, xs, lengths, backend)
        return jax.lax.psum(value, "batch"), gradient

    shared = jax.shard_map(
        on_each,
        mesh=mesh,
        in_specs=(PartitionSpec(), BATCH, BATCH),
        out_specs=(PartitionSpec(), (PartitionSpec(), BATCH)),
    )
    evaluate = jax.jit(jax.value_and_grad(loss, argnums=(1, 2)), static_argnums=(0, 4))
    assert_close(jax.jit(shared)(params, XS, LENGTHS), evaluate(cell, params, XS, LENGTHS, backend))


@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_shard_map_over_an_ensemble_equals_one_device(mesh, backend):
    """Parameters are sharded. Inputs and lengths are replicated."""
    keys = jax.random.split(jax.random.key(1), 4)
    ensemble = jax.vmap(lambda key: GRU().init(key, 2, 3))(keys)

    def on_each(params, xs, lengths):
        return jax.vmap(lambda p: jax.value_and_grad(loss, argnums=1)("gru", p, xs, lengths, backend))(params)

    specs = {"in_specs": (BATCH, PartitionSpec(), PartitionSpec()), "out_specs": BATCH}
    shared = jax.jit(jax.shard_map(on_each, mesh=mesh, **specs))
    assert_close(shared(ensemble, XS, LENGTHS), jax.jit(on_each)(ensemble, XS, LENGTHS))


@pytest.mark.parametrize("make_keys", [jax.random.split, lambda key, n: jax.random.key_data(jax.random.split(key, n))])
@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_dropout_keys_may_differ_between_devices(mesh, backend, make_keys):
    stack = Stack(GRU(), 2, dropout=0.5, weight_dropout=0.5)
    params, keys = stack.init(jax.random.key(0), 2, 3), make_keys(jax.random.key(1), 4)

    def on_each(params, xs, keys):
        return unroll(stack, params, xs, key=keys[0], backend=backend)[0][None]

    specs = {"in_specs": (PartitionSpec(), PartitionSpec(), BATCH), "out_specs": BATCH}
    found = jax.jit(jax.shard_map(on_each, mesh=mesh, **specs))(params, XS, keys)
    for one, key in zip(found, keys, strict=True):
        np.testing.assert_allclose(one, unroll(stack, params, XS, key=key)[0], rtol=1e-5, atol=1e-6)


def test_sharded_batch_equals_one_device(mesh):
    """The results equal one device, and the outputs have the sharding of the inputs."""
    params = CELLS["gru"].init(jax.random.key(0), 2, 3)
    xs = jax.device_put(XS, NamedSharding(mesh, BATCH))
    lengths = jax.device_put(LENGTHS, NamedSharding(mesh, BATCH))
    params_everywhere = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    ys, h_last = unroll(CELLS["gru"], params_everywhere, xs, lengths=lengths)
    assert ys.sharding.is_equivalent_to(NamedSharding(mesh, BATCH), ys.ndim)
    assert_close((ys, h_last), unroll(CELLS["gru"], params, XS, lengths=LENGTHS))


@pytest.mark.parametrize("backend", ["scan", "fused"])
def test_mask_decay_and_zoneout_in_shard_map_equal_one_device(mesh, backend):
    """Each device draws the same zoneout masks for its own sequences."""
    cell, key = LSTM(), jax.random.key(2)
    params, mask = cell.init(jax.random.key(0), 2, 3), XS[..., 0] > 0
    decay = np.random.default_rng(1).random((8, 5, 1)).astype(np.float32)

    def loss(params, xs, mask, decay):
        ys, h_last = unroll(
            cell, params, xs, mask=mask, decay=decay, zoneout=(0.2, 0.5), key=key, backend=backend, block_length=2
        )
        return (ys**2).sum() + (h_last.c**3).sum()

    def on_each(params, *rows):
        value, gradient = jax.value_and_grad(loss, argnums=(0, 1, 3))(params, *rows)
        return jax.lax.psum(value, "batch"), gradient

    specs = {"in_specs": (PartitionSpec(), BATCH, BATCH, BATCH)}
    specs["out_specs"] = (PartitionSpec(), (PartitionSpec(), BATCH, BATCH))
    found = jax.jit(jax.shard_map(on_each, mesh=mesh, **specs))(params, XS, mask, decay)
    of_each = [jax.value_and_grad(loss, argnums=(0, 1, 3)) for _ in range(4)]
    parts = [f(params, *(a[2 * n : 2 * n + 2] for a in (XS, mask, decay))) for n, f in enumerate(of_each)]
    values, gradients = zip(*parts, strict=True)
    summed = jax.tree.map(lambda *leaves: sum(leaves), *[gradient[0] for gradient in gradients])
    rows = [np.concatenate([gradient[n] for gradient in gradients]) for n in (1, 2)]
    assert_close(found, (sum(values), (summed, *rows)))


def varying(array):
    return jax.typeof(array).manual_axis_type.varying


def test_vary_alike_and_zeros_like_set_the_varying_axes(mesh):
    def on_each(xs, w):
        same, none = vary_alike((w, None))
        assert none is None
        varied = vary_alike({"xs": xs, "w": w})["w"]
        assert [varying(array) for array in (w, same, varied)] == [set(), set(), {"batch"}]
        assert [varying(zeros_like(array)) for array in (w, xs)] == [set(), {"batch"}]
        return varied[None]

    shared = jax.shard_map(on_each, mesh=mesh, in_specs=(BATCH, PartitionSpec()), out_specs=BATCH)
    np.testing.assert_array_equal(jax.jit(shared)(jnp.ones((4, 2)), jnp.arange(3.0)), [[0, 1, 2]] * 4)
