"""The optimizer of a configuration: optax's rules, schedules, clipping and weight decay, and parameter averaging.

At a high learning rate, parameters oscillate around a minimum, and their moving average is nearer to it. The average is
part of the optimizer's state, so checkpoints hold it. If there is one, it is evaluated in place of the parameters.

Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.runner.config import OptimizerConfig
from experiments.runner.step import TrainState


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, from 0."""
    peak, final = config.learning_rate, config.learning_rate * config.final_fraction
    if config.schedule == "warmup_cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0 if config.warmup_steps else peak,
            peak_value=peak,
            warmup_steps=config.warmup_steps,
            decay_steps=steps,
            end_value=final,
        )
    if config.schedule == "exponential":
        return optax.exponential_decay(peak, transition_steps=steps, decay_rate=config.final_fraction)
    return optax.constant_schedule(peak)


def make_optimizer(
    config: OptimizerConfig, steps: int, project: Callable[[Any], Any] | None = None
) -> optax.GradientTransformation:
    """Returns the optax chain: clipping by global norm, the rule, the learning rate, the parameter average.

    Args:
      config: the optimizer's configuration.
      steps: the number of training steps, for the schedule.
      project: maps updated parameters to allowed ones, e.g. `tasks.recurrent.weight_bounds`; None if all are allowed.
        The state of the optimizer does not depend on it.
    """
    rules = {
        "adam": optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        "adamw": optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        "rmsprop": optax.scale_by_rms(config.beta2, config.epsilon),
        "sgd": optax.trace(config.momentum) if config.momentum else optax.identity(),
    }
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    decay = [optax.add_decayed_weights(config.weight_decay, mask=matrix_mask)] if config.weight_decay else []
    rule = [rules[config.name]]
    body = rule + decay if config.name == "adamw" else decay + rule
    rate = optax.scale_by_learning_rate(learning_rate(config, steps))
    average = [average_parameters(config.average)] if config.average else []
    return optax.chain(*clip, *body, rate if project is None else projected(rate, project), *average)


def matrix_mask(params: Any) -> Any:
    """Returns True for each array that is a matrix, since weights decay and biases do not."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def projected(transformation: optax.GradientTransformation, project: Callable[[Any], Any]) -> Any:
    """Changes the updates of a transformation so that the updated parameters are `project` of what they would be."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = transformation.update(updates, state, params)
        return optax.tree.sub(project(optax.apply_updates(params, updates)), params), state

    return optax.GradientTransformation(transformation.init, update)


class ParameterAverageState(NamedTuple):
    """The state of `average_parameters`.

    Attributes:
      updates: () int32, number of updates.
      parameter_average: the moving average of the parameters.
    """

    updates: Any
    parameter_average: Any


def average_parameters(decay: float) -> optax.GradientTransformation:
    """Averages the updated parameters, and returns the updates unchanged. It is the last transformation of a chain.

    After update t (from 1), average_t = d_t average_(t-1) + (1 - d_t) params_t with d_t = min(decay, t / (9 + t)), so
    the random initial parameters are soon forgotten.
    """

    def init(params: Any) -> ParameterAverageState:
        return ParameterAverageState(jnp.zeros((), jnp.int32), jax.tree.map(jnp.copy, params))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, ParameterAverageState]:
        count = state.updates + 1
        kept = jnp.minimum(decay, count / (9 + count))
        average = optax.incremental_update(optax.apply_updates(params, updates), state.parameter_average, 1 - kept)
        return updates, ParameterAverageState(count, average)

    return optax.GradientTransformation(init, update)


def eval_params(state: TrainState) -> Any:
    """Returns the parameters to evaluate: their moving average if there is one, else the parameters themselves."""
    return optax.tree.get(state.opt_state, "parameter_average", state.params)
