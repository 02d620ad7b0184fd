"""Runs a cell over time: `unroll` checks its arguments, reshapes them and calls a backend.

A backend gets time-major arrays with one batch axis: xs (T, B, I), the state's arrays (B, H), and `Modifiers`, which
hold lengths, mask, resets, decay and zoneout in the direction of the run. Gates, states and sums are in float32 if the
parameters have 16 bits. The platform is decided here once: it sets how matrices are packed and
how long blocks are. It is the default backend's, or that of `jax.default_device`, e.g. to compile ahead of time.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

from gru_jax import _arguments as arguments
from gru_jax._precision import operand_dtype, round_like, widen
from gru_jax._types import Array, DType, Params, PyTree, State
from gru_jax._unroll.associative import associative
from gru_jax._unroll.fused import MEMORY, fused
from gru_jax._unroll.modifiers import Modifiers, check_decay, mask_out
from gru_jax._unroll.readout import readout
from gru_jax._unroll.scan import scan
from gru_jax._unroll.sharding import explicit_mesh, in_automatic_axes, spec, vary_alike
from gru_jax._unroll.tuning import VMEM, Core
from gru_jax._zoneout import Zoneout, check_zoneout, kept_share, zoneout_key
from gru_jax.cells.base import Cell, LinearCell, Network, check_cell, check_state, part, read_out

BACKENDS = ("auto", "scan", "fused", "associative", "pallas")


class Given(NamedTuple):
    """The arrays that `unroll` is called with, checked."""

    params: Params
    xs: Array
    h0: State | None
    lengths: Array | None
    mask: Array | None
    resets: Array | None
    reset_state: State | None
    decay: PyTree
    key: Array | None


class Options(NamedTuple):
    """The static options that `unroll` is called with, checked."""

    zoneout: Zoneout
    reverse: bool
    time_major: bool
    backend: str
    matmul_dtype: DType | None
    memory: str
    block_length: int | None
    platform: str
    core: Core | None


def unroll(
    cell: Cell | Network,
    params: Params,
    xs: Array,
    h0: State | None = None,
    *,
    lengths: Array | Sequence[int] | None = None,
    mask: Array | Sequence[Any] | None = None,
    resets: Array | Sequence[Any] | None = None,
    reset_state: State | None = None,
    decay: PyTree = None,
    zoneout: PyTree = None,
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
        state is held, so h_last is the state at its last real step. Values of the other arguments past the length
        change neither outputs nor gradients.
      mask: (..., T) booleans, (T, ...) if time_major, or lists of them. Where false, the state is held, and the
        output comes from the held state; it is not zero. Values of xs and decay there change neither outputs nor
        gradients. With reverse=True, decay[t + 1] multiplies the state before it is held at step t.
      resets: (..., T) booleans, (T, ...) if time_major, or lists of them. True marks the first step of an episode: the
        state before it is `reset_state`, also at step 0, where it replaces h0. With reverse=True, a mark at t separates
        the same two steps: the state is `reset_state` before step t - 1, and a mark at step 0 has no effect. Marks at
        or past a sequence's length have no effect. So episodes packed into one sequence have the same outputs as each
        alone.
      reset_state: the state that an episode starts from, with the structure of h0: arrays (..., H), or (..., T, H) for
        a state per reset, read where resets is true; (T, ..., H) if time_major. If None, zeros are used.
      decay: factors from 0 to 1 that multiply the state before each step, after resets: (..., T, H) or (..., T, 1),
        with T first if time_major, in a dtype that h0 may have; or lists. One array for all arrays of the state, or
        one for each, with the structure of h0. decay[t] belongs to the time between steps t - 1 and t: with
        reverse=True, the state is multiplied by decay[t + 1] before step t, and by 1 before the last step.
      zoneout: the probability p in [0, 1) that a unit keeps its value from before the cell, after resets and decay; or
        one for each array of a cell's state, e.g. LSTMState(h=0.05, c=0.5) or (0.05, 0.5). Each unit and step is drawn
        independently from `key`. If `key` is None, the expectation p * before + (1 - p) * after is used.
      reverse: whether to run from the last step to the first, each sequence from its own last real step. Outputs stay
        aligned with their inputs.
      time_major: whether time is the first axis of xs, mask, resets, reset_state, decay and ys, which saves two
        transpositions.
      backend: "scan", plain `lax.scan`; "fused", whose gradient is derived by hand and faster; "associative", parallel
        over time, for cells that are linear in their state (`MinGRU`, `MinLSTM`, `LRU`); "pallas", which is "fused"
        with each loop over time as one kernel of a TPU; or "auto", which is "scan" for exported programs with symbolic
        B or T, otherwise "fused". All support every mode of differentiation.
      matmul_dtype: the dtype of the matrix products' operands, e.g. jnp.bfloat16. If None, the parameters' dtype is
        used. Sums, gates and states have the parameters' dtype, or float32 if that has 16 bits; outputs are rounded.
      memory: what the fused backend stores for its backward pass, in elements per sequence and step for G gates:
        "save" stores the states and their products with U, (G + 1) H; "recompute" the states only, H (for an LSTM both
        are H more); "checkpoint" the states at block boundaries only, H / block_length, and runs the recurrence twice.
        If one block covers all T, "save" also stores the gate inputs. With zoneout and no key it is "recompute".
        "auto" chooses the faster of the first two: "recompute" for 16-bit products (not for small layers on a CPU
        without AMX), and on a CPU for several blocks with H up to 128; otherwise "save". The associative backend
        stores the states, and the gate inputs for "auto" and "save".
      block_length: the number of steps that the fused backend processes at once. If None, it is chosen by size.
      key: a PRNG key for zoneout and for a `Stack`'s dropout, which is consumed. If None, nothing is drawn. The zoneout
        of a layer and direction depends on their indices and the key only. A cell accepts no key if zoneout is None.

    Returns:
      ys: (..., T, H), the outputs, in the parameters' dtype; (T, ..., H) if time_major. The last axis is 2H for a
        `Stack` that concatenates two directions.
      h_last: the final state, with the structure and dtype of h0.
      On a mesh with explicit axes, ys is sharded like xs along batch and time, and h_last like h0 or, if h0 is None,
      like xs.

    Raises:
      ValueError, TypeError: if an argument is invalid; the message is `name: expected X, got Y`.

    Example:
      >>> cell = GRU()
      >>> params = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(cell, params, jnp.ones((32, 100, 64)), lengths=jnp.full((32,), 80))
    """
    check_cell("cell", cell, Network)
    input_size, hidden_size, dtype = cell.infer_sizes(params)
    params = jax.tree.map(arguments.native, params)
    for name, value in (("reverse", reverse), ("time_major", time_major)):
        arguments.boolean(name, value)
    arguments.one_of("backend", backend, BACKENDS)
    if backend == "associative" and not (isinstance(cell, LinearCell) and cell.linear):
        known = '"auto", "scan" or "fused" for a cell that is not linear in its state'
        raise ValueError(f'backend: expected {known}, got "associative" for {cell!r}')
    arguments.one_of("memory", memory, MEMORY)
    if block_length is not None:
        arguments.positive_int("block_length", block_length)
    if matmul_dtype is not None:
        matmul_dtype = arguments.float_dtype("matmul_dtype", matmul_dtype)
    if key is not None:
        arguments.prng_key("key", key)
        if not isinstance(cell, Network) and zoneout is None:
            raise ValueError(f"key: expected None for a cell without zoneout, got a key for {cell!r}")

    layout = f"(T, ..., {input_size})" if time_major else f"(..., T, {input_size})"
    xs = arguments.floating("xs", xs)
    arguments.same_dtype("xs", xs, dtype, "the parameters")
    if xs.ndim < 2 or xs.shape[-1] != input_size:
        raise ValueError(f"xs: expected shape {layout}, got {xs.shape}")
    T = xs.shape[0] if time_major else xs.shape[-2]
    if not all(isinstance(size, int) for size in xs.shape):
        if backend in ("fused", "pallas") or (backend == "associative" and not isinstance(T, int)):
            raise ValueError(f'backend: expected "auto" or "scan" for symbolic sizes, got "{backend}" for {xs.shape}')
        backend = "associative" if backend == "associative" else "scan"
    batch_shape = xs.shape[1:-1] if time_major else xs.shape[:-2]
    steps = xs.shape[:-1]
    if h0 is not None:
        h0 = check_state("h0", cell, h0, hidden_size, batch_shape, dtype)
    if lengths is not None:
        lengths = check_lengths(lengths, batch_shape, T)
    mask, resets = _check_booleans("mask", mask, steps), _check_booleans("resets", resets, steps)
    if reset_state is not None:
        if resets is None:
            raise ValueError("reset_state: expected None without resets, got a state")
        reset_state = check_state("reset_state", cell, reset_state, hidden_size, batch_shape, dtype, per_step=steps)
    if decay is not None:
        decay = check_decay(cell, decay, hidden_size, batch_shape, steps, dtype)

    flags = bool(reverse), bool(time_major)
    zoneout = check_zoneout("zoneout", 0.0 if zoneout is None else zoneout)
    core = _core(dtype) if backend == "pallas" else None
    options = Options(zoneout, *flags, backend, matmul_dtype, memory, block_length, _platform(), core)
    return _unroll(cell, options, Given(params, xs, h0, lengths, mask, resets, reset_state, decay, key))


