"""Reversible instance normalisation: a window's own level and spread are taken out, and put back into its forecast."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

EPSILON = 1e-5


class Level(NamedTuple):
    """What was taken out of each window.

    Attributes:
      centre: (B, V), the mean of the window or its last value.
      spread: (B, V), the standard deviation of the window.
    """

    centre: jax.Array
    spread: jax.Array


class ReversibleNormalisation(nnx.Module):
    """x̂ = exp(g) (x - centre) / spread + b, with g and b learned for each variable; and its inverse.

    The factor is an exponential where the paper has a free parameter, so that it never changes sign and quantiles keep
    their order.

    Reference: Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against
    Distribution Shift", 2022.
    """

    def __init__(self, variables: int, centre: Literal["mean", "last"]):
        """Starts with g = 0 and b = 0."""
        self.centre = centre
        self.log_gain = nnx.Param(jnp.zeros(variables))
        self.bias = nnx.Param(jnp.zeros(variables))

    def __call__(self, xs: jax.Array) -> tuple[jax.Array, Level]:
        """Normalises windows.

        Args:
          xs: (B, T, V).

        Returns:
          (B, T, V), and what `inverse` needs.
        """
        centre = xs.mean(axis=1) if self.centre == "mean" else xs[:, -1]
        level = Level(centre, jnp.sqrt(xs.var(axis=1) + EPSILON))
        normalised = (xs - level.centre[:, None]) / level.spread[:, None]
        return normalised * jnp.exp(self.log_gain[None, None]) + self.bias[None, None], level

    def inverse(self, ys: jax.Array, level: Level) -> jax.Array:
        """Puts the level back into forecasts (B, K, V) of the same windows."""
        normalised = (ys - self.bias[None, None]) * jnp.exp(-self.log_gain[None, None])
        return normalised * level.spread[:, None] + level.centre[:, None]
