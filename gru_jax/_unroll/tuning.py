"""Everything that depends on the machine: how matrices lie in memory, how long blocks are, what is recomputed.

The constants were measured on two cores with AVX-512 and AMX, and on two with AVX-512 alone (Zen 4), B from 16 to 128,
H from 64 to 1024. On accelerators the compiler chooses how matrices lie. `FEW_ROWS` of `gru_jax.cells.gates`, which
single steps need too, is the only measured constant elsewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from gru_jax._types import Array, DType, PyTree, State
from gru_jax.cells.base import Product
from gru_jax.cells.gates import block_matmul, concatenate_gates, matmul, matmul_input_gradient, split_gates

# Packed matrices.
#
# A loop over time multiplies a few rows by the same matrix at every step. On a CPU the speed depends on how that matrix
# lies in memory, so it is packed once before the loop.

ONE_THREAD = {"narrow": 1_650_000, "wide": 2_100_000}
"""A product of at most so many multiplications runs on the calling thread; a larger one wakes the others."""

MOST_PARTS = {"narrow": 8, "wide": 3}
"""Up to so many products of one thread each are faster than waking the others at every step: at B=32, H=256 by half in
bfloat16, by a tenth to a quarter in float32."""

LONG_ROW = 1024
"""With AMX, from so many rows on, `x w` reads w faster from its transpose (a quarter less time at B=16, H=1024).
Without AMX the transpose is slower at every size (by two fifths at B=16, H=1024)."""

SHORT_ROW = 448
"""With AMX, below so many rows, `x wᵀ` reads w faster from its transpose, above as it is (a third less time at B=16,
H=1024). Without AMX the transpose is at least as fast at every size."""

LONGEST_SUM = {("wide", True): 1536, ("narrow", False): 1024}
"""By kind and AMX: a product that sums over more than this is faster as several over `LONG_ROW`. In float32 with AMX it
takes a quarter less time at H=1024, in bfloat16 without two fifths less at B=64, H=512."""

SMALL_BLOCK = 2**15
"""Without AMX, `x w` of a block-diagonal w is faster as one batched product (0.80 to 1.03 of the time of a run), unless
a block has at most so many multiplications in float32: there a gradient takes 1.07 to 1.10 of the time."""

HALVES = 2
"""Without AMX, a float32 product `x wᵀ` of several threads is faster as so many, each with a part of the columns: a
tenth less time at B=64, H=512, two fifths at B=16, H=1024."""


@cache
def has_amx() -> bool:
    """Returns whether the CPU has a matrix unit, AMX; false where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_tile" in cpuinfo.read_text(encoding="utf-8")


@partial(jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=["axis", "transposed", "matmul_dtype"])
@dataclass(frozen=True)
class PackedMatrix:
    """The function `x -> x w` of a matrix w (K, N), which is stored in parts. It is a pytree.

    Attributes:
      parts: w split along `axis`; every part transposed if `transposed`.
      axis: 1, the columns, whose products are concatenated; 0, the rows, whose products are added.
      transposed: whether the parts are (N, K).
      matmul_dtype: the dtype of the product's operands; None for the dtype of w.
    """

    parts: tuple[Array, ...]
    axis: int
    transposed: bool
    matmul_dtype: DType | None = None

    def __call__(self, x: Array) -> Array:
        """Returns `x w`: x (..., K) -> (..., N)."""
        multiply = matmul_input_gradient if self.transposed else matmul
        if self.axis == 1:
            products = [multiply(x, part, self.matmul_dtype) for part in self.parts]
            return products[0] if len(products) == 1 else jnp.concatenate(products, axis=-1)
        sizes = [part.shape[1 if self.transposed else 0] for part in self.parts]
        columns = zip(_split(x, sizes), self.parts, strict=True)
        first, *rest = (multiply(column, part, self.matmul_dtype) for column, part in columns)
        return sum(rest, start=first)


@partial(jax.tree_util.register_dataclass, data_fields=["blocks"], meta_fields=[])
@dataclass(frozen=True)
class PackedBlocks:
    """The function `x -> x w` of a block-diagonal matrix w (G, K, N), whose blocks are packed one by one. A pytree."""

    blocks: tuple[Product, ...]

    def __call__(self, x: Array) -> Array:
        """Returns `x w`: x (..., G K) -> (..., G N)."""
        parts = zip(self.blocks, split_gates(x, len(self.blocks)), strict=True)
        return concatenate_gates([block(part) for block, part in parts])


