"""Gradients to updates, by name: optax's rules, schedules, clipping, weight decay and averages."""

import jax
import optax

from experiments.config import OptimizerConfig
from experiments.training.averaging import average_parameters


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
