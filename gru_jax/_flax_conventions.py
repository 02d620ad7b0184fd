"""Conventions of Flax for NNX and Linen modules: dtype promotion, the order of an LSTM's carry, names of arguments, and
metadata of parameters."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._precision import computing_dtype
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax._unroll.unroll import BACKENDS
from gru_jax.cells import LSTMState
from gru_jax.cells.base import Cell

Function = TypeVar("Function", bound=Callable[..., Any])

EQUIVALENTS = {
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
    "train": ("deterministic",),
    "training": ("deterministic",),
    "key": ("rngs",),
    "rng": ("rngs",),
}
"""Keywords of Flax, PyTorch and Keras, and the arguments here with the same meaning."""

REPLACEMENTS = {
    "in_features": "no input size, which the inputs tell",
    "input_size": "no input size, which the inputs tell",
    "gate_fn": "no function, since the cell has fixed ones",
    "activation_fn": "no function, since the cell has fixed ones",
    "carry_init": "an initial state in the call",
    "promote_dtype": "dtype=",
    "keep_rngs": "rngs=",
    "keep_order": "no such option, since outputs stay aligned with inputs",
    "batch_first": "time_major= in the call",
    "rngs": "rngs= of init or apply",
    "rng": "rngs= of init or apply",
    "key": "rngs= of init or apply",
}
"""Keywords without such an argument, and what replaces them."""

HINTS = {"deterministic": " (True for no dropout)", "lengths": " (padding at the end)"}

CALL_ARGUMENTS = ("time_major", "reverse", "lengths", "resets", "h0", "seq_lengths", "initial_carry", "mask")


def explain_keywords(function: Function) -> Function:
    """Decorates a method: the error for an unknown keyword names the layer and the argument with the same meaning."""
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "parent", "name")]

    @functools.wraps(function)
    def checked(self: Any, *args: Any, **keywords: Any) -> Any:
        for keyword in keywords:
            if keyword not in names and keyword not in ("parent", "name"):
                raise TypeError(f"{class_name(self)}: expected {_replacement(keyword, names)}, got {keyword}=")
        return function(self, *args, **keywords)

    return checked  # pyright: ignore[reportReturnType]


class ConstructorSignature:
    """The attribute `__signature__` of a class: the signature of `__init__`, which the metaclass of NNX hides."""

    def __get__(self, module: Any, kind: type[Any]) -> inspect.Signature:
        if module is not None:
            raise AttributeError("__signature__")  # A module is called with the arguments of `__call__`.
        signature = inspect.signature(kind.__init__)
        return signature.replace(parameters=list(signature.parameters.values())[1:])


def signature_with_hyperparameters(function: Callable[..., Any], kind: type[Any]) -> inspect.Signature:
    """Returns the signature of a module's `__init__` with the keywords of a class of cells in place of `cell`."""
    of_module = {name: p for name, p in inspect.signature(function).parameters.items() if name != "cell"}
    of_cell = {name: p.replace(kind=p.KEYWORD_ONLY) for name, p in inspect.signature(kind).parameters.items()}
    if shared := of_module.keys() & of_cell.keys():
        raise ValueError(f"{kind.__name__}: expected other names than arguments of Flax modules, got {sorted(shared)}")
    keywords = [p for p in of_module.values() if p.kind is p.KEYWORD_ONLY]
    positional = [p for p in of_module.values() if p.kind is not p.KEYWORD_ONLY]
    return inspect.Signature([*positional, *of_cell.values(), *keywords])


def describe(kind: type[Any], base: str, heading: str, example: str) -> str:
    """Returns the docstring of a module for a class of cells, with the arguments in the docstring of the cell.

    Args:
      kind: the class of cells.
      base: "Recurrent" or "RecurrentCell".
      heading: "Args" or "Attributes".
      example: the section with the example.
    """
    _, _, after = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    own = "".join(f"{line}\n" for line in itertools.takewhile(lambda line: line.startswith("  "), after.split("\n")))
    title = f"Layers of `gru_jax.{kind.__name__}`" if base == "Recurrent" else f"A step of `gru_jax.{kind.__name__}`"
    remaining = "arguments" if heading == "Args" else "attributes"
    return (
        f"{title}.\n\nSee there for the equations, and `{base}` for the remaining {remaining}.\n"
        + (f"\n{heading}:\n{own}" if own else "")
        + example
    )


def class_name(module: Any) -> str:
    """Returns the public name of a module's class, e.g. `gru_jax.nnx.GRU`."""
    kind = type(module)
    package = kind.__module__
    return f"{'.'.join(package.split('.')[:2]) if package.startswith('gru_jax.') else package}.{kind.__qualname__}"


def check_dtype(module: Any, dtype: DType | None) -> DType | None:
    """Returns the argument `dtype` of a module; raises unless it is None or floating-point of 16 bits or more."""
    return None if dtype is None else arguments.float_dtype(f"{class_name(module)}: dtype", dtype)


def check_options(
    module: Any, sizes: Mapping[str, Any], param_dtype: DType, matmul_dtype: DType | None, backend: str = "auto"
) -> None:
    """Checks arguments of a module's constructor, under the names that they have there.

    Args:
      module: the module, for its name.
      sizes: sizes by name, such as {"hidden_features": 128}.
      param_dtype, matmul_dtype, backend: see `gru_jax.nnx.Recurrent`.

    Raises:
      ValueError, TypeError: one of them is invalid.
    """
    name = class_name(module)
    for argument, size in sizes.items():
        arguments.positive_int(f"{name}: {argument}", size)
    arguments.float_dtype(f"{name}: param_dtype", param_dtype)
    if matmul_dtype is not None:
        arguments.float_dtype(f"{name}: matmul_dtype", matmul_dtype)
    arguments.one_of(f"{name}: backend", backend, BACKENDS)


