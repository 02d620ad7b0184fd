"""The axis legend and the array types that every file here speaks in.

Axes: `B` batch, `T` time, `I` input features, `H` hidden, `V` vocabulary, `L` layers.
`...` before them stands for any number of batch axes, none included.
"""

from typing import Any, Protocol, TypeAlias

import jax

Array: TypeAlias = jax.Array
DType: TypeAlias = Any
"""Anything that `jnp.dtype` takes: `jnp.float32`, `"bfloat16"`, ..."""

PyTree: TypeAlias = Any
Params: TypeAlias = PyTree
"""A cell's parameters: a named tuple of arrays; a `Stack`'s: a tuple of tuples of them."""

State: TypeAlias = PyTree
"""A cell's state: `h (..., H)`, or a named tuple of such arrays."""


class Initializer(Protocol):
    """Draws a matrix or a bias: `(key, shape, dtype) -> array`, as those of `jax.nn.initializers`."""

    def __call__(self, key: Array, shape: Any, dtype: Any, /) -> Array: ...
