"""The compiled training step and evaluation step, pure functions of the training state.

Each device computes its own rows of the batch in `shard_map`, with the parameters replicated. Gradients and sums are
added over the devices once, after the backward pass. `pcast` marks the parameters as varying, since otherwise their
gradient would be summed at every time step.

If matrices are sharded over the axis `model`, the step is written for the whole batch, and the compiler partitions it
by the sharding of its arrays.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.runner import devices
from experiments.runner.config import ExperimentConfig
from experiments.runner.devices import DATA, MODEL
from experiments.tasks.base import Batch, Carry, Sums, Task


class TrainState(NamedTuple):
    """The state that one training step passes to the next.

    Attributes:
      step: () int32, number of updates.
      params: the model's parameters, nested dicts of arrays.
      opt_state: the optimizer's state.
      carry: the task's state from batch to batch: recurrent states, or `()`.
    """

    step: Any
    params: Any
    opt_state: Any
    carry: Any


def prng_key(seed: int, name: str) -> jax.Array:
    """Returns the PRNG key for "params" or "dropout"."""
    return jax.random.fold_in(jax.random.key(seed), ("params", "dropout").index(name))


def split_model(task: Task, config: ExperimentConfig) -> tuple[Any, Any]:
    """Initializes the model and splits it into (graphdef, params), which `nnx.merge` combines."""

    def make(key: jax.Array) -> nnx.Module:
        return task.model(config.model, nnx.Rngs(params=key))

    @jax.jit  # one program instead of one per matrix
    def draw(key: jax.Array) -> Any:
        return nnx.to_pure_dict(nnx.state(make(key)))

    key = prng_key(config.seed, "params")
    return nnx.graphdef(nnx.eval_shape(make, key)), draw(key)


def abstract_model(task: Task, config: ExperimentConfig) -> tuple[Any, Any]:
    """Returns (graphdef, params) as `split_model` does, with the shapes and dtypes of the parameters alone."""
    model = nnx.eval_shape(lambda: task.model(config.model, nnx.Rngs(params=0)))
    return nnx.graphdef(model), nnx.to_pure_dict(nnx.state(model))


def initial_state(
    task: Task, config: ExperimentConfig, optimizer: optax.GradientTransformation
) -> tuple[Any, TrainState]:
    """Returns the model's graphdef and the state before the first step."""
    graphdef, params = split_model(task, config)
    carry = task.initial_carry(nnx.merge(graphdef, params), task.batch_size)
    return graphdef, TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), carry)


