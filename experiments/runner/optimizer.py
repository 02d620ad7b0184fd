"""Gradients to updates, by name: optax's rules, schedules, clipping, weight decay and averages.

A moving average of the parameters along training, which is then what is evaluated and kept.

Parameters at a high learning rate go round the place that they were to find; their average lies nearer to it. It is
kept beside the optimizer's own state, so that checkpoints hold it and nothing else need know of it.

Reference: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from experiments.runner.config import OptimizerConfig
from experiments.runner.step import TrainState


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the schedule: step (from 0) -> learning rate."""
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


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Returns the chain: clip the global norm, apply the rule, scale by the learning rate, average the result."""
    rules = {
        "adam": optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        "adamw": optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        "rmsprop": optax.scale_by_rms(config.beta2, config.epsilon),
        "sgd": optax.trace(config.momentum) if config.momentum else optax.identity(),
    }
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    decay = [optax.add_decayed_weights(config.weight_decay, mask=matrices)] if config.weight_decay else []
    rule = [rules[config.name]]
    body = rule + decay if config.name == "adamw" else decay + rule
    average = [average_parameters(config.average)] if config.average else []
    return optax.chain(*clip, *body, optax.scale_by_learning_rate(learning_rate(config, steps)), *average)


def matrices(params):
    """True for each array that is a matrix: weights decay, biases do not."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


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
