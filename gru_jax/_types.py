"""Axis names and array types.

Axes: `B` batch, `T` time, `I` input features, `H` hidden, `V` vocabulary, `L` layers.
`...` stands for any number of batch axes, including none.
"""

from typing import Any, Protocol, TypeAlias

import jax

Array: TypeAlias = jax.Array
DType: TypeAlias = Any
"""Anything that `jnp.dtype` accepts: `jnp.float32`, `"bfloat16"`, ..."""

PyTree: TypeAlias = Any
Params: TypeAlias = PyTree
"""A cell's parameters: a named tuple of arrays; a `Stack`'s: a tuple of tuples of them."""

State: TypeAlias = PyTree
"""A cell's state: `h (..., H)`, or a named tuple of such arrays."""


class Initializer(Protocol):
    """A function `(key, shape, dtype) -> array`, e.g. from `jax.nn.initializers`."""

    def __call__(self, key: Array, shape: Any, dtype: Any, /) -> Array: ...
