"""Programs compiled ahead of time for a TPU v5e have the documented loops, products and temporary memory.

Nothing runs. Time-major inputs are not transposed, the reverse loop of the fused backend accumulates no weight
gradient, and temporary memory is what `gru_jax.unroll` documents.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

from experiments.benchmarks import ahead_of_time
from experiments.benchmarks.ahead_of_time import SIZES, Layer, compile_layer, find_device, layers
from experiments.benchmarks.settings import Sizes
from experiments.schema import UserError
from gru_jax import GRU, unroll
from gru_jax._unroll.tuning import VMEM, Core
from tests.gru_jax.problems import CELLS

pytestmark = pytest.mark.aot

LONG = Sizes(64, 1024, 256, 512)
"""Too long for the on-chip memory, so that residuals are in main memory."""
BLOCK = 32


@pytest.fixture(scope="module")
def device():
    try:
        return find_device("tpu")
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("layer", list(layers("scan", "fused")), ids=str)
def test_loops_have_no_transpositions_and_few_kernels(layer, device):
    compiled = compile_layer(layer, "tpu", device)
    module, loops = compiled.module, ahead_of_time.step_loops(compiled.module)
    assert len(loops) == (1 if layer.work == "forward" else 2)
    assert ahead_of_time.transpositions(module, SIZES.T * SIZES.B * SIZES.I) == []

    # A product with the state has B rows; the gradient of a weight is summed over them.
    found = [product.shape for loop in loops for product in ahead_of_time.products(module, loop)]
    assert found
    weight_gradients = [shape for shape in found if SIZES.B not in shape]
    if layer.backend == "fused" or layer.work == "forward":
        assert weight_gradients == []
    else:
        assert weight_gradients  # Shows that the assertion above can fail.
    assert max(compiled.kernels_per_step()) <= (6 if layer.work == "forward" else 12)


@pytest.mark.parametrize("backend", ["fused", "pallas"])
@pytest.mark.parametrize(
    ("memory", "kept"),
    [
        ("save", 4),  # (G + 1) H
        ("recompute", 1),
        ("checkpoint", 1 / BLOCK),
    ],
)
def test_temporary_memory_is_as_documented(memory, kept, backend, device):
    """Besides residuals: outputs, their cotangent, a loop's buffer (H numbers per step each), and a block's arrays."""
    layer = Layer(backend, "after", "float32", "gradient", memory, BLOCK)
    compiled = compile_layer(layer, "tpu", device, LONG)
    numbers = compiled.temp_bytes / 4 / (LONG.B * LONG.T * LONG.H)
    block = 16 * BLOCK / LONG.T
    assert kept <= numbers <= kept + 3 + block


# The backend "pallas".


@pytest.mark.parametrize(
    "sizes",
    [Sizes(32, 100, 64, 128), Sizes(64, 128, 512, 512), Sizes(16, 100, 512, 1024), Sizes(64, 64, 512, 2048)],
    ids=str,
)
@pytest.mark.parametrize(("work", "calls", "arrays"), [("forward", 1, 5), ("gradient", 2, 16)])
def test_every_loop_is_one_kernel(work, calls, arrays, sizes, device):
    """Temporary memory is at most the arrays of a block, which has all steps here."""
    compiled = compile_layer(Layer("pallas", "after", "float32", work), "tpu", device, sizes)
    assert ahead_of_time.step_loops(compiled.module) == []
    assert len(compiled.pallas_kernels) == calls
    assert all(0 < vmem <= Core(VMEM[device.device_kind]).budget for vmem in compiled.pallas_kernels)
    assert compiled.temp_bytes <= arrays * 4 * sizes.B * sizes.T * sizes.H


def compile_unroll(function, device, *arguments):
    """Compiles a function for a TPU and returns the number of its kernels."""
    described = jax.tree.map(lambda a: _on(SingleDeviceSharding(device), a), arguments)
    with jax.default_device(device):
        text = jax.jit(function).lower(*described).compile().as_text()
    return len(ahead_of_time.pallas_kernels(text or ""))


def _on(sharding, a):
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding)


def arrays(cell, T=13, H=100, B=5, I=6):
    """Returns parameters, inputs and a state; no axis is a multiple of a tile."""

    def make():
        return cell.init(jax.random.key(0), I, H), jnp.ones((B, T, I)), cell.initial_state(H, (B,))

    return jax.eval_shape(make)


def loss(cell, params, xs, **options):
    return (unroll(cell, params, xs, backend="pallas", **options)[0] ** 2).mean()


@pytest.mark.parametrize("name", list(CELLS))
def test_every_cell_compiles_with_everything_that_changes_the_state(name, device):
    cell = CELLS[name]
    params, xs, state = arrays(cell)
    T, B = 13, 5
    options = {
        "lengths": jnp.full(B, T),
        "resets": jnp.ones((B, T), bool),
        "decay": jnp.ones((B, T, 1)),
        "zoneout": 0.1,
    }

    def total(params, xs, state, **more):
        return loss(cell, params, xs, reset_state=state, **options, **more)

    for more in ({}, {"matmul_dtype": jnp.bfloat16, "reverse": True, "key": jax.random.key(1)}):
        assert compile_unroll(jax.grad(partial(total, **more), (0, 1, 2)), device, params, xs, state) == 2


def test_vmap_and_checkpoint_compile(device):
    cell = GRU()
    params, xs, _ = arrays(cell)
    gradient = jax.grad(jax.checkpoint(partial(loss, cell)))
    several = jax.tree.map(lambda a: jax.ShapeDtypeStruct((3, *a.shape), a.dtype), (params, xs))
    assert compile_unroll(jax.vmap(gradient, (None, 0)), device, params, several[1]) == 2
    assert compile_unroll(jax.vmap(gradient, (0, None)), device, several[0], xs) == 2


@pytest.fixture
def mesh():
    devices = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices
    return Mesh(np.array(devices), ("rows",), axis_types=(AxisType.Auto,))


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_compiles(check_vma, mesh, device):
    cell = GRU()
    params, xs, _ = arrays(cell, B=32)

    def mean(params, xs):
        return lax.pmean(loss(cell, params, xs), "rows")

    rows = P("rows")
    total = jax.shard_map(mean, mesh=mesh, in_specs=(P(), rows), out_specs=P(), check_vma=check_vma)
    given = jax.tree.map(partial(_on, NamedSharding(mesh, P())), params), _on(NamedSharding(mesh, rows), xs)
    with jax.default_device(device):
        text = jax.jit(jax.grad(total)).lower(*given).compile().as_text()
    assert len(ahead_of_time.pallas_kernels(text)) == 2


def test_sharded_batch_needs_shard_map(mesh, device):
    cell = GRU()
    params, xs, _ = arrays(cell, B=32)
    given = jax.tree.map(partial(_on, NamedSharding(mesh, P())), params), _on(NamedSharding(mesh, P("rows")), xs)
    message = r"^Mosaic kernels cannot be automatically partitioned. Please wrap the call in a shard_map.\n"
    with jax.default_device(device), pytest.raises(NotImplementedError, match=message):
        jax.jit(partial(loss, cell)).lower(*given)


def test_export(device):
    cell = GRU()
    params, xs, _ = arrays(cell)
    with jax.default_device(device):
        exported = export.export(jax.jit(jax.grad(partial(loss, cell))), platforms=["tpu"])(params, xs)
    assert exported.mlir_module().count("tpu_custom_call") == 2
    assert export.deserialize(exported.serialize(vjp_order=0)).platforms == ("tpu",)