def check_lengths(lengths: Any, batch_shape: tuple[int, ...], T: Any) -> Array:
    """Returns the argument `lengths` of `unroll` as int32 (...,); raises if it is invalid."""
    given = arguments.from_lists("lengths", lengths, jnp.int32)
    lengths = arguments.as_array("lengths", given)
    if not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    arguments.matching("lengths", lengths, batch_shape, "the batch axes of xs")
    arguments.in_range("lengths", given, 0, T)
    if jnp.iinfo(lengths.dtype).max > jnp.iinfo(jnp.int32).max:
        lengths = jnp.clip(lengths, 0, T)  # Larger values would overflow.
    return lengths.astype(jnp.int32)  # A narrower dtype may not hold T.


def _check_booleans(name: str, value: Any, steps: tuple[int, ...]) -> Array | None:
    """Returns booleans with the batch and time axes of xs, given as an array or lists, or None."""
    if value is None:
        return None
    array = arguments.as_array(name, arguments.from_lists(name, value, jnp.bool_))
    if array.dtype != jnp.bool_:
        raise TypeError(f"{name}: expected booleans, got {array.dtype}")
    arguments.matching(name, array, steps, "the batch and time axes of xs")
    return array


@partial(jax.jit, static_argnums=(0, 1))
def _unroll(cell: Cell | Network, options: Options, given: Given) -> tuple[Array, State]:
    """`unroll` with checked arguments, compiled once per shape, so that calls and gradients outside `jit` are fast.

    It is not inlined: the backward pass of a gradient outside `jit` would be compiled again at every call.
    """
    mesh = explicit_mesh(given)
    if mesh is None:
        return _run(cell, options, given)
    # ys and the final state have the sharding of xs along the batch; if h0 is given, the state has that of h0.
    along = spec(given.xs)[:-1]
    batch = along[1:] if options.time_major else along[:-1]
    of_state = P(*batch, None) if given.h0 is None else jax.tree.map(spec, given.h0)
    return in_automatic_axes(partial(_run, cell, options), mesh, (given,), (P(*along, None), of_state))


