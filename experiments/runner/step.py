"""Everything that one training step hands to the next.

One training step, one evaluation step: pure functions, compiled once, each device on its own rows.

Inside `shard_map` a device sees its rows of the batch and of the carry, and the whole of the parameters. Sums and
gradients are added over the devices once, after the backward pass: were the parameters left marked as the same
everywhere, their gradient would be added up wherever they are used, which is at every step through time.

Where matrices are cut over the axis `model`, no device has the whole of the parameters: there the step is written for
the whole batch, and the compiler cuts the work as its arrays are cut.
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


STATE_SPECS: Any = TrainState(step=P(), params=P(), opt_state=P(), carry=P(DATA))


def make_train_step(
    task: Task,
    graph: Any,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int,
    accumulate: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Returns `(state, batch) -> (next state, sums)`, compiled. The state's arrays are consumed.

    The sums are those of the task's loss over the whole batch, with "grad_norm", before clipping, and "learning_rate"
    beside them, of weight 1. Each device reads its rows in `accumulate` parts, one after the other, and adds their
    gradients up. Dropout draws from `fold_in(fold_in(seed, step), part)`, the parts of all devices numbered in the
    order of their rows: the masks are the same for the same number of parts, on however many devices. (Where matrices
    are cut over `model`, only `accumulate` makes parts.)

    Where the loss or the gradient's norm is not finite, the next state is the state as it was, and "nonfinite", a
    vector in the order of `jax.tree.leaves(params)`, is 1 for every array whose gradient is not.
    """

    def key_of(state: TrainState) -> jax.Array:
        return jax.random.fold_in(stream(seed, "dropout"), state.step)

    def step_of_rows(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        varying = state._replace(params=jax.lax.pcast(state.params, DATA, to="varying"))
        first = jax.lax.axis_index(DATA) * accumulate
        found, carry = gradient_of_rows(task, graph, varying, batch, key_of(state), accumulate, first)
        gradient, sums = jax.lax.psum(found, DATA)
        return advance(state, gradient, sums, carry, optimizer, schedule)

    def step_of_all(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        shards = mesh.shape[DATA]
        (gradient, sums), carry = gradient_of_rows(task, graph, state, batch, key_of(state), accumulate, 0, shards)
        after, sums = advance(state, gradient, sums, carry, optimizer, schedule)
        return laid_out(after, mesh), sums

    if mesh.shape[MODEL] > 1:
        return jax.jit(step_of_all, donate_argnums=0)
    specs = (STATE_SPECS, P(DATA))
    return jax.jit(
        jax.shard_map(step_of_rows, mesh=mesh, in_specs=specs, out_specs=(STATE_SPECS, P())), donate_argnums=0
    )


def make_eval_step(task: Task, graph: Any, mesh: Mesh, rows: int) -> Callable[[Any, Batch, Carry], tuple[Sums, Carry]]:
    """Returns `(params, batch, carry) -> (sums, next carry)`, compiled, without dropout.

    Batches whose number of rows the devices do not divide (one long stream) are read whole by every device.
    """

    def score(params: Any, batch: Batch, carry: Carry) -> tuple[Sums, Carry]:
        return task.loss(nnx.merge(graph, params), batch, carry, None)

    def score_rows(params: Any, batch: Batch, carry: Carry) -> tuple[Sums, Carry]:
        sums, carry = score(params, batch, carry)
        return jax.lax.psum(sums, DATA), carry

    if mesh.shape[MODEL] > 1:
        return jax.jit(score)
    if devices.divided(rows, mesh):
        specs = (P(), P(DATA), P(DATA))
        return jax.jit(jax.shard_map(score_rows, mesh=mesh, in_specs=specs, out_specs=(P(), P(DATA))))
    return jax.jit(jax.shard_map(score, mesh=mesh, in_specs=P(), out_specs=P()))


def gradient_of_rows(
    task: Task,
    graph: Any,
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    accumulate: int,
    first: int | jax.Array,
    shards: int = 1,
) -> tuple[tuple[Any, Sums], Carry]:
    """Works out the gradient of the loss's sum over the rows at hand.

    Args:
      task: whose loss.
      graph: the model's.
      state: before the step.
      batch: some rows of a training batch; `state.carry` has as many.
      key: of the step, for dropout.
      accumulate: in how many parts the rows are read; what a part needs is freed before the next.
      first: the number of the first part among those of all devices.
      shards: over how many devices the compiler spreads the rows; each has its share of every part.

    Returns:
      the gradient and the sums, and the carry after.
    """

    def of_part(number: int | jax.Array, batch: Batch, carry: Carry) -> tuple[tuple[Any, Sums], Carry]:
        def objective(params):
            sums, after = task.loss(nnx.merge(graph, params), batch, carry, jax.random.fold_in(key, number))
            return sums["loss"][0], (sums, after)

        gradient, (sums, after) = jax.grad(objective, has_aux=True)(state.params)
        return (gradient, sums), after

    if accumulate == 1:
        return of_part(first, batch, state.carry)

    def add(total: Any, part: Any) -> tuple[Any, Carry]:
        found, carry = of_part(*part)
        return jax.tree.map(jnp.add, total, found), carry

    def cut(a: jax.Array) -> jax.Array:
        return a.reshape((shards, accumulate, -1, *a.shape[1:])).swapaxes(0, 1).reshape((accumulate, -1, *a.shape[1:]))

    def join(a: jax.Array) -> jax.Array:
        return a.reshape((accumulate, shards, -1, *a.shape[2:])).swapaxes(0, 1).reshape((-1, *a.shape[2:]))

    parts = (first + jnp.arange(accumulate), *jax.tree.map(cut, (batch, state.carry)))
    shapes, _ = jax.eval_shape(of_part, *jax.tree.map(lambda a: a[0], parts))
    total, carry = jax.lax.scan(add, jax.tree.map(zeros_like, shapes), parts)
    return total, jax.tree.map(join, carry)


def zeros_like(like: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros for a sum to start from: inside `shard_map` they vary over the devices that what is added varies over."""
    zeros, kind = jnp.zeros(like.shape, like.dtype), like.manual_axis_type
    return jax.lax.pcast(zeros, tuple(kind.varying), to="varying") if kind and kind.varying else zeros


def advance(
    state: TrainState,
    gradient: Any,
    sums: Sums,
    carry: Carry,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> tuple[TrainState, Sums]:
    """Makes the update of a step: returns the next state, and the sums with what else `make_train_step` promises.

    Args:
      state: before the step.
      gradient: of the loss's sum over the whole batch.
      sums: over the whole batch.
      carry: after the batch.
      optimizer: makes updates of gradients.
      schedule: gives the learning rate to report.
    """
    gradient = jax.tree.map(lambda g: g / sums["loss"][1], gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry)
    norm = optax.tree.norm(gradient)
    broken = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(gradient)]).astype(jnp.float32)
    extra = {"grad_norm": norm, "learning_rate": schedule(state.step), "nonfinite": broken}
    finite = jnp.isfinite(sums["loss"][0] / sums["loss"][1]) & jnp.isfinite(norm)
    kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
    return kept, sums | {name: (value, 1.0) for name, value in extra.items()}


def laid_out(state: TrainState, mesh: Mesh) -> TrainState:
    """Inside a step, cuts the state as `state.place` does, so that what one step leaves is what the next one takes."""

    def constrain(tree: Any, spec_of: Callable[[Any], P]) -> Any:
        return jax.tree.map(
            lambda a: jax.lax.with_sharding_constraint(a, NamedSharding(mesh, spec_of(a))),
            tree,
        )

    carry = constrain(state.carry, lambda a: P(DATA))
    return constrain(state._replace(carry=()), lambda a: devices.cut(a.shape, mesh))._replace(carry=carry)
