"""The interface of a cell.

A cell is a frozen, hashable dataclass of hyperparameters. Its parameters are a separate named tuple of arrays. A cell
splits a recurrent layer into two parts. `project` depends only on the inputs and is computed for all time steps at
once. `step` depends on the state. `gru_jax.unroll` runs the step over time.

To add a cell, write a class with the methods of `Cell`. If it also has the methods of `Adjoint`, they compute its
gradient. Otherwise the gradient is derived from its step.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp

from gru_jax import _arguments as arguments
from gru_jax._precision import computing_dtype, operand_dtype, round_like, widen
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax._zoneout import check_zoneout, expected_state

GateInputs: TypeAlias = PyTree
"""The projected inputs of a step: one array (..., H) per gate, so that a scan slices each separately."""

Product: TypeAlias = Callable[[Array], Array]
"""A function `x -> x U` of arrays (..., K) -> (..., N), for a matrix U (K, N).

For a block-diagonal matrix with blocks U (G, K, N), it is a function of arrays (..., G K) -> (..., G N).
"""


@runtime_checkable
class Recurrence(Protocol):
    """Anything with parameters and a state: a cell or a stack of cells."""

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = ...) -> Params:
        """Returns initial parameters. The key is consumed."""
        ...

    def infer_sizes(self, params: Params) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of the parameters.

        Raises:
          ValueError, TypeError: if the shapes, dtypes or fields of the parameters do not match.
        """
        ...

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = ...) -> State:
        """Returns a state of zeros, arrays (*batch_shape, H)."""
        ...


@runtime_checkable
class Cell(Recurrence, Protocol):
    """A recurrent step and its parameters.

    `project` and `step` compute in the dtype of their arguments. `unroll` and the single-step functions pass float32
    if the parameters have 16 bits.
    """

    def project(self, params: Params, xs: Array, matmul_dtype: DType | None = None) -> GateInputs:
        """Returns the gate inputs, arrays (..., H), of inputs (..., I)."""
        ...

    def step(self, params: Params, state: State, gate_inputs: GateInputs, matmul_dtype: DType | None = None) -> State:
        """Returns the state after a step, arrays (..., H), given the state before it and the gate inputs."""
        ...

    def output(self, state: State) -> PyTree:
        """Returns the output (..., H) of a state, a linear function of it; for a cell with a `Readout`, the state."""
        ...


@runtime_checkable
class Readout(Protocol):
    """A cell whose output needs parameters and inputs. It is computed for all steps at once, after the loop."""

    def readout(self, params: Params, states: State, xs: Array, matmul_dtype: DType | None = None) -> Array:
        """Returns the outputs (..., H), given the states after steps, arrays (..., H), and their inputs (..., I).

        Past the length of a sequence and where a mask is false, the inputs are zero.
        """
        ...


@runtime_checkable
class ReadoutAdjoint(Readout, Protocol):
    """A readout with a gradient derived by hand, for all steps at once."""

    def readout_gradients(
        self, params: Params, states: State, xs: Array, cotangent: Array, matmul_dtype: DType | None = None
    ) -> tuple[PyTree, State, Array]:
        """Returns the gradients of the parameters, summed over time and batch, and the cotangents of states and inputs.

        Those of the states are arrays (..., H), and of the inputs (..., I). The gradient is None for a parameter that
        the readout does not use.
        """
        ...