def _run(cell: Cell | Network, options: Options, given: Given) -> tuple[Array, State]:
    """`unroll` with checked arguments, without explicit axes of a mesh."""
    shape = given.xs.shape
    T, batch_shape = (shape[0], shape[1:-1]) if options.time_major else (shape[-2], shape[:-2])
    _, hidden_size, dtype = cell.infer_sizes(given.params)
    h0 = cell.initial_state(hidden_size, batch_shape, dtype) if given.h0 is None else given.h0
    params, xs, start, lengths, mask, resets, reset_state, decay, key = vary_alike(given._replace(h0=h0))
    params, start, reset_state, decay = widen((params, start, reset_state, decay))
    matmul_dtype = operand_dtype(options.matmul_dtype, dtype)
    axes = len(batch_shape)

    def steps_first(a: Array):
        return _flatten(a if options.time_major else jnp.moveaxis(a, axes, 0), 1, axes)

    xs, mask, resets, decay = jax.tree.map(steps_first, (xs, mask, resets, decay))
    start = jax.tree.map(lambda a: _flatten(a, 0, axes), start)
    reset_state = jax.tree.map(lambda a: steps_first(a) if a.ndim == axes + 2 else _flatten(a, 0, axes), reset_state)
    inside = None
    if lengths is not None:
        inside = _flatten(lax.broadcasted_iota(lengths.dtype, (T, *batch_shape), 0) < lengths[None], 1, axes)
        resets = None if resets is None else resets & inside
    active = mask if inside is None else inside if mask is None else mask & inside
    if active is not None:
        # Otherwise a NaN in the padding would reach the gradients of the weights as 0 * NaN.
        xs = mask_out(active, xs)
        decay = jax.tree.map(lambda a: jnp.where(active[..., None], a, jnp.ones((), a.dtype)), decay)

    def run(cell: Any, params: Params, xs: Array, *, at: Any = (), reverse: bool):
        """Runs one cell, whose indices in a network are `at`."""
        h0 = part(start, at)
        factors = decay if isinstance(decay, jax.Array) or decay is None else part(decay, at)
        fresh, states = _episodes(resets, part(reset_state, at) if reset_state is not None else None)
        modifiers = Modifiers(resets, states, factors)
        if reverse:
            modifiers = modifiers.reverse()
        rates = options.zoneout.of_arrays("zoneout", h0)
        own_key = None if key is None or not any(rates) else zoneout_key(key, *at)
        modifiers = modifiers._replace(keep=kept_share(active, rates, own_key, T, h0))
        inputs = (cell, params, xs, h0, modifiers, fresh)
        how: dict[str, Any] = {"reverse": reverse, "matmul_dtype": matmul_dtype, "platform": options.platform}
        plain = options.backend == "scan" or T == 0
        if plain:
            outputs, h_last = scan(*inputs, **how)
        elif options.backend == "associative":
            outputs, h_last = associative(*inputs, **how, memory=options.memory)
        else:  # "auto" is "fused" for linear cells too.
            how |= {"memory": options.memory, "block_length": options.block_length, "core": options.core}
            outputs, h_last = fused(*inputs, **how)
        seen = xs if active is None else mask_out(active, xs)
        steps = (cell, params, outputs, widen(seen), matmul_dtype)
        return (read_out(*steps) if plain else readout(*steps, options.platform)), h_last

    if isinstance(cell, Network):
        ys, h_last = cell.compose(run, params, xs, reverse=options.reverse, key=key)
    else:
        ys, h_last = run(cell, params, xs, reverse=options.reverse)
    ys = ys if inside is None else mask_out(inside, ys)
    ys = ys.astype(dtype).reshape((T, *batch_shape, ys.shape[-1]))
    h_last = jax.tree.map(lambda a: a.reshape((*batch_shape, a.shape[-1])), round_like(h_last, h0))
    return (ys if options.time_major else jnp.moveaxis(ys, 0, -2)), h_last