def shard_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Puts a state on the mesh: the carry is sharded by rows, wide matrices over `model`; the rest is replicated."""
    rest = devices.shard_params(state._replace(carry=()), mesh)
    return rest._replace(carry=devices.shard_batch(state.carry, mesh))


def parameter_count(params: Any) -> int:
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


STATE_SPECS: Any = TrainState(step=P(), params=P(), opt_state=P(), carry=P(DATA))


def make_train_step(
    task: Task,
    graphdef: Any,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Returns the compiled training step `(state, batch) -> (next state, sums)`. The state's arrays are donated.

    The sums are the task's, over the whole batch, and with weight 1 "grad_norm" (before clipping), "learning_rate" and
    "nonfinite". If the loss or the gradient norm is not finite, the next state is the old one, and "nonfinite", a
    vector in the order of `jax.tree.leaves(params)`, is 1 for each array whose gradient is not finite.

    Each device reads its rows in `accumulate` parts and accumulates their gradients. Dropout draws from
    `fold_in(fold_in(seed, step), part)`, with the parts of all devices numbered in row order. The masks depend only on
    the number of parts, which with sharded matrices is `accumulate`.
    """

    def key_of(state: TrainState) -> jax.Array:
        return jax.random.fold_in(prng_key(seed, "dropout"), state.step)

    def step_of_shard(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        varying = state._replace(params=jax.lax.pcast(state.params, DATA, to="varying"))
        first = jax.lax.axis_index(DATA) * accumulate
        found, carry = accumulate_gradient(task, graphdef, varying, batch, key_of(state), accumulate, first)
        gradient, sums = jax.lax.psum(found, DATA)
        return apply_gradient(state, gradient, sums, carry, optimizer, schedule)

    def step_of_batch(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        shards = mesh.shape[DATA]
        (gradient, sums), carry = accumulate_gradient(
            task, graphdef, state, batch, key_of(state), accumulate, 0, shards
        )
        after, sums = apply_gradient(state, gradient, sums, carry, optimizer, schedule)
        return constrain_state(after, mesh), sums

    if mesh.shape[MODEL] > 1:
        return jax.jit(step_of_batch, donate_argnums=0)
    specs = (STATE_SPECS, P(DATA))
    return jax.jit(
        jax.shard_map(step_of_shard, mesh=mesh, in_specs=specs, out_specs=(STATE_SPECS, P())), donate_argnums=0
    )


def make_eval_step(
    task: Task, graphdef: Any, mesh: Mesh, rows: int
) -> Callable[[Any, Batch, Carry], tuple[Sums, Carry]]:
    """Returns the compiled evaluation step `(params, batch, carry) -> (sums, next carry)`, without dropout.

    A batch is replicated if its rows cannot be divided by the devices, such as one long stream.
    """

    def score(params: Any, batch: Batch, carry: Carry) -> tuple[Sums, Carry]:
        return task.loss(nnx.merge(graphdef, params), batch, carry, None)

    def score_rows(params: Any, batch: Batch, carry: Carry) -> tuple[Sums, Carry]:
        sums, carry = score(params, batch, carry)
        return jax.lax.psum(sums, DATA), carry

    if mesh.shape[MODEL] > 1:
        return jax.jit(score)
    if devices.is_divisible(rows, mesh):
        specs = (P(), P(DATA), P(DATA))
        return jax.jit(jax.shard_map(score_rows, mesh=mesh, in_specs=specs, out_specs=(P(), P(DATA))))
    return jax.jit(jax.shard_map(score, mesh=mesh, in_specs=P(), out_specs=P()))


def accumulate_gradient(
    task: Task,
    graphdef: Any,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    accumulate: int,
    first: int | jax.Array,
    shards: int = 1,
) -> tuple[tuple[Any, Sums], Carry]:
    """Computes the gradient of the sum of the loss over some rows of a batch.

    Args:
      task: has the loss.
      graphdef: the model's.
      state: the state before the step.
      batch: rows of a training batch, as many as `state.carry` has.
      key: the step's PRNG key, for dropout.
      accumulate: number of parts in which the rows are read, one after the other, to save memory.
      first: number of the first part among the parts of all devices.
      shards: number of devices over which the compiler shards the rows; each has a share of every part.

    Returns:
      ((gradient, sums), next carry).
    """

    def gradient_of_part(number: int | jax.Array, batch: Batch, carry: Carry) -> tuple[tuple[Any, Sums], Carry]:
        def objective(params):
            sums, after = task.loss(nnx.merge(graphdef, params), batch, carry, jax.random.fold_in(key, number))
            return sums["loss"][0], (sums, after)

        gradient, (sums, after) = jax.grad(objective, has_aux=True)(state.params)
        return (gradient, sums), after

    if accumulate == 1:
        return gradient_of_part(first, batch, state.carry)

    def add(total: Any, part: Any) -> tuple[Any, Carry]:
        found, carry = gradient_of_part(*part)
        return jax.tree.map(jnp.add, total, found), carry

    def split(a: jax.Array) -> jax.Array:
        return a.reshape((shards, accumulate, -1, *a.shape[1:])).swapaxes(0, 1).reshape((accumulate, -1, *a.shape[1:]))

    def join(a: jax.Array) -> jax.Array:
        return a.reshape((accumulate, shards, -1, *a.shape[2:])).swapaxes(0, 1).reshape((-1, *a.shape[2:]))

    parts = (first + jnp.arange(accumulate), *jax.tree.map(split, (batch, state.carry)))
    shapes, _ = jax.eval_shape(gradient_of_part, *jax.tree.map(lambda a: a[0], parts))
    total, carry = jax.lax.scan(add, jax.tree.map(zeros_like, shapes), parts)
    return total, jax.tree.map(join, carry)


def zeros_like(like: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns zeros that, inside `shard_map`, vary over the same devices as the values to be added."""
    zeros, kind = jnp.zeros(like.shape, like.dtype), like.manual_axis_type
    return jax.lax.pcast(zeros, tuple(kind.varying), to="varying") if kind and kind.varying else zeros


def apply_gradient(
    state: TrainState,
    gradient: Any,
    sums: Sums,
    carry: Carry,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> tuple[TrainState, Sums]:
    """Applies the update of a step. Returns the next state and the sums, as `make_train_step` describes them.

    Args:
      state: the state before the step.
      gradient: the gradient of the sum of the loss over the whole batch.
      sums: the task's sums over the whole batch.
      carry: the carry after the batch.
      optimizer: transforms the gradient into updates.
      schedule: gives the learning rate to report.
    """
    gradient = jax.tree.map(lambda g: g / sums["loss"][1], gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry)
    norm = optax.tree.norm(gradient)
    nonfinite = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(gradient)]).astype(jnp.float32)
    extra = {"grad_norm": norm, "learning_rate": schedule(state.step), "nonfinite": nonfinite}
    finite = jnp.isfinite(sums["loss"][0] / sums["loss"][1]) & jnp.isfinite(norm)
    chosen = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
    return chosen, sums | {name: (value, 1.0) for name, value in extra.items()}


def constrain_state(state: TrainState, mesh: Mesh) -> TrainState:
    """Constrains a state inside a step to the sharding of `shard_state`, so that the next step need not reshard it."""

    def constrain(tree: Any, spec_of: Callable[[Any], P]) -> Any:
        return jax.tree.map(
            lambda a: jax.lax.with_sharding_constraint(a, NamedSharding(mesh, spec_of(a))),
            tree,
        )

    carry = constrain(state.carry, lambda a: P(DATA))
    return constrain(state._replace(carry=()), lambda a: devices.partition_spec(a.shape, mesh))._replace(carry=carry)
