"""A loop over time as one kernel, for TPUs.

`lax.scan` compiles to a loop of several kernels per step. Here one kernel runs all steps. The recurrent matrices and
the carry stay in VMEM, the memory of the core, from the first step to the last. The inputs and outputs of the steps are
copied in blocks of time. The kernel traces the step that it is given, so it serves every cell.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, jaxpr_as_fun, jaxprs_in_params
from jax.sharding import ManualAxisType

from gru_jax._types import Array, PyTree
from gru_jax._unroll.sharding import varying_axes
from gru_jax._unroll.tuning import MIB, Core

FEWEST_STEPS = 8
"""Blocks have fewer rows if fewer steps than this would fit."""

Shaped: TypeAlias = Any
"""An array, or anything else with a shape and a dtype."""

Step: TypeAlias = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
"""A function `(shared, rows, carry, x) -> (carry, y)` that closes over no arrays. A row depends on no other row."""


class Blocks(NamedTuple):
    """The steps and rows of a block, and the bytes of VMEM for the arrays of the kernel."""

    steps: int
    rows: int
    nbytes: int


class Loop(NamedTuple):
    """A step, traced for a number of rows.

    Attributes:
      step: `(*shared, *rows, *carry, *x) -> (*carry, *y)`, a function of arrays.
      shared: the arrays that all steps read.
      rows, carry, x, y: lists of the shapes and dtypes of the other arguments and results.
      structure: the tree structure of `(carry, y)`.
      cost: the estimated cost of a step.
    """

    step: Callable[..., Sequence[Array]]
    shared: list[Array]
    rows: list[Shaped]
    carry: list[Shaped]
    x: list[Shaped]
    y: list[Shaped]
    structure: Any
    cost: pl.CostEstimate


def scan(
    core: Core, step: Step, shared: PyTree, rows: PyTree, carry: PyTree, xs: PyTree, *, reverse: bool
) -> tuple[PyTree, PyTree]:
    """Runs `lax.scan` of `step(shared, rows, carry, x) -> (carry, y)` as one kernel.

    It runs as a plain `lax.scan` where it is differentiated, and, with a warning, if its arrays do not fit in VMEM.

    Args:
      core: the core to run on.
      step: the step.
      shared: arrays, the same for all rows and steps.
      rows: arrays (B, ...), the same for all steps.
      carry: arrays (B, ...), the initial carry.
      xs: arrays (T, B, ...), the inputs of the steps.
      reverse: whether to run from the last step to the first.

    Returns:
      The final carry, and the outputs of the steps, arrays (T, B, ...).
    """

    def plain(shared: Any, rows: Any, carry: Any, xs: PyTree):
        return lax.scan(lambda carry, x: step(shared, rows, carry, x), carry, xs, reverse=reverse)

    @jax.custom_jvp
    def run(shared: Any, rows: Any, carry: Any, xs: PyTree):
        T, B = jax.tree.leaves(xs)[0].shape[:2]
        loop = trace(step, shared, rows, carry, xs, B)
        blocks = choose_blocks(loop, T, B, core)
        if blocks.nbytes > core.budget:
            warnings.warn(
                f'backend: expected arrays of at most {core.budget / MIB:.2f} MiB in VMEM for "pallas", got '
                f"{blocks.nbytes / MIB:.2f} MiB; the loop over time is a plain loop",
                stacklevel=2,
            )
            return plain(shared, rows, carry, xs)
        if blocks.rows < B:
            loop = trace(step, shared, rows, carry, xs, blocks.rows)
        return _call(core, loop, blocks, rows, carry, xs, reverse)

    @run.defjvp
    def run_jvp(primals: Any, tangents: Any):
        return jax.jvp(plain, primals, tangents)

    return run(shared, rows, carry, xs)


def trace(step: Step, shared: PyTree, rows: PyTree, carry: PyTree, xs: PyTree, number: int) -> Loop:
    """Traces a step for `number` rows.

    Operations on `shared` alone, such as casts and slices of weights, are applied here, once for all steps.
    """

    def outline(tree: PyTree, axes: int) -> PyTree:
        leading = (number,) if axes else ()
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(leading + a.shape[axes:], a.dtype), tree)

    arguments = tuple(map(outline, (shared, rows, carry, xs), (0, 1, 1, 2)))
    closed, outputs = jax.make_jaxpr(step, return_shape=True)(*arguments)
    jaxpr, leaves = closed.jaxpr, jax.tree.leaves(shared)
    known = dict(zip(jaxpr.invars[: len(leaves)], leaves, strict=True))
    equations, needed = [], _variables(jaxpr.outvars)
    for equation in jaxpr.eqns:
        if _is_hoisted(equation, known):
            known[equation.outvars[0]] = equation.primitive.bind(known[equation.invars[0]], **equation.params)
        else:
            equations.append(equation)
            needed |= _variables(equation.invars)
    read = [variable for variable in known if variable in needed]
    rest = jaxpr.replace(invars=read + jaxpr.invars[len(leaves) :], eqns=equations)
    _, given_rows, given_carry, given_x = arguments
    return Loop(
        step=jaxpr_as_fun(ClosedJaxpr(rest, closed.consts)),
        shared=[known[variable] for variable in read],
        rows=jax.tree.leaves(given_rows),
        carry=jax.tree.leaves(given_carry),
        x=jax.tree.leaves(given_x),
        y=jax.tree.leaves(outputs[1]),
        structure=jax.tree.structure(outputs),
        cost=pl.estimate_cost(step, *arguments),
    )


def _is_hoisted(equation: JaxprEqn, known: Mapping[Any, Any]) -> bool:
    """Returns whether an operation has one input, a known array, and one output that is no larger."""
    if len(equation.invars) != 1 or equation.primitive.multiple_results or any(jaxprs_in_params(equation.params)):
        return False
    (given,), (out,) = equation.invars, equation.outvars
    return not isinstance(given, Literal) and given in known and _nbytes(out.aval) <= _nbytes(given.aval)


def _variables(atoms: Sequence[Any]) -> set[Any]:
    return {atom for atom in atoms if not isinstance(atom, Literal)}


def _nbytes(a: Shaped) -> int:
    return math.prod(a.shape) * jnp.dtype(a.dtype).itemsize


# A kernel holds arrays with two axes or more, and no booleans: a bias is a row, a mask a column of integers.


def _hold(array: Array, leading: int) -> Array:
    """Returns an array as a kernel holds it.

    Args:
      array: an array.
      leading: the number of its axes of time and batch.
    """
    array = array.astype(jnp.int32) if array.dtype == jnp.bool_ else array
    if array.ndim > max(leading, 1):
        return array
    return array[..., None] if leading else array.reshape(1, -1)


def _release(array: Array, shape: tuple[int, ...], dtype: Any) -> Array:
    """Inverts `_hold`."""
    array = array.reshape(shape)
    return array != 0 if dtype == jnp.bool_ else array


def _held(shaped: Shaped, leading: int) -> jax.ShapeDtypeStruct:
    """Returns the shape and dtype of an array as a kernel holds it."""
    return jax.eval_shape(lambda a: _hold(a, leading), shaped)


def _tiled_bytes(a: Shaped) -> int:
    """Returns the bytes of an array in VMEM: its last two axes fill tiles of 32 bytes by 128 numbers."""
    size = jnp.dtype(a.dtype).itemsize
    *others, height, width = a.shape
    return math.prod(others) * _round_up(height, 32 // size) * _round_up(width, 128) * size


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def choose_blocks(loop: Loop, T: int, B: int, core: Core) -> Blocks:
    """Chooses the largest blocks that fit in the budget of VMEM; the smallest ones if none fit."""

    def row_bytes(shapes: Sequence[Shaped], rows: int) -> int:
        return sum(_tiled_bytes(jax.ShapeDtypeStruct((rows,) + a.shape[1:], a.dtype)) for a in shapes)

    given = [[_held(a, 1) for a in shapes] for shapes in (loop.rows, loop.carry, loop.x + loop.y)]
    shared = sum(_tiled_bytes(_held(a, 0)) for a in loop.shared)
    rows = min(B, core.most_rows)
    while True:
        of_rows, of_carry, of_step = (row_bytes(shapes, rows) for shapes in given)
        # All blocks are buffered twice, to copy one while another is used. The current carry has one more buffer.
        fixed = shared + 2 * of_rows + 5 * of_carry
        steps = max(1, min(T, core.most_steps, (core.budget - fixed) // max(2 * of_step, 1)))
        if steps >= min(T, FEWEST_STEPS) or rows <= 8:
            return Blocks(steps, rows, fixed + 2 * steps * of_step)
        rows = max(8, rows // 16 * 8)


def _call(
    core: Core, loop: Loop, blocks: Blocks, rows: PyTree, carry: PyTree, xs: PyTree, reverse: bool
) -> tuple[PyTree, PyTree]:
    """Runs a loop as a kernel, over a grid of blocks of rows and blocks of time."""
    T, B = jax.tree.leaves(xs)[0].shape[:2]
    S, R = blocks.steps, blocks.rows
    row_blocks, time_blocks = pl.cdiv(B, R), pl.cdiv(T, S)
    operands = [_hold_all(*given) for given in ((loop.shared, 0), (rows, 1), (carry, 1), (xs, 2))]
    axes = frozenset().union(*map(varying_axes, jax.tree.leaves(operands)))
    varying = ManualAxisType(varying=axes) if axes else None

    def results(leading: tuple[int, ...], shapes: Sequence[Shaped]) -> list[jax.ShapeDtypeStruct]:
        held = [_held(a, 1) for a in shapes]
        return [jax.ShapeDtypeStruct(leading + a.shape[1:], a.dtype, manual_axis_type=varying) for a in held]

    def time_block(t: Any):
        return time_blocks - 1 - t if reverse else t

    def whole(a: Shaped) -> pl.BlockSpec:
        return pl.BlockSpec(a.shape, lambda b, t: (0,) * a.ndim, pipeline_mode=pl.Buffered(1))

    def by_rows(a: Shaped) -> pl.BlockSpec:
        return pl.BlockSpec((R,) + a.shape[1:], lambda b, t: (b,) + (0,) * (a.ndim - 1))

    def by_steps(a: Shaped) -> pl.BlockSpec:
        return pl.BlockSpec((S, R) + a.shape[2:], lambda b, t: (time_block(t), b) + (0,) * (a.ndim - 2))

    def kernel(
        shared_refs: Any, rows_refs: Any, first_refs: Any, x_refs: Any, last_refs: Any, y_refs: Any, carry_refs: Any
    ):
        t = pl.program_id(1)

        @pl.when(t == 0)
        def _():
            _copy(first_refs, carry_refs)

        steps = jnp.minimum(S, T - time_block(t) * S)  # The last block of time may be shorter.

        def body(k: Any, _):
            k = steps - 1 - k if reverse else k
            arrays = [ref[...] for ref in (*shared_refs, *rows_refs, *carry_refs)] + [ref[k] for ref in x_refs]
            shapes = (*loop.shared, *loop.rows, *loop.carry, *loop.x)
            out = loop.step(*(_release(a, like.shape, like.dtype) for a, like in zip(arrays, shapes, strict=True)))
            out = _hold_all(out, 1)
            for ref, a in zip(carry_refs, out[: len(carry_refs)], strict=True):
                ref[...] = a
            for ref, a in zip(y_refs, out[len(carry_refs) :], strict=True):
                ref[k] = a
            return ()

        lax.fori_loop(0, steps, body, ())

        @pl.when(t == time_blocks - 1)
        def _():
            _copy(carry_refs, last_refs)

    last, ys = results((B,), loop.carry), results((T, B), loop.y)
    places = (whole, by_rows, by_rows, by_steps)
    passes = T * row_blocks
    last, ys = pl.pallas_call(
        kernel,
        grid=(row_blocks, time_blocks),
        in_specs=[list(map(place, arrays)) for place, arrays in zip(places, operands, strict=True)],
        out_specs=[list(map(by_rows, last)), list(map(by_steps, ys))],
        out_shape=[last, ys],
        scratch_shapes=[[pltpu.VMEM((R,) + a.shape[1:], a.dtype) for a in last]],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=blocks.nbytes + core.vmem_bytes - core.budget,
        ),
        cost_estimate=pl.CostEstimate(
            flops=passes * loop.cost.flops,
            transcendentals=passes * loop.cost.transcendentals,
            bytes_accessed=sum(map(_nbytes, jax.tree.leaves((operands, last, ys)))),
        ),
        interpret=core.interpret,
        name="loop_reversed" if reverse else "loop",
    )(*operands)
    out = [_release(a, (B,) + like.shape[1:], like.dtype) for a, like in zip(last, loop.carry, strict=True)]
    out += [_release(a, (T, B) + like.shape[1:], like.dtype) for a, like in zip(ys, loop.y, strict=True)]
    return jax.tree.unflatten(loop.structure, out)


def _hold_all(tree: PyTree, leading: int) -> list[Array]:
    return [_hold(a, leading) for a in jax.tree.leaves(tree)]


def _copy(from_refs: Sequence[Any], to_refs: Sequence[Any]) -> None:
    for from_ref, to_ref in zip(from_refs, to_refs, strict=True):
        to_ref[...] = from_ref[...]