def _platform() -> str:
    """Returns the platform of `jax.default_device`, of the default backend if that is not set."""
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    if device is None:
        return jax.default_backend()
    return device if isinstance(device, str) else device.platform


def _core(dtype: DType) -> Core:
    """Returns the core that runs kernels, of `jax.default_device` or of the default backend.

    Raises:
      ValueError: if it is not a TPU, or the parameters have more than 32 bits.
    """
    platform = _platform()
    if platform != "tpu":
        raise ValueError(f'backend: expected a TPU for "pallas", got the platform "{platform}"')
    if jnp.dtype(dtype).itemsize > 4:
        raise ValueError(f'backend: expected parameters of at most 32 bits for "pallas", got {dtype}')
    device = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    kind = (device if isinstance(device, jax.Device) else jax.local_devices(backend=platform)[0]).device_kind
    return Core(VMEM.get(kind, min(VMEM.values())))


def _episodes(resets: Array | None, reset_state: State | None) -> tuple[State | None, State | None]:
    """Returns the state that all episodes start from, or if each has its own, None and the states (T, B, H)."""
    if resets is None or all(a.ndim == 2 for a in jax.tree.leaves(reset_state)):
        return reset_state, None
    return None, jax.tree.map(lambda a: jnp.broadcast_to(a, resets.shape + a.shape[-1:]), reset_state)


def _flatten(array: Array, first: int, count: int) -> Array:
    """Merges `count` axes, from axis `first` on, into one."""
    if count == 1:
        return array
    size = 1
    for axis in array.shape[first : first + count]:
        size *= axis
    return array.reshape(array.shape[:first] + (size,) + array.shape[first + count :])
