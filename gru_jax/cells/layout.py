"""How a recurrent matrix lies in memory for the products of a loop.

A loop through time multiplies a few rows by the same matrix at every step; on a CPU, how fast depends on how that
matrix lies, so it is laid out once before the loop. The rules below were measured on two cores with AVX-512 and AMX,
B from 16 to 128, H from 64 to 1024; on accelerators the compiler chooses, and nothing is done.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from gru_jax._types import Array, DType
from gru_jax.cells.gates import matmul, matmul_input_gradient

ONE_THREAD = {"narrow": 1_650_000, "wide": 2_100_000}
"""A product of at most so many multiplications runs on the thread that asks for it; a larger one wakes the others."""

MOST_PARTS = {"narrow": 8, "wide": 3}
"""Cutting a product into up to so many parts of one thread each is faster than waking the others at every step: at
B=32, H=256 by half in bfloat16, by a tenth to a quarter in float32."""

LONG_ROW = 1024
"""From so many rows on, `x w` reads w faster from its transpose (a quarter less time at B=16, H=1024)."""

SHORT_ROW = 448
"""Below so many rows, `x wᵀ` reads w faster from its transpose, above as it is (a third less at B=16, H=1024)."""

LONGEST_SUM = 1536
"""In float32 a product that sums over more than this is faster as several over `LONG_ROW` (a quarter at H=1024)."""


@dataclass(frozen=True)
class Laid:
    """A matrix w (K, N) for the product `x w`, in parts.

    Attributes:
      parts: w cut along `axis`; every part transposed if `transposed`.
      axis: 1, the columns: the parts' products lie side by side; 0, the rows: they are added up.
      transposed: whether the parts are (N, K).
    """

    parts: tuple[Array, ...]
    axis: int
    transposed: bool

    def product(self, x: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns `x w`: x (..., K) -> (..., N)."""
        multiply = matmul_input_gradient if self.transposed else matmul
        if self.axis == 1:
            products = [multiply(x, part, matmul_dtype) for part in self.parts]
            return products[0] if len(products) == 1 else jnp.concatenate(products, axis=-1)
        sizes = [part.shape[1 if self.transposed else 0] for part in self.parts]
        first, *rest = (multiply(cut, part, matmul_dtype) for cut, part in zip(_cut(x, sizes), self.parts, strict=True))
        return sum(rest, start=first)


def multiply(x: Array, w: Array | Laid, matmul_dtype: DType | None = None) -> Array:
    """`x w`, w laid out or as it is."""
    return w.product(x, matmul_dtype) if isinstance(w, Laid) else matmul(x, w, matmul_dtype)


def lay_out(w: Array, rows: int, platform: str) -> Laid:
    """Lays w (K, N) out for products `x w` of `rows` rows in a loop."""
    K, N = w.shape
    if platform != "cpu":
        return Laid((w,), axis=1, transposed=False)
    parts = _columns(w, _parts(rows * K * N, w) if _narrow(w) else 1)
    if K < LONG_ROW:
        return Laid(parts, axis=1, transposed=False)
    return Laid(tuple(part.T for part in parts), axis=1, transposed=True)


def lay_out_transpose(w: Array, rows: int, platform: str) -> Laid:
    """Lays w (K, N) out for products `x wᵀ` of `rows` rows in a loop."""
    K, N = w.shape
    if platform != "cpu":
        return Laid((w.T,), axis=0, transposed=False)
    number = _parts(rows * K * N, w)
    if number == 1 and not _narrow(w) and N > LONGEST_SUM:
        number = -(-N // LONG_ROW)
    parts = _columns(w, number)
    if K < SHORT_ROW:
        return Laid(tuple(part.T for part in parts), axis=0, transposed=False)
    return Laid(parts, axis=0, transposed=True)


def _parts(multiplications: int, w: Array) -> int:
    kind = "narrow" if _narrow(w) else "wide"
    number = max(1, -(-multiplications // ONE_THREAD[kind]))
    return number if number <= MOST_PARTS[kind] else 1


def _narrow(w: Array) -> bool:
    return w.dtype.itemsize < 4


def _columns(w: Array, number: int) -> tuple[Array, ...]:
    """Cuts w (K, N) into `number` parts of nearly as many columns, multiples of 16, which fill a vector register."""
    N = w.shape[1]
    width = -(-N // (16 * number)) * 16
    return tuple(_cut(w, [min(width, N - start) for start in range(0, N, width)]))


def _cut(array: Array, sizes: Sequence[int]) -> list[Array]:
    """Cuts the last axis into parts of these sizes."""
    ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
    return [array[..., end - size : end] for size, end in zip(sizes, ends, strict=True)]
