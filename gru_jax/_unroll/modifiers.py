"""What changes the state at a step beside the cell: resets and decay before the cell, zoneout and masks after it.

A step of a run computes, in this order,

    s  = h, or the initial state of the episode that begins here      resets
    s' = decay * s                                                    decay
    h' = keep * s' + (1 - keep) * cell(s')                            zoneout, mask, lengths
"""

import functools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gru_jax import _arguments as arguments
from gru_jax._precision import computing_dtype
from gru_jax._types import Array, DType, PyTree, State
from gru_jax.cells.base import Recurrence


class Modifiers(NamedTuple):
    """The modifiers of all steps of a run, or of one step. They are in the direction of the run, and None if not used.

    Attributes:
      resets: (T, B) booleans, true at the first step of an episode.
      reset_states: arrays (T, B, H), the initial state of each episode; None if all episodes of a sequence share one.
      decay: factors (T, B, H) or (T, B, 1); one array for all arrays of the state, or one for each.
      keep: the share of the state before the cell that remains: booleans (T, B, H) for zoneout or (T, B, 1) for a mask,
        or weights (T, B, 1) for the expectation of zoneout. One array for all arrays of the state, or one for each, of
        which some may be None.
    """

    resets: Array | None = None
    reset_states: State | None = None
    decay: PyTree = None
    keep: PyTree = None

    @property
    def blend(self) -> bool:
        """Whether a share that is neither zero nor one is kept."""
        return any(a.dtype != jnp.bool_ for a in jax.tree.leaves(self.keep))

    def reverse(self) -> "Modifiers":
        """Returns the same resets and decay for the opposite direction: those before step t are before step t - 1."""

        def shift(a: Array, last: Any) -> Array:
            return jnp.concatenate((a[1:], jnp.full_like(a[:1], last)))

        resets, states = jax.tree.map(lambda a: shift(a, 0), (self.resets, self.reset_states))
        return self._replace(resets=resets, reset_states=states, decay=jax.tree.map(lambda a: shift(a, 1), self.decay))


def apply_reset(modifiers: Modifiers, reset_state: State | None, state: State) -> State:
    """Replaces the state before a step by the initial state of the episode that begins there.

    Args:
      modifiers: the modifiers of a step, or of several steps with a leading axis.
      reset_state: arrays (B, H), the initial state of episodes if there are no `reset_states`. If None, zeros are used.
      state: the state before the step.

    Returns:
      The state to run the step from.
    """
    marks, states = modifiers.resets, modifiers.reset_states
    if marks is None:
        return state
    if states is not None:
        return select(marks, states, state)
    return mask_out(~marks, state) if reset_state is None else select(marks, reset_state, state)


def apply_decay(modifiers: Modifiers, state: State) -> State:
    """Multiplies the state before a step, or its cotangent, by the decay."""
    return _map(lambda factor, a: a if factor is None else factor * a, modifiers.decay, state)


def decay_gradient(modifiers: Modifiers, state: State, cotangent: State) -> PyTree:
    """Returns the cotangents of the decay, given the state that it multiplies and the cotangent of the product."""
    products, factors = jax.tree.map(jnp.multiply, state, cotangent), modifiers.decay

    def fit(product: Array, factor: Array) -> Array:
        return product.sum(-1, keepdims=True) if factor.shape[-1] == 1 else product

    if isinstance(factors, jax.Array):
        return fit(functools.reduce(jnp.add, jax.tree.leaves(products)), factors)
    return jax.tree.map(fit, products, factors)


def hold_state(modifiers: Modifiers, before: State, after: State) -> State:
    """Returns the state after a step: the cell's, or what is kept of the state before the cell."""

    def mix(keep: Array | None, before: Array, after: Array) -> Array:
        if keep is None:
            return after
        return jnp.where(keep, before, after) if keep.dtype == jnp.bool_ else keep * before + (1 - keep) * after

    return _map(mix, modifiers.keep, before, after)


