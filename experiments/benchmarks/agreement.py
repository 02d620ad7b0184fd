"""What is timed side by side computes the same function: checked before a clock runs."""

from collections.abc import Mapping

import jax
import numpy as np

from experiments.benchmarks.problem import BenchmarkError
from experiments.benchmarks.program import Outcome, Program

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "tensorfloat32": 0.006, "bfloat16": 0.05}
"""How far an array may be from the reference, relative to its norm, by the precision of the matrix products.

On a GPU, JAX and PyTorch both round the float32 operands of a recurrent layer's products to TensorFloat32, which has
three bits more than bfloat16.
"""


def distance(outcome: Outcome, reference: Outcome) -> tuple[float, str]:
    """Returns the largest relative distance of an array, |a - b| / |b|, and the array's name.

    An array too few or too many, another shape, a number that is not finite: infinitely far.
    """
    if outcome.keys() != reference.keys():
        return float("inf"), "/".join(sorted(outcome.keys() ^ reference.keys()))
    worst = 0.0, ""
    for name, expected in reference.items():
        got = outcome[name]
        if got.shape != expected.shape or not np.isfinite(got).all():
            return float("inf"), name
        error, scale = np.linalg.norm(got.astype(float) - expected), np.linalg.norm(expected.astype(float))
        worst = max(worst, (float(error / scale) if scale else float(error > 0), name))
    return worst


def check(program: Program, reference: Outcome) -> float:
    """Returns how far a program is from what it has to compute.

    Raises:
      BenchmarkError: too far; the line says which program, in what, and by how much.
    """
    error, array = distance(program.outcome(), reference)
    rounded = program.precision == "float32" and jax.default_backend() == "gpu"
    allowed = TOLERANCES["tensorfloat32" if rounded else program.precision]
    if not error <= allowed:
        raise BenchmarkError(
            f"{program.name}: expected {array} within {allowed:g} of the reference's, relative to its norm, got "
            f"{error:.2g}: it computes something else and is not timed"
        )
    return error
