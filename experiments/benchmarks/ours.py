"""The programs of our own: `gru_jax.unroll` as anyone would call it, on one device and on several."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import gru_jax
from experiments.benchmarks.problem import Precision, Problem, mean_square
from experiments.benchmarks.program import Outcome, Program, compile_program, gradients, outputs
from experiments.training.devices import DATA, make_mesh

OURS, SCAN = "gru_jax", "gru_jax scan"
"""Our recurrence with its defaults, and with the backend that differentiates a plain scan."""


def our_program(
    problem: Problem, precision: Precision = "float32", devices: int = 1, library: str = OURS, **options: Any
) -> Program:
    """Compiles our own program for a problem.

    Args:
      problem: what to compute.
      precision: of the matrix products.
      devices: over how many devices to spread the batch.
      library: `OURS` or `SCAN`.
      **options: of `gru_jax.unroll`, in the place of its defaults.
    """
    fixed = {
        "time_major": True,
        "backend": "scan" if library == SCAN else "auto",
        "matmul_dtype": jnp.bfloat16 if precision == "bfloat16" else None,
    }

    def layer(params, xs):
        return gru_jax.unroll(problem.cell, params, xs, **fixed, **options)[0]

    def loss(params, xs):
        return mean_square(layer(params, xs))

    params, xs, function = problem.params, jnp.asarray(problem.xs), layer
    if problem.work == "gradient":
        function = jax.grad(loss)
    if devices > 1:
        mesh, rows = make_mesh(problem.sizes.B, devices), P(None, DATA)
        params = jax.device_put(params, NamedSharding(mesh, P()))
        xs = jax.device_put(xs, NamedSharding(mesh, rows))
        if problem.work == "forward":
            function = jax.shard_map(layer, mesh=mesh, in_specs=(P(), rows), out_specs=rows)
        else:
            function = jax.grad(
                jax.shard_map(
                    lambda params, xs: jax.lax.pmean(loss(params, xs), DATA),
                    mesh=mesh,
                    in_specs=(P(), rows),
                    out_specs=P(),
                )
            )
    outcome = outputs if problem.work == "forward" else gradients
    return compile_program(library, precision, function, (params, xs), outcome, devices)


def reference(problem: Problem) -> Outcome:
    """What every program has to compute: what the plain scan computes in float32, no operand rounded on a GPU."""
    with jax.default_matmul_precision("highest"):
        return our_program(problem, library=SCAN).outcome()