@runtime_checkable
class Adjoint(Protocol):
    """The gradient of a cell, derived by hand.

    The reverse loop over time carries only the cotangent of the state. `linearize` computes elementwise coefficients
    before the loop, for many steps at once. `gradients` computes the gradients of the parameters and inputs after the
    loop. The arrays of these two methods have leading axes of time and batch. The products with the recurrent matrices
    are passed as functions, one for each of `recurrent_matrices`, so that a backend can choose how to store them.
    """

    def recurrent_matrices(self, params: Params) -> tuple[Array, ...]:
        """Returns the matrices that multiply the state, each (K, N), or (G, K, N) for a block-diagonal matrix."""
        ...

    def step_with_residuals(
        self, params: Params, products: tuple[Product, ...], state: State, gate_inputs: GateInputs
    ) -> tuple[State, PyTree]:
        """Returns the state after a step, arrays (..., H), and the matrix products as residuals for `linearize`.

        The same method recomputes residuals that were not stored, for many steps at once.
        """
        ...

    def linearize(
        self, params: Params, before: State, after: State, gate_inputs: GateInputs, residuals: PyTree
    ) -> PyTree:
        """Returns the elementwise coefficients of `pullback` and `gradients`, for many steps at once.

        Where zoneout or a mask kept an entry of the state, `after` has that entry, and its cotangent is zero. So an
        array of `after` may be used in coefficients of its own cotangent only.
        """
        ...

    def pullback(
        self, params: Params, transposed_products: tuple[Product, ...], coefficients: PyTree, cotangent: State
    ) -> tuple[State, PyTree]:
        """Pulls the cotangent of the state after a step back to the state before it.

        Returns:
          The cotangent of the state before the step, and the step cotangents that `gradients` needs.
        """
        ...

    def gradients(
        self,
        params: Params,
        xs: Array,
        before: State,
        coefficients: PyTree,
        step_cotangents: PyTree,
        matmul_dtype: DType | None = None,
    ) -> tuple[PyTree, Array]:
        """Returns the gradients of the parameters, summed over time and batch, and of the inputs (..., I).

        The gradient of a parameter may be a tuple with a part per gate. The parts are concatenated along the last axis
        after all blocks of time are summed. It is None for a parameter that the step does not use.
        """
        ...


@runtime_checkable
class LinearCell(Protocol):
    """A cell that declares with `linear = True` that its step is affine in the state, unit by unit: `h' = a * h + b`.

    a and b depend on the inputs only. If the state has several arrays, a is a matrix of that size for each unit. With
    `backend="associative"`, `unroll` finds a and b from the step and computes all states by an associative scan.
    """

    @property
    def linear(self) -> bool:
        """Whether the step is affine in the state."""
        ...


@runtime_checkable
class Network(Recurrence, Protocol):
    """A network of several cells, such as a `Stack`."""

    def output(self, state: State) -> Array:
        """Returns the output (..., H) of a state, if all cells run forward."""
        ...

    def compose(
        self,
        run: Any,
        params: Params,
        xs: Array,
        *,
        reverse: bool,
        key: Array | None,
    ) -> Any:
        """Runs each cell with `run(cell, params, xs, at=..., reverse=...) -> (ys, h_last)`.

        Args:
          run: a function that runs one cell over time, or for one step. `at` are the indices of the cell's state in the
            state of the network, such as (layer, direction).
          params: the parameters of all cells.
          xs: (T, B, I), or (..., I) for one step.
          reverse: whether to run from the last step to the first.
          key: a PRNG key for dropout, which is consumed. If None, dropout is not applied.

        Returns:
          The outputs and the final states.
        """
        ...


def check_cell(name: str, value: Any, *others: type) -> None:
    """Checks that a value is a cell, or an instance of `others`, and hashable.

    Raises:
      TypeError: it is not.
    """
    arguments.instance(name, value, (Cell, *others), "a cell such as gru_jax.GRU()")


