"""A moving average of the parameters along training, which is then what is evaluated and kept.

Parameters at a high learning rate go round the place that they were to find; their average lies nearer to it. It is
kept beside the optimizer's own state, so that checkpoints hold it and nothing else need know of it.

Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.training.state import TrainState


class ParameterAverageState(NamedTuple):
    """
    Attributes:
      updates: () int32, how many there were.
      parameter_average: the moving average.
    """

    updates: Any
    parameter_average: Any


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Returns the last link of a chain: passes updates on, and averages the parameters that they lead to.

    After update t (from 1), average_t = d_t average_(t-1) + (1 - d_t) params_t, where d_t is the lesser of `decay` and
    t / (9 + t), so that the parameters' first, random values are soon forgotten.
    """

    def init(params: Any) -> ParameterAverageState:
        return ParameterAverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ParameterAverageState]:
        count = state.updates + 1
        kept = jnp.minimum(decay, count / (9 + count))
        average = optax.incremental_update(optax.apply_updates(params, updates), state.parameter_average, 1 - kept)
        return updates, ParameterAverageState(count, average)

    return optax.GradientTransformation(init, update)


def evaluated(state: TrainState) -> Any:
    """Returns the parameters that stand for a training state: their average where one is kept, else themselves."""
    return optax.tree.get(state.opt_state, "parameter_average", state.params)
