"""One training step, one evaluation step: pure functions, compiled once, each device on its own rows.

Inside `shard_map` a device sees its rows of the batch and of the carry, and the whole of the parameters. Sums and
gradients are added over the devices once, after the backward pass: were the parameters left marked as the same
everywhere, their gradient would be added up wherever they are used, which is at every step through time.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from experiments.tasks.base import Batch, Carry, Sums, Task
from experiments.training import devices
from experiments.training.devices import DATA
from experiments.training.state import TrainState, stream

STATE_SPECS: Any = TrainState(step=P(), params=P(), opt_state=P(), carry=P(DATA))


def make_train_step(
    task: Task,
    graph: Any,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    mesh: Mesh,
    seed: int,
) -> Callable[[TrainState, Batch], tuple[TrainState, Sums]]:
    """Returns `(state, batch) -> (next state, sums)`, compiled. The state's arrays are consumed.

    The sums are those of the task's loss over the whole batch, with "grad_norm", before clipping, and "learning_rate"
    beside them, of weight 1. Dropout draws from `fold_in(fold_in(seed, step), device)`.

    Where the loss or the gradient's norm is not finite, the next state is the state as it was, and "nonfinite", a
    vector in the order of `jax.tree.leaves(params)`, is 1 for every array whose gradient is not.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(stream(seed, "dropout"), state.step)
        key = jax.random.fold_in(key, jax.lax.axis_index(DATA))

        def objective(params):
            sums, carry = task.loss(nnx.merge(graph, params), batch, state.carry, key)
            return sums["loss"][0], (sums, carry)

        params = jax.lax.pcast(state.params, DATA, to="varying")
        gradient, (sums, carry) = jax.grad(objective, has_aux=True)(params)
        gradient, sums = jax.lax.psum((gradient, sums), DATA)
        gradient = jax.tree.map(lambda g: g / sums["loss"][1], gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        new = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, carry)
        norm = optax.tree.norm(gradient)
        broken = jnp.stack([~jnp.isfinite(g).all() for g in jax.tree.leaves(gradient)]).astype(jnp.float32)
        extra = {"grad_norm": norm, "learning_rate": schedule(state.step), "nonfinite": broken}
        finite = jnp.isfinite(sums["loss"][0] / sums["loss"][1]) & jnp.isfinite(norm)
        kept = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        return kept, sums | {name: (value, 1.0) for name, value in extra.items()}

    sharded = jax.shard_map(step, mesh=mesh, in_specs=(STATE_SPECS, P(DATA)), out_specs=(STATE_SPECS, P()))
    return jax.jit(sharded, donate_argnums=0)


def make_eval_step(task: Task, graph: Any, mesh: Mesh, rows: int) -> Callable[[Any, Batch, Carry], tuple[Sums, Carry]]:
    """Returns `(params, batch, carry) -> (sums, next carry)`, compiled, without dropout.

    Batches whose number of rows the devices do not divide (one long stream) are read whole by every device.
    """
    divided = devices.divided(rows, mesh)
    spec = P(DATA) if divided else P()

    def step(params: Any, batch: Batch, carry: Carry) -> tuple[Sums, Carry]:
        sums, carry = task.loss(nnx.merge(graph, params), batch, carry, None)
        return jax.lax.psum(sums, DATA) if divided else sums, carry

    return jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), spec, spec), out_specs=(P(), spec)))