def promote(dtype: DType | None, params: Params, inputs: PyTree, *states: Any) -> tuple[Any, ...]:
    """Casts arrays to the dtype of the computation, as `flax.nnx.nn.dtypes.promote_dtype` does.

    Args:
      dtype: the dtype of the computation. If None, parameters and inputs are promoted.
      params: the parameters.
      inputs: the inputs, one array or several. Other than floating-point arrays are unchanged, and `unroll` raises an
        error.
      *states: states or None. A float32 state is unchanged if the dtype has 16 bits.

    Returns:
      params, inputs and states.
    """
    params, inputs, states = _cast((params, inputs, states), None)
    if dtype is None:
        dtypes = {leaf.dtype for leaf in jax.tree.leaves((params, inputs)) if _is_floating(leaf)}
        if any(found.itemsize < 2 for found in dtypes):
            return params, inputs, *states  # JAX does not promote 8-bit dtypes.
        dtype = jnp.result_type(*dtypes)
    return *_cast((params, inputs), dtype), *_cast(states, dtype, but=computing_dtype(dtype))


def init_with_metadata(
    network: Cell | Stack,
    key: Array,
    input_size: int,
    hidden_size: int,
    dtype: DType,
    unbox: Callable[[Any], Array],
    rebox: Callable[[Any, Array], Any] | None = None,
) -> Params:
    """Returns initial parameters, with the metadata of initializers such as `nnx.with_partitioning` makes.

    An initializer draws one gate. The metadata of the gate becomes that of the parameter which has all gates: W_init
    that of W and W_y, b_init that of b and b_hn.

    Args:
      network: a cell or a stack.
      key, input_size, hidden_size, dtype: see `network.init`.
      unbox: returns the array of a box, which an initializer returned, or an array unchanged.
      rebox: `(box, array)` -> a box with the same metadata around another array. If None, metadata are dropped.
    """
    cell: Any = network.cell if isinstance(network, Stack) else network
    boxes: dict[str, Any] = {}

    def unboxed(field: str) -> Callable[..., Array]:
        def draw(*args: Any) -> Array:
            box = getattr(cell, field)(*args)
            array = unbox(box)
            if array is not box:
                boxes[field] = box
            return array

        return draw

    names = [name for name in getattr(cell, "__dataclass_fields__", ()) if name.endswith("_init")]
    initializers = [name for name in names if callable(getattr(cell, name))]
    if not initializers:
        return network.init(key, input_size, hidden_size, dtype)
    drawing: Any = dataclasses.replace(cell, **{name: unboxed(name) for name in initializers})
    network = dataclasses.replace(network, cell=drawing) if isinstance(network, Stack) else drawing
    params = network.init(key, input_size, hidden_size, dtype)

    def boxed(path: Any, array: Array) -> Any:
        name = jax.tree_util.keystr(path[-1:], simple=True)
        field = f"{name.partition('_')[0]}_init"
        if rebox is None or field not in boxes:
            return array
        if array.ndim != unbox(boxes[field]).ndim:
            of_gate = f"that of a gate {unbox(boxes[field]).shape}"
            raise ValueError(
                f"{type(cell).__name__}: {field}: expected an initializer without metadata, since the shape of {name} "
                f"{array.shape} has another number of axes than {of_gate}"
            )
        return rebox(boxes[field], array)

    return jax.tree_util.tree_map_with_path(boxed, params)


def carry_to_state(cell: Cell, carry: Any) -> State:
    """Returns the state of a carry. A plain tuple of an LSTM has the order of Flax, (c, h)."""
    if (
        type(carry) is tuple
        and len(carry) == 2
        and isinstance(jax.eval_shape(lambda: cell.initial_state(1)), LSTMState)
    ):
        c, h = carry
        return LSTMState(h=h, c=c)
    return carry


def state_to_carry(state: State, carry: Any) -> Any:
    """Returns a state in the form of the previous carry."""
    return (state.c, state.h) if isinstance(state, LSTMState) and not isinstance(carry, LSTMState) else state


def _cast(tree: PyTree, dtype: DType | None, but: DType | None = None) -> Any:
    """Casts floating-point arrays to a dtype unless it is None; those of dtype `but` are not cast."""

    def cast(leaf: Any) -> Any:
        if not _is_floating(leaf):
            return leaf
        array = jnp.asarray(arguments.native(leaf))
        return array if dtype is None or array.dtype == but else array.astype(dtype)

    return jax.tree.map(cast, tree)


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic)) and jnp.issubdtype(leaf.dtype, jnp.floating)


def _replacement(keyword: str, names: list[str]) -> str:
    """Returns what to write instead of an unknown keyword."""
    if keyword in CALL_ARGUMENTS and "xs" not in names:
        return f"{EQUIVALENTS.get(keyword, (keyword,))[0]}= in the call"
    for name in EQUIVALENTS.get(keyword, ()):
        if name in names:
            return f"{name}={HINTS.get(name, '')}"
    return REPLACEMENTS.get(keyword, f"one of {', '.join(names)}")
