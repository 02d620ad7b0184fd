"""What users of Flax expect of a layer, in NNX and Linen alike.

Dtypes are promoted, a plain carry of an LSTM is in Flax's order, and the error for one of Flax's keywords names ours.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._precision import computing_dtype
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax.cells import LSTMState
from gru_jax.cells.base import Cell

Function = TypeVar("Function", bound=Callable[..., Any])

OURS = {
    "features": ("hidden_features",),
    "hidden_features": ("features",),
    "hidden_size": ("hidden_features", "features"),
    "units": ("hidden_features", "features"),
    "input_size": ("in_features",),
    "nonlinearity": ("activation",),
    "activation_fn": ("activation",),
    "kernel_init": ("W_init",),
    "recurrent_kernel_init": ("U_init",),
    "bias_init": ("b_init",),
    "dropout_rate": ("dropout",),
    "return_carry": ("return_state",),
    "seq_lengths": ("lengths",),
    "initial_carry": ("h0",),
    "initial_state": ("h0",),
    "segmentation_mask": ("lengths",),
    "mask": ("lengths",),
    "train": ("deterministic",),
    "training": ("deterministic",),
    "key": ("rngs",),
    "rng": ("rngs",),
}
"""Keywords of Flax, PyTorch and Keras, and those here that say the same."""

ELSEWHERE = {
    "in_features": "no input size, for the inputs say it",
    "input_size": "no input size, for the inputs say it",
    "gate_fn": "no function, for the cell's equations fix them",
    "activation_fn": "no function, for the cell's equations fix them",
    "carry_init": "an initial state in the call",
    "promote_dtype": "dtype=",
    "keep_rngs": "rngs=, of which a layer that drops keeps its own stream",
    "keep_order": "no such choice, for outputs stay aligned with their inputs",
    "batch_first": "time_major= in the call",
    "rngs": "rngs= of init or apply",
    "rng": "rngs= of init or apply",
    "key": "rngs= of init or apply",
}
"""Keywords that no argument answers, and what does."""

NOTES = {"deterministic": " (True for no dropout)", "lengths": " (padding at the end)"}

OF_THE_CALL = ("time_major", "reverse", "lengths", "resets", "h0", "seq_lengths", "initial_carry", "mask")


def explained(function: Function) -> Function:
    """Makes the error of an unknown keyword name the layer, and the argument that has the keyword's meaning."""
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "parent", "name")]

    @functools.wraps(function)
    def checked(self: Any, *args: Any, **keywords: Any) -> Any:
        for keyword in keywords:
            if keyword not in names and keyword not in ("parent", "name"):
                raise TypeError(f"{title(self)}: expected {_answer(keyword, names)}, got {keyword}=")
        return function(self, *args, **keywords)

    return checked  # pyright: ignore[reportReturnType]


def title(module: Any) -> str:
    """A module's class as users write it: `gru_jax.nnx.GRU`."""
    kind = type(module)
    package = kind.__module__
    return f"{'.'.join(package.split('.')[:2]) if package.startswith('gru_jax.') else package}.{kind.__qualname__}"


def computation_dtype(module: Any, dtype: DType | None) -> DType | None:
    """Checks the argument `dtype` of a module."""
    if dtype is None:
        return None
    dtype = arguments.float_dtype(f"{title(module)}: dtype", dtype)
    if dtype.itemsize < 2:
        raise TypeError(f"{title(module)}: dtype: expected a floating-point dtype of 16 bits or more, got {dtype}")
    return dtype


def promote(dtype: DType | None, params: Params, inputs: Array, *states: Any) -> tuple[Any, ...]:
    """Casts arrays to the dtype of the computation, as `flax.nnx.nn.dtypes.promote_dtype` does.

    Args:
      dtype: the dtype; None for the one that parameters and inputs promote to.
      params: parameters.
      inputs: whatever is no floating-point array is left for `unroll` to refuse.
      *states: states or None. One in float32 stays so beside 16 bits.

    Returns:
      params, inputs and states.
    """
    params, inputs, states = _cast((params, inputs, states), None)
    if dtype is None:
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((params, inputs)) if _is_floating(leaf)}
        if any(found.itemsize < 2 for found in dtypes):
            return params, inputs, *states  # JAX promotes no 8 bits.
        dtype = jnp.result_type(*dtypes)
    return *_cast((params, inputs), dtype), *_cast(states, dtype, but=computing_dtype(dtype))


def state_of_carry(cell: Cell, carry: Any) -> State:
    """Returns a carry as the cell's state: an LSTM's plain tuple is in Flax's order, (c, h)."""
    if (
        type(carry) is tuple
        and len(carry) == 2
        and isinstance(jax.eval_shape(lambda: cell.initial_state(1)), LSTMState)
    ):
        c, h = carry
        return LSTMState(h=h, c=c)
    return carry


def carry_like(state: State, carry: Any) -> Any:
    """Returns a state in the form that the carry before had."""
    return (state.c, state.h) if isinstance(state, LSTMState) and not isinstance(carry, LSTMState) else state


def _cast(tree: PyTree, dtype: DType | None, but: DType | None = None) -> Any:
    """Makes the floating-point arrays JAX's own, and casts those to a dtype that are not in `but`."""

    def cast(leaf: Any) -> Any:
        if not _is_floating(leaf):
            return leaf
        array = jnp.asarray(leaf)
        return array if dtype is None or array.dtype == but else array.astype(dtype)

    return jax.tree.map(cast, tree)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic)) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _answer(keyword: str, names: list[str]) -> str:
    """What to write in place of an unknown keyword."""
    if keyword in OF_THE_CALL and "xs" not in names:
        return f"{OURS.get(keyword, (keyword,))[0]}= in the call"
    for ours in OURS.get(keyword, ()):
        if ours in names:
            return f"{ours}={NOTES.get(ours, '')}"
    return ELSEWHERE.get(keyword, f"one of {', '.join(names)}")
