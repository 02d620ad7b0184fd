"""Zoneout: its rates, the keys of its masks, and the share of the state that is kept at each step.

Reference: Krueger et al., "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations", 2017.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gru_jax import _arguments as arguments
from gru_jax._random import CHANCES, draw
from gru_jax._types import Array, PyTree, State


class Zoneout(NamedTuple):
    """The rates of zoneout, hashable.

    Attributes:
      rates: the rates.
      structure: their tree structure; that of a single number for one rate for all arrays of the state.
    """

    rates: tuple[float, ...]
    structure: Any

    def of_arrays(self, name: str, state: State) -> tuple[float, ...]:
        """Returns a rate for each array of a cell's state; raises ValueError if the structures differ."""
        structure = jax.tree.structure(state)
        number = structure.num_leaves
        if self.structure == jax.tree.structure(0):
            return self.rates * number
        pair = number > 1 and self.structure == jax.tree.structure((0,) * number)
        if not pair and self.structure != structure:
            expected = "one rate, as the state is one array"
            if number > 1:
                expected = f"a rate or {arguments.outline(state)} of rates"
            raise ValueError(f"{name}: expected {expected}, got {self.structure.unflatten(self.rates)!r}")
        return self.rates


def check_zoneout(name: str, zoneout: Any) -> Zoneout:
    """Returns a rate, or a tree of rates, in hashable form; raises ValueError or TypeError unless all are in [0, 1)."""
    given = tuple(zoneout) if isinstance(zoneout, list) else zoneout
    rates, structure = jax.tree.flatten(given, is_leaf=lambda node: node is None)
    for rate in rates:
        arguments.fraction(name, rate)
    return Zoneout(tuple(map(float, rates)), structure)


def expected_state(rates: tuple[float, ...], before: State, after: State) -> State:
    """Returns the expectation of zoneout, p * before + (1 - p) * after, with a rate p for each array of the state."""
    arrays, structure = jax.tree.flatten(after)
    return structure.unflatten(
        a if rate == 0 else rate * b + (1 - rate) * a
        for rate, b, a in zip(rates, jax.tree.leaves(before), arrays, strict=True)
    )


def zoneout_key(key: Array, layer: int = 0, direction: int = 0) -> Array:
    """Returns the key of the zoneout masks of a layer and direction. It does not depend on the number of layers.

    The first constant separates it from `jax.random.split(key)`, which dropout uses: `split(key)[n]` is
    `fold_in(key, n)`.
    """
    for number in (0x7A6F6E65, layer, direction):
        key = jax.random.fold_in(key, number)
    return key


def draw_zoneout(key: Array, rates: tuple[float, ...], T: int, state: State) -> State:
    """Returns booleans (T, B, H) in the structure of a state, true where a unit keeps its value; None for a zero rate.

    Args:
      key: a PRNG key, from `zoneout_key`, which is consumed.
      rates: a rate for each array of the state.
      T: the number of steps.
      state: arrays (B, H).
    """
    arrays, structure = jax.tree.flatten(state)
    keys = jax.random.split(key, len(arrays))
    return structure.unflatten(
        draw(key, round(rate * CHANCES), (T, *array.shape)) if rate > 0 else None
        for key, rate, array in zip(keys, rates, arrays, strict=True)
    )


def kept_share(active: Array | None, rates: tuple[float, ...], key: Array | None, T: int, state: State) -> PyTree:
    """Returns `keep` of `Modifiers`.

    Args:
      active: (T, B) booleans, false where the state is held. If None, all are true.
      rates: the rate of zoneout for each array of the state.
      key: a PRNG key for zoneout, which is consumed. If None, its expectation is used.
      T: the number of steps.
      state: arrays (B, H).
    """
    held = None if active is None else ~active[..., None]
    if not any(rates):
        return held
    arrays, structure = jax.tree.flatten(state)
    if key is not None:
        drawn = structure.flatten_up_to(draw_zoneout(key, rates, T, state))
        return structure.unflatten(held if a is None else a if held is None else a | held for a in drawn)

    def weights(rate: float, array: Array) -> Array | None:
        if rate == 0:
            return held
        weight = jnp.full((T, array.shape[0], 1), rate, array.dtype)
        return weight if held is None else jnp.where(held, jnp.ones_like(weight), weight)

    return structure.unflatten(map(weights, rates, arrays))
