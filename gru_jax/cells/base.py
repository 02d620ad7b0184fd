"""What a cell is.

A cell is a frozen, hashable dataclass of hyperparameters; its parameters are arrays in a named tuple, kept apart.
It cuts a recurrent layer in two: `project` holds what depends on the inputs alone, and can be done for all time
steps at once; `step` holds what depends on the state. A backend in `gru_jax.unroll` runs the step through time.

A new cell is one file with a class that has the methods of `Cell`. With those of `Adjoint` too it carries its own
gradient; without them the fused backend derives one.
"""

from typing import Any, Protocol, TypeAlias, runtime_checkable

from gru_jax.types import Array, DType, Params, PyTree, State

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
