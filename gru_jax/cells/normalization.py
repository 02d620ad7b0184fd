"""Normalizations of the pre-activations of a cell, and their gradients.

Both normalize several gates (..., H) together. Gains and biases are left to the cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jax import lax

from gru_jax._types import Array


class Normalized(NamedTuple):
    """Normalized gates.

    Attributes:
      gates: arrays (..., H).
      scale: (..., 1), the factor that they were multiplied by.
    """

    gates: tuple[Array, ...]
    scale: Array


def layer_norm(gates: Sequence[Array], epsilon: float) -> Normalized:
    """Computes `(a - mean(a)) / sqrt(var(a) + epsilon)` over the entries of all gates.

    Reference: Ba et al., "Layer Normalization", 2016.
    """
    mean = _mean(gates)
    centered = [gate - mean for gate in gates]
    scale = lax.rsqrt(_mean([gate * gate for gate in centered]) + epsilon)
    return Normalized(tuple(gate * scale for gate in centered), scale)


def layer_norm_pullback(normalized: Normalized, cotangents: Sequence[Array]) -> tuple[Array, ...]:
    """Returns the cotangents (..., H) of the gates before `layer_norm`, given those after it."""
    gates, scale = normalized
    mean = _mean(cotangents)
    along = _mean([g * gate for g, gate in zip(cotangents, gates, strict=True)])
    return tuple(scale * (g - mean - gate * along) for g, gate in zip(cotangents, gates, strict=True))


def rms_norm(gates: Sequence[Array], epsilon: float) -> Normalized:
    """Computes `a / sqrt(mean(a²) + epsilon)` over the entries of all gates.

    Reference: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    scale = lax.rsqrt(_mean([gate * gate for gate in gates]) + epsilon)
    return Normalized(tuple(gate * scale for gate in gates), scale)


def rms_norm_pullback(normalized: Normalized, cotangents: Sequence[Array]) -> tuple[Array, ...]:
    """Returns the cotangents (..., H) of the gates before `rms_norm`, given those after it."""
    gates, scale = normalized
    along = _mean([g * gate for g, gate in zip(cotangents, gates, strict=True)])
    return tuple(scale * (g - gate * along) for g, gate in zip(cotangents, gates, strict=True))


def _mean(gates: Sequence[Array]) -> Array:
    """Returns the mean (..., 1) over the entries of all gates (..., H)."""
    first, *rest = (gate.mean(-1, keepdims=True) for gate in gates)
    return sum(rest, start=first) / len(gates)
