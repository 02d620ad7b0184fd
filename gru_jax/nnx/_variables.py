"""Parameters as NNX variables, and streams of PRNG keys."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from gru_jax._flax_conventions import init_with_metadata
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Params
from gru_jax.cells import Cell


def new_variables(network: Cell | Stack, key: Array, input_size: int, hidden_size: int, dtype: DType) -> Any:
    """Returns the parameters of a cell or a stack as variables `nnx.Param`, with the metadata of the initializers."""

    def unbox(drawn: Any) -> Array:
        return drawn.raw_value if isinstance(drawn, nnx.VariableMetadata) else drawn

    def rebox(box: Any, array: Array) -> Any:
        return dataclasses.replace(box, raw_value=array)

    params = init_with_metadata(network, key, input_size, hidden_size, dtype, unbox, rebox)
    return jax.tree.map(nnx.Param, params)


def parameters_key(module: str, rngs: Any) -> Array:
    """Returns the next key of the stream `params` of Rngs, or of a stream."""
    if isinstance(rngs, nnx.RngStream):
        return rngs()
    if not isinstance(rngs, nnx.Rngs):
        raise TypeError(f"{module}: rngs: expected flax.nnx.Rngs, such as nnx.Rngs(0), got {type(rngs).__name__}")
    return stream(module, rngs, "params")()


def stream(module: str, rngs: nnx.Rngs, name: str) -> nnx.RngStream:
    """Returns the stream of a name, or the default stream."""
    try:
        return rngs[name]
    except KeyError:
        known = ", ".join(rngs) or "none"
        raise ValueError(f"{module}: rngs: expected a stream `{name}` or a default one, got {known}") from None


def values(variables: Any) -> Any:
    """Replaces the variables in a tree by their arrays."""
    return jax.tree.map(lambda variable: variable[...], variables, is_leaf=is_variable)


def is_variable(node: Any) -> bool:
    """Returns whether a node of a tree is an NNX variable."""
    return isinstance(node, nnx.Variable)


def dtype_of(params: Params) -> DType:
    """Returns the current dtype of the parameters."""
    return jax.tree.leaves(params)[0].dtype