def split_cotangent(modifiers: Modifiers, cotangent: State) -> tuple[State | None, State]:
    """Splits the cotangent of the state after a step into those of the state before the cell and of the cell's result.

    The first is None if nothing is kept.
    """

    def part(keep: Array | None, g: Array, *, kept: bool) -> Array:
        if keep is None:
            return jnp.zeros_like(g) if kept else g
        if keep.dtype == jnp.bool_:
            return jnp.where(keep, *((g, jnp.zeros_like(g)) if kept else (jnp.zeros_like(g), g)))
        return (keep if kept else 1 - keep) * g

    if modifiers.keep is None:
        return None, cotangent
    before = _map(lambda keep, g: part(keep, g, kept=True), modifiers.keep, cotangent)
    return before, _map(lambda keep, g: part(keep, g, kept=False), modifiers.keep, cotangent)


def _map(function: Any, modifier: PyTree, state: State, *others: State) -> State:
    """Applies a function to each array of a state and its modifier, an array for all of them, or one for each."""
    structure = jax.tree.structure(state)
    if modifier is None or isinstance(modifier, jax.Array):
        modifiers = [modifier] * structure.num_leaves
    else:
        modifiers = structure.flatten_up_to(modifier)
    return structure.unflatten(map(function, modifiers, *map(jax.tree.leaves, (state, *others))))


def select(where: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    """Selects one of two states by a mask `where` (...,): arrays (..., H). Leading axes are broadcast."""

    def choose(a: Array, b: Array):
        shape = where.shape + a.shape[-1:]
        return jnp.where(where[..., None], jnp.broadcast_to(a, shape), jnp.broadcast_to(b, shape))

    return jax.tree.map(choose, on_true, on_false)


def mask_out(where: Array, tree: PyTree) -> PyTree:
    """Sets arrays (..., H) to zero where the mask (...,) is false."""
    return jax.tree.map(lambda a: jnp.where(where[..., None], a, jnp.zeros((), a.dtype)), tree)


def check_decay(
    cell: Recurrence, given: Any, hidden_size: int, batch_shape: tuple[int, ...], steps: tuple[int, ...], dtype: DType
) -> PyTree:
    """Checks a decay, and warns of concrete values outside [0, 1].

    Args:
      cell: the cell, whose `initial_state` has the expected structure.
      given: arrays (*steps, H) or (*steps, 1), in the parameters' dtype, or in float32 if they have 16 bits.
      hidden_size: H.
      batch_shape: the batch axes.
      steps: the batch and time axes.
      dtype: the parameters' dtype.

    Returns:
      The decay as JAX arrays.

    Raises:
      ValueError, TypeError: if the structure, a shape or a dtype is wrong.
    """
    state = jax.eval_shape(lambda: cell.initial_state(hidden_size, batch_shape, dtype))
    if jax.tree.structure(given) != jax.tree.structure(state):
        if isinstance(given, (list, tuple)) and not hasattr(given, "_fields"):
            array = arguments.from_lists("decay", given, computing_dtype(dtype))
            given = array.astype(computing_dtype(dtype)) if array.dtype.kind in "fiu" else array
        if not isinstance(given, (jax.Array, np.ndarray)):
            several = jax.tree.structure(state).num_leaves > 1
            expected = f"an array or {arguments.outline(state)}" if several else "an array"
            raise TypeError(f"decay: expected {expected}, got {arguments.outline(given)}")

    def check(path: Any, value: Any) -> Array:
        name = "decay" + jax.tree_util.keystr(path)
        array = arguments.floating(name, value)
        if array.shape not in ((*steps, hidden_size), (*steps, 1)):
            raise ValueError(
                f"{name}: expected shape {(*steps, hidden_size)}, or {(*steps, 1)} for one factor per step, "
                f"got {array.shape}"
            )
        if array.dtype != computing_dtype(dtype):
            arguments.same_dtype(name, array, dtype, "the parameters")
        return array

    arrays = jax.tree_util.tree_map_with_path(check, given)
    if any(map(_outside, jax.tree.leaves(given))):
        # The text is the same for all values, so that Python shows it once.
        warnings.warn("decay: expected factors from 0 to 1, got others", UserWarning, stacklevel=3)
    return arrays


def _outside(array: Any) -> bool:
    """Returns whether an array has entries outside [0, 1]; false for tracers and devices of another process."""
    if isinstance(array, Tracer) or not getattr(array, "is_fully_addressable", True):
        return False
    known = np.asarray(array)  # Under `jit`, methods of JAX arrays return tracers.
    return bool(((known < 0) | (known > 1)).any())
