"""A recurrent forecaster: reversible instance normalization, an encoder of segments, quantiles of the next K values.

The window of T values is split into T/S segments, one per recurrent step, so that long windows need few steps (Lin et
al. 2023). The forecast is read from the encoder's last output ("direct"), or one segment at a time, with the middle
quantile of each segment as the next input ("stepwise"). A linear map of the whole window can be added to it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax
from experiments.schema import Count, require
from experiments.tasks.recurrent import RecurrentConfig, recurrent

EPSILON = 1e-5


class Level(NamedTuple):
    """Center and scale of windows.

    Attributes:
      center: (B, V), the mean of the window or its last value.
      spread: (B, V), the standard deviation of the window.
    """

    center: jax.Array
    spread: jax.Array


class ReversibleNormalization(nnx.Module):
    """x̂ = exp(g) (x - center) / spread + b with learned g and b for each variable, and its inverse.

    The factor is an exponential, where the paper has a free parameter. It is always positive, so that quantiles keep
    their order.

    Reference: Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against
    Distribution Shift", 2022.
    """

    def __init__(self, variables: int, center: Literal["mean", "last"]):
        """Initializes g = 0 and b = 0."""
        self.center = center
        self.log_gain = nnx.Param(jnp.zeros(variables))
        self.bias = nnx.Param(jnp.zeros(variables))

    def __call__(self, xs: jax.Array) -> tuple[jax.Array, Level]:
        """Normalizes windows.

        Args:
          xs: (B, T, V) float.

        Returns:
          (B, T, V), and the level for `inverse`.
        """
        center = xs.mean(axis=1) if self.center == "mean" else xs[:, -1]
        level = Level(center, jnp.sqrt(xs.var(axis=1) + EPSILON))
        normalized = (xs - level.center[:, None]) / level.spread[:, None]
        return normalized * jnp.exp(self.log_gain[None, None]) + self.bias[None, None], level

    def inverse(self, ys: jax.Array, level: Level) -> jax.Array:
        """Restores the level of forecasts (B, K, V) of the same windows."""
        normalized = (ys - self.bias[None, None]) * jnp.exp(-self.log_gain[None, None])
        return normalized * level.spread[:, None] + level.center[:, None]


NEAR_ZERO = nnx.initializers.variance_scaling(0.01, "fan_in", "normal")
"""Initializer of the readout, so that untrained forecasts are near the level of their window."""


@dataclasses.dataclass(frozen=True)
class ForecasterConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      decoder: "direct", all K steps from the encoder's last output; "stepwise", one segment at a time.
      segment: S, the values of a variable in one recurrent step; T is a multiple of it.
      channels: "shared", each variable is forecast from itself, with shared weights; "joint", from all variables.
      normalization: reversible normalization by the window's "mean" or "last" value; or "none".
      linear: whether a linear map of the normalized window is added to all quantiles of each variable; only for the
        "direct" decoder and "shared" channels.
    """

    decoder: Literal["direct", "stepwise"] = "direct"
    segment: Count = 1
    channels: Literal["shared", "joint"] = "shared"
    normalization: Literal["none", "mean", "last"] = "mean"
    linear: bool = False

    def check(self):
        super().check()
        plain = self.decoder == "direct" and self.channels == "shared"
        require("linear", plain or not self.linear, 'False unless decoder="direct" and channels="shared"', self.linear)


