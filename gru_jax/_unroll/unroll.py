"""Runs a cell over time: `unroll` checks its arguments, reshapes them and calls a backend.

A backend gets time-major arrays with one batch axis: xs (T, B, I), the state's arrays (B, H), a mask (T, B) that is
false past a sequence's length, and `Resets` in the direction of the run, each None if not used. Gates, states and sums
are in float32 if the parameters have 16 bits. The platform is decided here once: it sets how matrices are packed and
how long blocks are. It is the default backend's, or that of `jax.default_device`, e.g. to compile ahead of time.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from gru_jax import _arguments as arguments
from gru_jax._precision import operand_dtype, round_like, widen
from gru_jax._types import Array, DType, Params, State
from gru_jax._unroll.fused import MEMORY, fused
from gru_jax._unroll.masking import Resets, reverse_resets
from gru_jax._unroll.scan import scan
from gru_jax._unroll.sharding import explicit_mesh, in_automatic_axes, spec, vary_alike
from gru_jax.cells.base import Cell, Network, check_state, read_out

BACKENDS = ("auto", "scan", "fused")


def unroll(
    cell: Cell | Network,
    params: Params,
    xs: Array,
    h0: State | None = None,
    *,
    lengths: Array | Sequence[int] | None = None,
    resets: Array | Sequence[Any] | None = None,
    reset_state: State | None = None,
    reverse: bool = False,
    time_major: bool = False,
    backend: str = "auto",
    matmul_dtype: DType | None = None,
    memory: str = "auto",
    block_length: int | None = None,
    key: Array | None = None,
) -> tuple[Array, State]:
    """Runs a cell over time: `h_t = step(h_{t-1}, x_t)`.

    Args:
      cell: a cell (`GRU`, `LSTM`, `Elman`, your own) or a `Stack`. `jax.jit(unroll)` accepts it as an argument; your
        own class needs `jax.tree_util.register_static` or `static_argnums=0` for that.
      params: its parameters, from `cell.init`.
      xs: (..., T, I), inputs in the parameters' dtype, with any number of batch axes; (T, ..., I) if time_major.
      h0: the initial state, arrays (..., H) in the parameters' dtype, or in float32 if that has 16 bits. If None, zeros
        are used.
      lengths: (...,) integers from 0 to T, or a list of them. Past its length, a sequence's outputs are zero and its
        state is held, so h_last is the state at its last real step. Values of xs past the length change neither outputs
        nor gradients.
      resets: (..., T) booleans, (T, ...) if time_major, or lists of them. True marks the first step of an episode: the
        state before it is `reset_state`, also at step 0, where it replaces h0. With reverse=True, a mark at t separates
        the same two steps: the state is `reset_state` before step t - 1, and a mark at step 0 has no effect. Marks at
        or past a sequence's length have no effect. So episodes packed into one sequence have the same outputs as each
        alone.
      reset_state: the state that an episode starts from, with the structure of h0: arrays (..., H), or (..., T, H) for
        a state per reset, read where resets is true; (T, ..., H) if time_major. If None, zeros are used.
      reverse: whether to run from the last step to the first, each sequence from its own last real step. Outputs stay
        aligned with their inputs.
      time_major: whether time is the first axis of xs, resets, reset_state and ys, which saves two transpositions.
      backend: "scan", plain `lax.scan`; "fused", whose gradient is derived by hand and faster; or "auto", which is
        "scan" for exported programs with symbolic B or T, otherwise "fused". All support every mode of differentiation.
      matmul_dtype: the dtype of the matrix products' operands, e.g. jnp.bfloat16. If None, the parameters' dtype is
        used. Sums, gates and states have the parameters' dtype, or float32 if that has 16 bits; outputs are rounded.
      memory: what the fused backend stores for its backward pass, in elements per sequence and step for G gates:
        "save" stores the states and their products with U, (G + 1) H; "recompute" the states only, H (for an LSTM both
        are H more); "checkpoint" the states at block boundaries only, H / block_length, and runs the recurrence twice.
        "auto" chooses the faster of the first two: "recompute" if matmul_dtype is given, and on a CPU for several
        blocks with H up to 128; otherwise "save".
      block_length: the number of steps that the fused backend processes at once. If None, it is chosen by size.
      key: a PRNG key for a `Stack`'s dropout, which is consumed. If None, nothing is dropped. A cell accepts no key.

    Returns:
      ys: (..., T, H), the outputs, in the parameters' dtype; (T, ..., H) if time_major. The last axis is 2H for a
        `Stack` that concatenates two directions.
      h_last: the final state, with the structure and dtype of h0.
      On a mesh with explicit axes, ys has the sharding of xs along batch and time, h_last that of h0 or, if h0 is
      None, of xs.

    Raises:
      ValueError, TypeError: if an argument is invalid; the message is `name: expected X, got Y`.

    Example:
      >>> cell = GRU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)), lengths=jnp.full((32,), 80))
    """
    arguments.instance("cell", cell, (Cell, Network), "a cell such as gru_jax.GRU()")
    input_size, hidden_size, dtype = cell.infer_sizes(params)
    for name, value in (("reverse", reverse), ("time_major", time_major)):
        arguments.boolean(name, value)
    arguments.one_of("backend", backend, BACKENDS)
    arguments.one_of("memory", memory, MEMORY)
    if block_length is not None:
        arguments.positive_int("block_length", block_length)
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    if key is not None:
        arguments.prng_key("key", key)
        if not isinstance(cell, Network):
            raise ValueError(f"key: expected None for a cell alone, as only a Stack drops, got a key for {cell!r}")

    layout = f"(T, ..., {input_size})" if time_major else f"(..., T, {input_size})"
    xs = arguments.floating("xs", xs)
    arguments.same_dtype("xs", xs, dtype, "the parameters")
    if xs.ndim < 2 or xs.shape[-1] != input_size:
        raise ValueError(f"xs: expected shape {layout}, got {xs.shape}")
    if not all(isinstance(size, int) for size in xs.shape):
        if backend == "fused":
            raise ValueError(f'backend: expected "auto" or "scan" for symbolic sizes, got "fused" for {xs.shape}')
        backend = "scan"
    T = xs.shape[0] if time_major else xs.shape[-2]
    batch_shape = xs.shape[1:-1] if time_major else xs.shape[:-2]
    steps = xs.shape[:-1]
    if h0 is not None:
        h0 = check_state("h0", cell, h0, hidden_size, batch_shape, dtype)
    if lengths is not None:
        given = arguments.from_lists("lengths", lengths, jnp.int32)
        lengths = arguments.as_array("lengths", given)
        if not jnp.issubdtype(lengths.dtype, jnp.integer):
            raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
        arguments.matching("lengths", lengths, batch_shape, "the batch axes of xs")
        arguments.in_range("lengths", given, 0, T)
        if jnp.iinfo(lengths.dtype).max > jnp.iinfo(jnp.int32).max:
            lengths = jnp.clip(lengths, 0, T)  # Larger values would overflow.
        lengths = lengths.astype(jnp.int32)  # A narrower dtype may not hold T.
    if resets is not None:
        resets = arguments.as_array("resets", arguments.from_lists("resets", resets, jnp.bool_))
        if resets.dtype != jnp.bool_:
            raise TypeError(f"resets: expected booleans, got {resets.dtype}")
        arguments.matching("resets", resets, steps, "the batch and time axes of xs")
    if reset_state is not None:
        if resets is None:
            raise ValueError("reset_state: expected None without resets, got a state")
        reset_state = check_state("reset_state", cell, reset_state, hidden_size, batch_shape, dtype, per_step=steps)

    options = (bool(reverse), bool(time_major), backend, matmul_dtype, memory, block_length, _platform())
    return _unroll(cell, options, params, xs, h0, lengths, resets, reset_state, key)


@partial(jax.jit, static_argnums=(0, 1))
def _unroll(cell, options, params, xs, h0, lengths, resets, reset_state, key):
    """`unroll` with checked arguments, compiled once per shape, so that calls and gradients outside `jit` are fast.

    It is not inlined: the backward pass of a gradient outside `jit` would be compiled again at every call.
    """
    given, run = (params, xs, h0, lengths, resets, reset_state, key), partial(_run, cell, options)
    mesh = explicit_mesh(given)
    if mesh is None:
        return run(*given)
    # ys and the final state have the sharding of xs along the batch; if h0 is given, the state has that of h0.
    _, time_major, *_ = options
    along = spec(xs)[:-1]
    batch = along[1:] if time_major else along[:-1]
    of_state = P(*batch, None) if h0 is None else jax.tree.map(spec, h0)
    return in_automatic_axes(run, mesh, given, (P(*along, None), of_state))


def _run(cell, options, params, xs, h0, lengths, resets, reset_state, key):
    """`unroll` with checked arguments, without explicit axes of a mesh."""
    reverse, time_major, backend, matmul_dtype, memory, block_length, platform = options
    T, batch_shape = (xs.shape[0], xs.shape[1:-1]) if time_major else (xs.shape[-2], xs.shape[:-2])
    _, hidden_size, dtype = cell.infer_sizes(params)
    if h0 is None:
        h0 = cell.initial_state(hidden_size, batch_shape, dtype)
    given = vary_alike((params, xs, h0, lengths, resets, reset_state, key))
    params, xs, start, lengths, resets, reset_state, key = given
    params, start, reset_state = widen((params, start, reset_state))
    matmul_dtype = operand_dtype(matmul_dtype, dtype)
    axes = len(batch_shape)

    def steps_first(a):
        return _flatten(a if time_major else jnp.moveaxis(a, axes, 0), 1, axes)

    xs, marks = jax.tree.map(steps_first, (xs, resets))
    start = jax.tree.map(lambda a: _flatten(a, 0, axes), start)
    reset_state = jax.tree.map(lambda a: steps_first(a) if a.ndim == axes + 2 else _flatten(a, 0, axes), reset_state)
    mask = None
    if lengths is not None:
        mask = lax.broadcasted_iota(lengths.dtype, (T, *batch_shape), 0) < lengths[None]
        mask = _flatten(mask, 1, axes)
        # Otherwise a NaN in the padding would reach the gradients of the weights as 0 * NaN.
        xs = jnp.where(mask[..., None], xs, 0)
        marks = None if marks is None else marks & mask

    def run(cell, params, xs, h0, reset_state, *, reverse):
        resets, reset_state = _episodes(marks, reset_state)
        if reverse and resets is not None:
            resets = reverse_resets(resets)
        given = (cell, params, xs, h0, mask, resets, reset_state)
        options = {"reverse": reverse, "matmul_dtype": matmul_dtype, "platform": platform}
        if backend == "scan" or T == 0:
            outputs, h_last = scan(*given, **options)
        else:
            outputs, h_last = fused(*given, **options, memory=memory, block_length=block_length)
        return read_out(cell, params, outputs, widen(xs), matmul_dtype), h_last

    if isinstance(cell, Network):
        ys, h_last = cell.compose(run, params, xs, start, reset_state, reverse=reverse, key=key)
    else:
        ys, h_last = run(cell, params, xs, start, reset_state, reverse=reverse)
    ys = ys.astype(dtype).reshape((T, *batch_shape, ys.shape[-1]))
    h_last = jax.tree.map(lambda a: a.reshape((*batch_shape, a.shape[-1])), round_like(h_last, h0))
    return (ys if time_major else jnp.moveaxis(ys, 0, -2)), h_last


def _platform() -> str:
    """Returns the platform of `jax.default_device`, of the default backend if that is not set."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _episodes(marks: Array | None, reset_state: State | None) -> tuple[Resets | None, State | None]:
    """Returns the resets of a forward run, and the state that all episodes start from; None if each has its own."""
    if marks is None:
        return None, None
    if all(a.ndim == 2 for a in jax.tree.leaves(reset_state)):
        return Resets(marks, None), reset_state
    return Resets(marks, jax.tree.map(lambda a: jnp.broadcast_to(a, marks.shape + a.shape[-1:]), reset_state)), None


def _flatten(array: Array, first: int, count: int) -> Array:
    """Merges `count` axes, from axis `first` on, into one."""
    if count == 1:
        return array
    size = 1
    for axis in array.shape[first : first + count]:
        size *= axis
    return array.reshape(array.shape[:first] + (size,) + array.shape[first + count :])
