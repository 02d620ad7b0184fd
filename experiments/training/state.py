"""Everything that one training step hands to the next."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from experiments.config import ExperimentConfig
from experiments.tasks.base import Task
from experiments.training import devices


class TrainState(NamedTuple):
    """
    Attributes:
      step: () int32, how many updates have been made.
      params: the model's parameters, nested dicts of arrays.
      opt_state: the optimizer's.
      carry: the task's, from the batch before: recurrent states, or `()`.
    """

    step: Any
    params: Any
    opt_state: Any
    carry: Any


def stream(seed: int, name: str) -> jax.Array:
    """Returns the PRNG key of one use of randomness: "params" or "dropout"."""
    return jax.random.fold_in(jax.random.key(seed), ("params", "dropout").index(name))


def model_parts(task: Task, config: ExperimentConfig) -> tuple[Any, Any]:
    """Makes the model and takes it apart: (graph, params), which `nnx.merge` puts together again."""

    def make(key: jax.Array) -> nnx.Module:
        return task.model(config.model, nnx.Rngs(params=key))

    @jax.jit  # one program instead of one a matrix
    def draw(key: jax.Array) -> Any:
        return nnx.to_pure_dict(nnx.state(make(key)))

    key = stream(config.seed, "params")
    return nnx.graphdef(nnx.eval_shape(make, key)), draw(key)


def initial_state(
    task: Task, config: ExperimentConfig, optimizer: optax.GradientTransformation
) -> tuple[Any, TrainState]:
    """Returns the model's graph and the state before the first step."""
    graph, params = model_parts(task, config)
    carry = task.initial_carry(nnx.merge(graph, params), task.batch_size)
    return graph, TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), carry)


def place(state: TrainState, mesh: Mesh) -> TrainState:
    """Puts a state on the mesh: the carry cut by rows, wide matrices over `model`, all else whole."""
    rest = devices.lay_out(state._replace(carry=()), mesh)
    return rest._replace(carry=devices.spread(state.carry, mesh))


def parameter_count(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))