def pack(w: Array, rows: int, platform: str, matmul_dtype: DType | None = None) -> Product:
    """Packs w (K, N), or the blocks w (G, K, N), for products `x w` in a loop, where x has `rows` rows."""
    if w.ndim == 3:
        small = _kind(w) == "wide" and rows * w.shape[1] * w.shape[2] <= SMALL_BLOCK
        if platform == "gpu" or (platform == "cpu" and not has_amx() and not small):
            return partial(block_matmul, w=w, matmul_dtype=matmul_dtype)
        return PackedBlocks(tuple(pack(block, rows, platform, matmul_dtype) for block in w))
    K, N = w.shape
    if platform != "cpu":
        return PackedMatrix((w,), 1, False, matmul_dtype)
    parts = _split_columns(w, _number_of_parts(rows * K * N, w) if _kind(w) == "narrow" else 1)
    if K < LONG_ROW or not has_amx():
        return PackedMatrix(parts, 1, False, matmul_dtype)
    return PackedMatrix(tuple(part.T for part in parts), 1, True, matmul_dtype)


def pack_transpose(w: Array, rows: int, platform: str, matmul_dtype: DType | None = None) -> Product:
    """Packs w (K, N), or the blocks w (G, K, N), for products `x wᵀ` in a loop, where x has `rows` rows."""
    if w.ndim == 3:
        if platform == "gpu":
            return partial(block_matmul, w=w.swapaxes(1, 2), matmul_dtype=matmul_dtype)
        return PackedBlocks(tuple(pack_transpose(block, rows, platform, matmul_dtype) for block in w))
    K, N = w.shape
    if platform != "cpu":
        return PackedMatrix((w.T,), 0, False, matmul_dtype)
    number, kind, amx = _number_of_parts(rows * K * N, w), _kind(w), has_amx()
    if number == 1 and kind == "wide" and not amx and rows * K * N > ONE_THREAD["wide"]:
        return PackedMatrix(_split_columns(w.T, HALVES), 1, False, matmul_dtype)
    if number == 1 and LONGEST_SUM.get((kind, amx), N) < N:
        number = -(-N // LONG_ROW)
    parts = _split_columns(w, number)
    if K < SHORT_ROW or not amx:
        return PackedMatrix(tuple(part.T for part in parts), 0, False, matmul_dtype)
    return PackedMatrix(parts, 0, True, matmul_dtype)


def _number_of_parts(multiplications: int, w: Array) -> int:
    number = max(1, -(-multiplications // ONE_THREAD[_kind(w)]))
    return number if number <= MOST_PARTS[_kind(w)] else 1


def _kind(w: Array) -> str:
    return "narrow" if w.dtype.itemsize < 4 else "wide"


def _split_columns(w: Array, number: int) -> tuple[Array, ...]:
    """Splits w (K, N) into `number` parts of similar width, in multiples of 16, which fill a vector register."""
    N = w.shape[1]
    width = -(-N // (16 * number)) * 16
    return tuple(_split(w, [min(width, N - start) for start in range(0, N, width)]))


def _split(array: Array, sizes: Sequence[int]) -> list[Array]:
    """Splits the last axis into parts of these sizes."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [array[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]


# Bulk work on many steps at once.
#
# A product that contracts the axes of both time and batch is fastest as it is on a CPU, where a reshape to rows makes
# it transpose. On an accelerator it is the other way round.


def in_rows(function: Callable[..., PyTree], platform: str, *trees: PyTree) -> PyTree:
    """Applies a function of arrays (S, B, ...) that returns such arrays; on accelerators to rows (S B, ...)."""
    if platform == "cpu":
        return function(*trees)
    S, B = jax.tree.leaves(trees)[0].shape[:2]
    return jax.tree.map(lambda a: a.reshape((S, B) + a.shape[1:]), function(*to_rows(platform, trees)))


def to_rows(platform: str, tree: PyTree) -> PyTree:
    """Reshapes arrays (S, B, ...) to rows (S B, ...) on accelerators; returns them unchanged on a CPU.

    The barrier keeps the compiler from merging the reshape into a product, which would undo it.
    """
    if platform == "cpu":
        return tree
    return lax.optimization_barrier(jax.tree.map(lambda a: a.reshape((a.shape[0] * a.shape[1],) + a.shape[2:]), tree))


# Blocks of time, and what is recomputed.

LARGEST_WHOLE = {"cpu": 2**25, "accelerator": 1e9}
"""One block over all of T is best while its arrays have at most so many bytes. On a CPU, glibc maps larger allocations
anew at every call. Below, gradients of eight cells took 0.69 to 0.98 of the time of blocks of 20 steps, above 0.89 to
1.18 (B=32, H=256, T from 40 to 160)."""

BLOCK = {"cpu": 8.75e6, "accelerator": 2.2e8}
"""The bytes of a block beyond that: on a CPU it stays in the cache, on an accelerator it fills the device."""

SHORTEST_BLOCK = 16
"""The fewest steps in a block, so that the bulk products have enough rows."""

SHORT_PRODUCT = 128
"""Up to this H, in float32 and several blocks on a CPU, recomputing products costs less than storing them: a gradient
took 0.75 to 0.96 of the time at H from 32 to 128, the same at 256, 1.06 of it at 512."""


GATES = 3
"""How many products of the state's size a step has: those of a GRU."""


def choose_block_length(T: int, step_bytes: int, platform: str) -> int:
    """Chooses the number of steps in a block.

    Args:
      T: the number of time steps.
      step_bytes: the bytes that a block reads and writes per step of the whole batch.
      platform: "cpu", "gpu" or "tpu".

    Returns:
      A block length from 1 to T; a divisor of T if there is one nearby.
    """
    kind = "cpu" if platform == "cpu" else "accelerator"
    if T * step_bytes <= LARGEST_WHOLE[kind]:
        return T
    return _nearest_divisor(T, max(SHORTEST_BLOCK, int(BLOCK[kind] // step_bytes)))


def choose_memory(state: State, T: int, platform: str, matmul_dtype: DType | None, *, several_blocks: bool) -> str:
    """Chooses what the backward pass gets: "save" stores the recurrent products, "recompute" computes them again.

    Narrow products, and short ones in blocks, cost less to compute again than to fetch from memory. On a CPU without
    AMX this holds for narrow products that the allocator does not keep mapped: storing them took 0.93 to 1.02 of the
    time in layers with up to 20 MB of them, and 1.09 in a training step with 50 MB in each layer.
    """
    arrays = jax.tree.leaves(state)
    if matmul_dtype is not None:
        mapped = T * GATES * sum(a.nbytes for a in arrays) <= LARGEST_WHOLE["cpu"]
        return "save" if platform == "cpu" and mapped and not has_amx() else "recompute"
    short = all(a.shape[-1] <= SHORT_PRODUCT for a in arrays)
    return "recompute" if platform == "cpu" and several_blocks and short else "save"


def _nearest_divisor(T: int, target: int) -> int:
    """Returns the divisor of T nearest to `target` within a factor of two, or `target` if there is none."""
    if target >= T:
        return T
    near = [d for d in range((target + 1) // 2, min(2 * target, T) + 1) if T % d == 0]
    return min(near, key=lambda d: max(d / target, target / d)) if near else target


# The memory of a TPU's core, for `gru_jax._unroll.kernel`.

MIB = 2**20

VMEM = {
    "TPU v4": 16 * MIB,
    "TPU v5 lite": 128 * MIB,
    "TPU v5e": 128 * MIB,
    "TPU v5": 64 * MIB,
    "TPU v5p": 64 * MIB,
    "TPU v6 lite": 128 * MIB,
    "TPU v6e": 128 * MIB,
    "TPU7x": 64 * MIB,
}
"""The VMEM of a core in bytes, by `device_kind`. Source: `vmem_capacity_bytes` of JAX's `pltpu.get_tpu_info`."""


@dataclass(frozen=True)
class Core:
    """A core of a TPU, which runs kernels.

    Attributes:
      vmem_bytes: the size of its memory, VMEM.
      most_rows, most_steps: the largest block of rows and of steps.
      interpret: False, or `pltpu.InterpretParams` to run kernels without a TPU, in tests.
    """

    vmem_bytes: int
    most_rows: int = 256
    most_steps: int = 32
    interpret: Any = False

    @property
    def budget(self) -> int:
        """The bytes for the arrays of a kernel. The compiler keeps the values of a step in the rest."""
        return self.vmem_bytes * 3 // 4
