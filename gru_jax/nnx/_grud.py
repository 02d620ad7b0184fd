"""GRU-D, the GRU for series with missing values and irregular times (Che et al., 2018), as an NNX layer."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._flax_conventions import check_dtype, check_options, class_name, explain_keywords, promote
from gru_jax._precision import computing_dtype
from gru_jax._types import Array, DType, Initializer
from gru_jax._unroll.unroll import check_lengths, unroll
from gru_jax.cells.base import zeros
from gru_jax.nnx._variables import new_variables, parameters_key, values


class GRUDState(NamedTuple):
    """The state of a GRU-D.

    Attributes:
      h: (..., H), the hidden state.
      last: (..., I), the last observed value of each variable, or its mean before the first observation.
    """

    h: Any
    last: Any


class Mean(nnx.Variable[Array]):
    """The empirical mean of each variable: a buffer, which is saved but not trained."""


class GRUD(nnx.Module):
    """A GRU-D layer. With a value x, observed where m = 1, and the time d since each variable was last observed,

        x̂  = m x + (1 - m) (γ_x x_last + (1 - γ_x) x_mean)     γ_x = exp(-max(0, w_x d + b_x))
        h  = γ_h * h                                            γ_h = exp(-max(0, W_h d + b_h))
        h' = GRU([x̂, m], h)                                     reset="before"

    So a value that is not observed decays from the last one toward the mean, and the state decays with time. Values
    where `observed` is false never enter the computation. NaN there changes neither outputs nor gradients.

    Args:
      in_features: I, the number of variables.
      hidden_features: H, the number of hidden units.
      mean: (I,), the mean of each variable over the observed values of the training split. If None, zeros, for
        standardized data. It is a buffer of the type `Mean`, not a parameter.
      W_init, U_init, b_init: initializers of the GRU; see `gru_jax.GRU`.
      backend, matmul_dtype: see `gru_jax.unroll`.
      dtype: the dtype of the computation. If None, inputs and parameters are promoted, as in Flax.
      param_dtype: the dtype of the parameters.
      return_state: whether a call returns (ys, state) or only ys.
      rngs: Rngs with a stream `params`.

    Example:
      >>> layer = GRUD(8, 64, rngs=nnx.Rngs(0))
      >>> xs, observed = jnp.ones((32, 50, 8)), jnp.ones((32, 50, 8), bool)
      >>> ys, state = layer(xs, observed, deltas=jnp.ones((32, 50, 8)))  # ys (32, 50, 64)

    Reference: Che et al., "Recurrent Neural Networks for Multivariate Time Series with Missing Values", 2018.
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        mean: Array | None = None,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        name = class_name(self)
        sizes = {"in_features": in_features, "hidden_features": hidden_features}
        check_options(self, sizes, param_dtype, matmul_dtype, backend)
        self.cell = cells.GRU(W_init=W_init, U_init=U_init, b_init=b_init)
        key, key_x, key_h = jax.random.split(parameters_key(name, rngs), 3)
        self.in_features, self.hidden_features = in_features, hidden_features
        weights = new_variables(self.cell, key, 2 * in_features, hidden_features, param_dtype)
        self.gru = nnx.data({name: weight for name, weight in weights._asdict().items() if weight is not None})
        # Positive weights: where `w d + b` is negative, its gradient is zero.
        scale = 1 / in_features
        self.w_x = nnx.Param(jax.random.uniform(key_x, (in_features,), param_dtype))
        self.b_x = nnx.Param(jnp.zeros(in_features, param_dtype))
        self.W_h = nnx.Param(jax.random.uniform(key_h, (in_features, hidden_features), param_dtype, maxval=scale))
        self.b_h = nnx.Param(jnp.zeros(hidden_features, param_dtype))
        mean = jnp.zeros(in_features, param_dtype) if mean is None else arguments.floating(f"{name}: mean", mean)
        arguments.shape(f"{name}: mean", mean, (in_features,))
        self.mean = Mean(mean.astype(param_dtype))
        self.backend, self.matmul_dtype, self.return_state = backend, matmul_dtype, return_state
        self.dtype = check_dtype(self, dtype)

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> GRUDState:
        """Returns the state before the first step: h is zero, and the last observed value is the mean."""
        mean = self.mean[...] if self.dtype is None else self.mean[...].astype(self.dtype)
        h = zeros(batch_shape, self.hidden_features, mean.dtype)
        last = jnp.broadcast_to(mean, (*batch_shape, self.in_features))
        return GRUDState(h, last.copy())  # Without batch axes, `last` is the buffer itself, which may not be donated.

    @explain_keywords
    def __call__(
        self,
        xs: Array,
        observed: Array,
        deltas: Array,
        state: GRUDState | None = None,
        *,
        lengths: Array | None = None,
        return_state: bool | None = None,
    ) -> Any:
        """Runs the layer over time.

        Args:
          xs: (..., T, I), the values. Where `observed` is false they are not read.
          observed: (..., T, I) booleans.
          deltas: (..., T, I), the time since each variable was last observed, at least 0, in any unit.
          state: the state after earlier steps. If None, `initial_state`.
          lengths: (...,) integers, the number of steps of each sequence. Later outputs are zero.
          return_state: overrides `return_state` of the module if not None.

        Returns:
          ys (..., T, H), and the `GRUDState` after the last step of each sequence. Only ys if return_state is False.

        Raises:
          ValueError, TypeError: an argument has an invalid shape or dtype.
        """
        xs, observed, deltas = self._checked(xs, observed, deltas)
        h, last = self._checked_state(state, xs)
        weights = values({"gru": dict(self.gru), "mean": self.mean})
        weights, (xs, _), h = promote(self.dtype, weights, (xs, deltas), h)
        # In 16 bits a slow decay would be none: 0.999 is 1 in bfloat16.
        dtype, decays = computing_dtype(xs.dtype), {"w_x": self.w_x, "b_x": self.b_x, "W_h": self.W_h, "b_h": self.b_h}
        deltas, decays = jax.tree.map(lambda a: a.astype(dtype), (deltas, values(decays)))
        last = jnp.asarray(last, xs.dtype)  # A state does not take part in the promotion.
        if lengths is not None:
            lengths = check_lengths(lengths, xs.shape[:-2], xs.shape[-2])
            steps = lax.broadcasted_iota(jnp.int32, xs.shape[:-1], xs.ndim - 2)
            within = steps < lengths[..., None]
            observed = observed & within[..., None]
            deltas = jnp.where(within[..., None], deltas, 0)
        xs = jnp.where(observed, xs, 0)
        before, last = _last_observed(xs, observed, last)
        rows = (1,) * (xs.ndim - 1)
        decay_x = _decay(deltas * decays["w_x"].reshape(*rows, -1) + decays["b_x"].reshape(*rows, -1))
        decay_h = _decay(deltas @ decays["W_h"] + decays["b_h"].reshape(*rows, -1))
        imputed = (decay_x * before + (1 - decay_x) * weights["mean"].reshape(*rows, -1)).astype(xs.dtype)
        inputs = jnp.concatenate([jnp.where(observed, xs, imputed), observed.astype(xs.dtype)], axis=-1)
        ys, h = unroll(
            self.cell,
            cells.GRUParams(**weights["gru"]),
            inputs,
            h,
            lengths=lengths,
            decay=decay_h,
            backend=self.backend,
            matmul_dtype=self.matmul_dtype,
        )
        after = GRUDState(h, last)
        return (ys, after) if (self.return_state if return_state is None else return_state) else ys

    def _checked(self, xs: Array, observed: Array, deltas: Array) -> tuple[Array, Array, Array]:
        """Checks shapes and dtypes."""
        xs, deltas = arguments.floating("xs", xs), arguments.floating("deltas", deltas)
        if xs.ndim < 2 or xs.shape[-1] != self.in_features:
            raise ValueError(f"xs: expected shape (..., T, {self.in_features}), got {xs.shape}")
        observed = arguments.as_array("observed", observed)
        if observed.dtype != jnp.bool_:
            raise TypeError(f"observed: expected booleans, got {observed.dtype}")
        for name, array in (("observed", observed), ("deltas", deltas)):
            arguments.matching(name, array, xs.shape, "the shape of xs")
        return xs, observed, deltas

    def _checked_state(self, state: GRUDState | None, xs: Array) -> tuple[Array | None, Array]:
        """Checks a state, and returns h and the last observed values; None and the mean, sharded like xs, for None."""
        if state is None:
            mean = self.mean[...].reshape((1,) * (xs.ndim - 2) + (-1,))
            return None, jnp.zeros_like(xs, mean.dtype).sum(-2) + mean
        if not isinstance(state, GRUDState):
            raise TypeError(f"state: expected GRUDState(h, last), got {type(state).__name__}")
        for name, array, size in (("h", state.h, self.hidden_features), ("last", state.last, self.in_features)):
            array = arguments.floating(f"state.{name}", array)
            arguments.matching(f"state.{name}", array, (*xs.shape[:-2], size), "the batch axes of xs, then features")
        return state


def _decay(rate: Array) -> Array:
    """Returns exp(-max(0, rate)), in (0, 1]."""
    return jnp.exp(-jax.nn.relu(rate))


def _last_observed(xs: Array, observed: Array, last: Array) -> tuple[Array, Array]:
    """Returns the last observed value of each variable before each step (..., T, I), and after the last step (..., I).

    Args:
      xs: (..., T, I), the values.
      observed: (..., T, I) booleans.
      last: (..., I), the last observed values before the first step.
    """
    values = jnp.concatenate([last[..., None, :], xs], axis=-2)
    steps = lax.broadcasted_iota(jnp.int32, xs.shape, xs.ndim - 2) + 1
    places = lax.cummax(jnp.where(observed, steps, 0), axis=xs.ndim - 2)
    filled = jnp.take_along_axis(values, places, axis=-2)
    filled = jnp.concatenate([last[..., None, :], filled], axis=-2)
    return filled[..., :-1, :], filled[..., -1, :]