def step(
    cell: Cell | Network,
    params: Params,
    state: State,
    x: Array,
    *,
    zoneout: Any = None,
    matmul_dtype: DType | None = None,
) -> tuple[Array, State]:
    """Runs one step of a cell or of a stack, e.g. for inputs that arrive one at a time.

    The results equal `unroll` for a sequence of one step. With 16-bit parameters and a float32 state, y is
    float32, while `unroll` rounds its outputs.

    Args:
      cell: a cell (`GRU`, `LSTM`, `Elman`, your own), or a `Stack` of one direction. Dropout is not applied.
      params: the parameters, from `cell.init`.
      state: the state before the step, arrays (..., H) in the parameters' dtype, or in float32 if they have 16 bits.
        The initial state is `cell.initial_state(hidden_size, batch_shape)`.
      x: (..., I), the input.
      zoneout: the rate that the cell was trained with, or one for each array of its state; see `gru_jax.unroll`. Its
        expectation is used.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.

    Returns:
      y: (..., H), the output, in the dtype of the state.
      state: the state after the step, with the structure and dtypes of the state before.

    Raises:
      ValueError, TypeError: if shapes or dtypes do not match, or a stack has two directions.

    Example:
      >>> stack = Stack(GRU(), num_layers=2)
      >>> params = stack.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> state = stack.initial_state(128, batch_shape=(32,))
      >>> y, state = step(stack, params, state, jnp.ones((32, 64)))   # y (32, 128)
    """
    check_cell("cell", cell, Network)
    if getattr(cell, "bidirectional", False):
        raise ValueError("cell: expected a stack of one direction, got bidirectional=True")
    return run_step(cell, params, state, x, matmul_dtype, zoneout=zoneout, state_name="state")


def run_step(
    cell: Cell | Network,
    params: Params,
    state: State,
    x: Array,
    matmul_dtype: DType | None = None,
    *,
    zoneout: Any = None,
    state_name: str = "h",
    input_name: str = "x",
) -> tuple[Array, State]:
    """Checks the arguments of a step and runs it, in float32 if the parameters have 16 bits.

    Args:
      cell: a cell, or a stack of one direction.
      params: its parameters.
      state: arrays (..., H), the state before the step, in the parameters' dtype, or in float32 if they have 16 bits.
      x: (..., I), the input.
      matmul_dtype: the dtype of the matrix products' operands. If None, the parameters' dtype is used.
      zoneout: the rates of zoneout, whose expectation is used.
      state_name: the name of `state` in error messages.
      input_name: the name of `x` in error messages.

    Returns:
      The output (..., H), and the state after the step, arrays (..., H), in the dtypes of the state before.

    Raises:
      ValueError, TypeError: if shapes or dtypes do not match.
    """
    input_size, hidden_size, dtype = cell.infer_sizes(params)
    x = arguments.floating(input_name, x)
    arguments.same_dtype(input_name, x, dtype, "the parameters")
    if x.ndim < 1 or x.shape[-1] != input_size:
        raise ValueError(f"{input_name}: expected shape (..., {input_size}), got {x.shape}")
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    state = check_state(state_name, cell, state, hidden_size, x.shape[:-1], dtype)
    params, before, x = widen((jax.tree.map(lambda a: jnp.asarray(arguments.native(a)), params), state, x))
    matmul_dtype = operand_dtype(matmul_dtype, dtype)
    rates = check_zoneout("zoneout", 0.0 if zoneout is None else zoneout)

    def run(cell: Any, params: Params, x: Array, *, at: Any = (), reverse: bool = False):
        state = part(before, at)
        after = cell.step(params, state, cell.project(params, x, matmul_dtype), matmul_dtype)
        after = expected_state(rates.of_arrays("zoneout", state), state, after)
        return read_out(cell, params, cell.output(after), x, matmul_dtype), after

    if isinstance(cell, Network):
        y, after = cell.compose(run, params, x, reverse=False, key=None)
    else:
        y, after = run(cell, params, x)
    after = round_like(after, state)
    return y.astype(jax.tree.leaves(after)[0].dtype), after


def read_out(cell: Cell, params: Params, outputs: Any, xs: Array, matmul_dtype: DType | None) -> Array:
    """Returns the outputs (..., H) of a cell, given `cell.output` of its states and its inputs (..., I)."""
    return cell.readout(params, outputs, xs, matmul_dtype) if isinstance(cell, Readout) else outputs


