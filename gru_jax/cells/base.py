"""What a cell is.

A cell is a frozen, hashable dataclass of hyperparameters; its parameters are arrays in a named tuple, kept apart.
It cuts a recurrent layer in two: `project` holds what depends on the inputs alone, and can be done for all time
steps at once; `step` holds what depends on the state. A backend in `gru_jax.unroll` runs the step through time.

A new cell is one file with a class that has the methods of `Cell`. With those of `Adjoint` too it carries its own
gradient; without them the fused backend derives one.
"""

from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from gru_jax import _arguments as arguments
from gru_jax._precision import computing_dtype, operand_dtype, round_like, widen
from gru_jax._types import Array, DType, Params, PyTree, State

Drive: TypeAlias = PyTree
"""What the inputs contribute to a step: one array (..., H) a gate, so that a scan slices each on its own."""


@runtime_checkable
class Recurrence(Protocol):
    """Anything with parameters and a state: a cell, a stack of cells."""

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = ...) -> Params:
        """Draws parameters. The key is consumed."""
        ...

    def check(self, params: Params) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`; raises where they do not fit each other or the cell."""
        ...

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = ...) -> State:
        """Returns the state of zeros: every array (*batch_shape, H)."""
        ...


@runtime_checkable
class Cell(Recurrence, Protocol):
    """One recurrent step and its parameters.

    `project` and `step` compute in the dtype of what they are given: `unroll` and the single-step functions give them
    float32 where the parameters have 16 bits.
    """

    def project(self, params: Params, xs: Array, matmul_dtype: DType | None = None) -> Drive:
        """Maps inputs (..., I) to what they contribute to the step: arrays (..., H)."""
        ...

    def step(self, params: Params, state: State, drive: Drive, matmul_dtype: DType | None = None) -> State:
        """Maps the state before a step to the state after it, given what `project` made of the step's input."""
        ...

    def output(self, state: State) -> Array:
        """Returns the part of the state that the layer emits: (..., H)."""
        ...


@runtime_checkable
class Adjoint(Protocol):
    """The gradient of a cell, derived by hand and cut along the same line: bulk, small step, bulk.

    The reverse loop through time carries nothing but the cotangent of the state. All that it needs is worked out for
    many steps at once before it (`linearize`), and all that the parameters and inputs receive for many steps at
    once after it (`gradients`). The arrays of the bulk methods have leading axes of time and batch.
    """

    def arrange(self, params: Params, rows: int, platform: str) -> PyTree:
        """The parameters as `record` multiplies with them, laid out once for all steps of so many rows."""
        ...

    def record(
        self, arranged: PyTree, state: State, drive: Drive, matmul_dtype: DType | None = None
    ) -> tuple[State, PyTree]:
        """`step`, and the products of the state with matrices in it, worth keeping for `linearize`."""
        ...

    def replay(self, params: Params, before: State, drive: Drive, matmul_dtype: DType | None = None) -> PyTree:
        """What `record` kept, worked out again in bulk from the states before each step."""
        ...

    def linearize(self, params: Params, before: State, after: State, drive: Drive, record: PyTree) -> PyTree:
        """The elementwise coefficients of `pullback` and `gradients`, in bulk."""
        ...

    def transpose(self, params: Params, rows: int, platform: str) -> PyTree:
        """The recurrent matrices as `pullback` multiplies with them, laid out once for all steps of so many rows."""
        ...

    def pullback(
        self, transposed: PyTree, coefficients: PyTree, cotangent: State, matmul_dtype: DType | None = None
    ) -> tuple[State, PyTree]:
        """One step back: the cotangent of the state before, and what of this step `gradients` needs to know."""
        ...

    def gradients(
        self,
        params: Params,
        xs: Array,
        before: State,
        coefficients: PyTree,
        trace: PyTree,
        matmul_dtype: DType | None = None,
    ) -> tuple[PyTree, Array]:
        """The cotangents of the parameters, summed over time and batch, and of the inputs, in bulk.

        The parameters' cotangents may lie gate by gate, so that sums over blocks of time copy nothing; `assemble`
        puts them together at the end.
        """
        ...

    def assemble(self, gradient: PyTree) -> Params:
        """Puts the sum of what `gradients` returned into the form of the parameters."""
        ...


@runtime_checkable
class Network(Recurrence, Protocol):
    """Several cells that `unroll` runs as one: a stack, two directions."""

    def compose(
        self,
        run: Any,
        params: Params,
        xs: Array,
        h0: State,
        reset_state: State | None,
        *,
        reverse: bool,
        key: Array | None,
    ) -> Any:
        """Runs the cells: `run(cell, params, xs, h0, reset_state, reverse=...) -> (ys, h_last)` unrolls one.

        Time is the first axis; `reset_state` has the structure of h0, or is None.
        """
        ...


def streaming_step(
    cell: Cell,
    params: Params,
    state: State,
    x: Array,
    matmul_dtype: DType | None = None,
    *,
    state_name: str = "h",
    input_name: str = "x",
) -> State:
    """Runs any cell for one step, checked; in float32 where the parameters have 16 bits, rounded at its end.

    Args:
      cell: a cell.
      params: its parameters.
      state: arrays (..., H), the state before, in the parameters' dtype, or in float32 beside 16-bit ones.
      x: (..., I), the input.
      matmul_dtype: the dtype of the matrix products' operands; None for that of the parameters.
      state_name: what the caller calls `state`.
      input_name: what the caller calls `x`.

    Returns:
      arrays (..., H), the state after, in the dtype of the state before.

    Raises:
      ValueError, TypeError: where shapes or dtypes do not fit; the line names the argument.
    """
    input_size, hidden_size, dtype = cell.check(params)
    x = arguments.floating(input_name, x)
    arguments.same_dtype(input_name, x, dtype, "the parameters")
    if x.ndim < 1 or x.shape[-1] != input_size:
        raise ValueError(f"{input_name}: expected shape (..., {input_size}), got {x.shape}")
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    state = check_state(state_name, cell, state, hidden_size, x.shape[:-1], dtype)
    params, before, x = widen((jax.tree.map(jnp.asarray, params), state, x))
    matmul_dtype = operand_dtype(matmul_dtype, dtype)
    after = cell.step(params, before, cell.project(params, x, matmul_dtype), matmul_dtype)
    return round_like(after, state)


def check_state(
    name: str,
    cell: Recurrence,
    state: State,
    hidden_size: int,
    batch_shape: tuple[int, ...],
    dtype: DType,
    *,
    per_step: tuple[int, ...] | None = None,
) -> State:
    """Checks a state.

    Args:
      name: what the caller calls it.
      cell: the cell whose structure it must have.
      state: arrays (*batch_shape, H), in the parameters' dtype, or in float32 beside 16-bit ones.
      hidden_size: H.
      batch_shape: the batch axes.
      dtype: the parameters' dtype.
      per_step: the axes of batch and time of arrays (*per_step, H), which are then taken too.

    Returns:
      The state as JAX arrays.

    Raises:
      ValueError, TypeError: where it does not fit; the line names the array.
    """
    expected = jax.eval_shape(lambda: cell.initial_state(hidden_size, batch_shape, dtype))
    leaves, structure = jax.tree.flatten(expected)
    if jax.tree.structure(state) != structure:
        raise TypeError(f"{name}: expected {_outline(expected)}, got {_outline(state)}")
    paths = [name + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    arrays = []
    for path, leaf, value in zip(paths, leaves, jax.tree.leaves(state), strict=True):
        array = arguments.floating(path, value)
        if per_step is None:
            arguments.matching(path, array, leaf.shape, "the batch axes of the input and H")
        elif array.shape not in (leaf.shape, (*per_step, hidden_size)):
            raise ValueError(
                f"{path}: expected shape {leaf.shape}, or {(*per_step, hidden_size)} for a state per mark, "
                f"got {array.shape}"
            )
        if array.dtype != computing_dtype(dtype):
            arguments.same_dtype(path, array, dtype, "the parameters")
        arrays.append(jnp.asarray(array))
    return jax.tree.unflatten(structure, arrays)


def _outline(state: Any) -> str:
    """The structure of a state in words: `an array`, `LSTMState(h, c)`, `a tuple of (an array, an array)`."""
    fields = getattr(state, "_fields", None)
    if fields:
        return f"{type(state).__name__}({', '.join(fields)})"
    if isinstance(state, tuple):
        parts = [_outline(part) for part in state[:4]] + ["..."] * (len(state) > 4)
        return f"a tuple of ({', '.join(parts)})"
    if isinstance(state, (jax.Array, jax.ShapeDtypeStruct, np.ndarray)):
        return "an array"
    return type(state).__name__


def check_init(key: Array, input_size: int, hidden_size: int, dtype: DType) -> Any:
    """Checks what `init` was given; returns the dtype."""
    arguments.prng_key("init: key", key)
    arguments.positive_int("init: input_size", input_size)
    arguments.positive_int("init: hidden_size", hidden_size)
    dtype = arguments.float_dtype("init: dtype", dtype)
    if dtype.itemsize < 2:
        raise TypeError(f"init: dtype: expected a floating-point dtype of 16 bits or more, got {dtype}")
    return dtype


def check_weights(params: Any, expected: type, gates: int) -> tuple[int, int, Any]:
    """Checks W (I, gates * H), U (H, gates * H) and b (gates * H,) against each other.

    Returns:
      I, H and the dtype.
    """
    arguments.named_tuple("params", params, expected)
    W, U, b = (arguments.floating(f"params.{name}", getattr(params, name)) for name in ("W", "U", "b"))
    columns = f"{gates}H" if gates > 1 else "H"
    arguments.shape("params.U", U, ("H", columns))
    hidden_size = U.shape[0]
    arguments.shape("params.U", U, (hidden_size, gates * hidden_size))
    arguments.shape("params.W", W, ("I", gates * hidden_size))
    arguments.shape("params.b", b, (gates * hidden_size,))
    arguments.same_dtype("params.U", U, W.dtype, "params.W")
    arguments.same_dtype("params.b", b, W.dtype, "params.W")
    return W.shape[0], hidden_size, W.dtype