class Forecaster(nnx.Module):
    """Maps windows (B, T, V) to quantiles (B, K, V, Q) of the next values. Quantiles never cross.

    Reference: Lin et al., "SegRNN: Segment Recurrent Neural Network for Long-Term Time Series Forecasting", 2023.
    """

    def __init__(
        self,
        config: ForecasterConfig,
        window: int,
        horizon: int,
        variables: int,
        levels: Sequence[float],
        rngs: nnx.Rngs,
    ):
        """Initializes the parameters from `rngs`. `levels` are the Q quantile levels, increasing, 0.5 among them."""
        self.config, self.horizon = config, horizon
        self.quantiles, self.middle = len(levels), tuple(levels).index(0.5)
        self.channels = 1 if config.channels == "shared" else variables
        center = config.normalization
        self.normalization = None if center == "none" else ReversibleNormalization(variables, center)
        self.recurrent = recurrent(config, config.segment * self.channels, rngs)
        steps = horizon if config.decoder == "direct" else config.segment
        self.readout = nnx.Linear(
            config.hidden_size, steps * self.channels * self.quantiles, kernel_init=NEAR_ZERO, rngs=rngs
        )
        zeros = nnx.initializers.zeros_init()
        self.linear = nnx.Linear(window, horizon, kernel_init=zeros, rngs=rngs) if config.linear else None

    def __call__(self, xs: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Forecasts the values after windows.

        Args:
          xs: (B, T, V) float, T a multiple of the segment.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          (B, K, V, Q).
        """
        B, _, V = xs.shape
        keys = (None, None) if key is None else jax.random.split(key)
        normalization = self.normalization
        xs, level = (xs, None) if normalization is None else normalization(xs)
        ys, state = self.recurrent(self._segments(xs), deterministic=keys[0] is None, rngs=keys[0])
        if self.config.decoder == "direct":
            forecasts = self._read(ys[:, -1], keys[1], self._linear(xs))
        else:
            forecasts = self._decode(ys[:, -1], state, keys[1])
        if self.config.channels == "shared":
            forecasts = forecasts.reshape(B, V, self.horizon, -1).swapaxes(1, 2)
        if normalization is None or level is None:
            return forecasts
        return jax.vmap(lambda ys: normalization.inverse(ys, level), in_axes=-1, out_axes=-1)(forecasts)

    def _segments(self, xs: jax.Array) -> jax.Array:
        """Reshapes windows (B, T, V) to segments: (B V, T/S, S) for shared channels, else (B, T/S, S V)."""
        B, T, V = xs.shape
        S = self.config.segment
        if self.config.channels == "shared":
            return xs.swapaxes(1, 2).reshape(B * V, T // S, S)
        return xs.reshape(B, T // S, S * V)

    def _linear(self, xs: jax.Array) -> jax.Array | None:
        """Maps windows (B, T, V) to the linear part of all quantiles: (B V, K, 1). None without a linear map."""
        if self.linear is None:
            return None
        B, T, V = xs.shape
        return self.linear(xs.swapaxes(1, 2).reshape(B * V, T))[..., None]

    def _read(self, y: jax.Array, key: jax.Array | None, linear: jax.Array | None = None) -> jax.Array:
        """Maps outputs (R, H) to quantiles (R, steps, channels, Q); `linear` (R, steps, channels) moves all of them."""
        raw = self.readout(gru_jax.dropout(y, self.config.dropout, key))
        quantiles = ordered(raw.reshape(len(y), -1, self.channels, self.quantiles), self.middle)
        return quantiles if linear is None else quantiles + linear[..., None]

    def _decode(self, y: jax.Array, state: Any, key: jax.Array | None) -> jax.Array:
        """Decodes stepwise from the last output (R, H) and state, with one dropout mask: (R, K, channels, Q)."""

        def step(carry: tuple[jax.Array, Any], _: None) -> tuple[tuple[jax.Array, Any], jax.Array]:
            y, state = carry
            forecast = self._read(y, key)
            x = forecast[..., self.middle].reshape(len(y), 1, -1)
            ys, state = self.recurrent(x, state)
            return (ys[:, 0], state), forecast

        _, forecasts = jax.lax.scan(step, (y, state), length=-(-self.horizon // self.config.segment))
        return jnp.moveaxis(forecasts, 0, 1).reshape(len(y), -1, self.channels, self.quantiles)[:, : self.horizon]


def ordered(raw: jax.Array, median: int) -> jax.Array:
    """Returns quantiles that cannot cross: the median is free, the others are at softplus steps from their neighbor.

    Args:
      raw: (..., Q).
      median: the index of the median.

    Returns:
      (..., Q), increasing.
    """
    steps = jax.nn.softplus(raw)
    middle = raw[..., median : median + 1]
    below = middle - jnp.cumsum(steps[..., :median][..., ::-1], axis=-1)[..., ::-1]
    above = middle + jnp.cumsum(steps[..., median + 1 :], axis=-1)
    return jnp.concatenate([below, middle, above], axis=-1)
