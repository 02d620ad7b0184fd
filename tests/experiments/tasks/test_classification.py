"""Cross-entropy and hits of a few rows, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.classification import class_metrics, class_sums


def test_rows_of_weight_zero_count_for_nothing():
    # Every row gives its classes 0.8 and 0.2. Two are of the class named, the third is not, the last is padding.
    logits = jnp.tile(jnp.log(jnp.array([[0.8, 0.2]])), (4, 1))
    sums = class_sums(logits, jnp.array([0, 0, 1, 0]), jnp.array([1.0, 1.0, 1.0, 0.0]))
    found = class_metrics({name: (float(total), float(weight)) for name, (total, weight) in sums.items()})
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert found["loss"] == pytest.approx(-(2 * np.log(0.8) + np.log(0.2)) / 3, rel=1e-6)