def part(tree: PyTree, at: tuple[int, ...]) -> PyTree:
    """Returns the subtree at these indices, e.g. the state of one cell in the state of a network."""
    for index in at:
        tree = tree[index]
    return tree


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
      name: the name of the state in error messages.
      cell: the cell, whose `initial_state` has the expected structure.
      state: arrays (*batch_shape, H), in the parameters' dtype, or in float32 if they have 16 bits.
      hidden_size: H.
      batch_shape: the batch axes.
      dtype: the parameters' dtype.
      per_step: the batch and time axes. If given, arrays (*per_step, H) are accepted as well.

    Returns:
      The state as JAX arrays.

    Raises:
      ValueError, TypeError: if the structure, a shape or a dtype is wrong.
    """
    expected = jax.eval_shape(lambda: cell.initial_state(hidden_size, batch_shape, dtype))
    leaves, structure = jax.tree.flatten(expected)
    if jax.tree.structure(state) != structure:
        raise TypeError(f"{name}: expected {arguments.outline(expected)}, got {arguments.outline(state)}")
    paths = [name + jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(expected)]
    arrays = []
    for path, leaf, value in zip(paths, leaves, jax.tree.leaves(state), strict=True):
        array = arguments.floating(path, value)
        if per_step is None:
            arguments.matching(path, array, leaf.shape, "the batch axes of the input and H")
        elif array.shape not in (leaf.shape, (*per_step, hidden_size)):
            raise ValueError(
                f"{path}: expected shape {leaf.shape}, or {(*per_step, hidden_size)} for a state per reset, "
                f"got {array.shape}"
            )
        if array.dtype != computing_dtype(dtype):
            arguments.same_dtype(path, array, dtype, "the parameters")
        arrays.append(jnp.asarray(array))
    return jax.tree.unflatten(structure, arrays)


def zeros(batch_shape: tuple[int, ...], hidden_size: int, dtype: DType) -> Array:
    """Returns zeros (*batch_shape, H), for the state before the first step."""
    if not isinstance(batch_shape, (tuple, list)):
        raise TypeError(f"batch_shape: expected a tuple of sizes, such as (8,), got {batch_shape!r}")
    arguments.positive_int("hidden_size", hidden_size)
    dtype = arguments.float_dtype("dtype", dtype)
    return jnp.zeros((*batch_shape, hidden_size), dtype)


def check_init(key: Array, input_size: int, hidden_size: int, dtype: DType) -> Any:
    """Checks the arguments of `init` and returns the dtype."""
    arguments.prng_key("init: key", key)
    arguments.positive_int("init: input_size", input_size)
    arguments.positive_int("init: hidden_size", hidden_size)
    return arguments.float_dtype("init: dtype", dtype)


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


def check_shapes(params: Any, expected: type, shapes: dict[str, tuple[str, ...]]) -> tuple[int, int, Any]:
    """Checks the fields of parameters against each other.

    Args:
      params: the parameters.
      expected: their type, a named tuple.
      shapes: the axes of each field: "I", or a multiple of H such as "H" or "3H".

    Returns:
      I, H and the dtype of the first field.

    Raises:
      ValueError, TypeError: if a field does not match the others.
    """
    arguments.named_tuple("params", params, expected)
    arrays = {name: arguments.floating(f"params.{name}", getattr(params, name)) for name in shapes}
    first, sizes = next(iter(shapes)), {}
    for name, axes in shapes.items():
        arguments.shape(f"params.{name}", arrays[name], axes)
        for axis, size in zip(axes, arrays[name].shape, strict=True):
            letter, multiple = axis[-1], int(axis[:-1] or 1)
            if size % multiple:
                raise ValueError(f"params.{name}: expected an axis {axis} that {multiple} divides, got {size}")
            sizes.setdefault(letter, size // multiple)
        known = tuple(sizes[axis[-1]] * int(axis[:-1] or 1) for axis in axes)
        arguments.shape(f"params.{name}", arrays[name], known)
        arguments.same_dtype(f"params.{name}", arrays[name], arrays[first].dtype, f"params.{first}")
    return sizes["I"], sizes["H"], arrays[first].dtype
