"""Programs compiled ahead of time for a TPU v5e have the documented loops, products and temporary memory.

Nothing runs. Time-major inputs are not transposed, the reverse loop of the fused backend accumulates no weight
gradient, and temporary memory is what `gru_jax.unroll` documents.
"""

import pytest

from experiments.benchmarks import ahead_of_time
from experiments.benchmarks.ahead_of_time import SIZES, Layer, compile_layer, find_device, layers
from experiments.benchmarks.settings import Sizes
from experiments.schema import UserError

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


@pytest.mark.parametrize("layer", list(layers()), ids=str)
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


@pytest.mark.parametrize(
    ("memory", "kept"),
    [
        ("save", 4),  # (G + 1) H
        ("recompute", 1),
        ("checkpoint", 1 / BLOCK),
    ],
)
def test_temporary_memory_is_as_documented(memory, kept, device):
    """Besides residuals: outputs, their cotangent, a loop's buffer (H numbers per step each), and a block's arrays."""
    layer = Layer("fused", "after", "float32", "gradient", memory, BLOCK)
    compiled = compile_layer(layer, "tpu", device, LONG)
    numbers = compiled.temp_bytes / 4 / (LONG.B * LONG.T * LONG.H)
    block = 16 * BLOCK / LONG.T
    assert kept <= numbers <= kept + 3 + block
