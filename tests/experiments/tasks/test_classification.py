"""Cross-entropy and hits of a few rows, worked out by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.classification import class_metrics, class_sums


def test_rows_of_weight_zero_count_for_nothing():
    # Probabilities 0.8 and 0.2: the first row names the right class, the second the wrong one, the third is padding.
    logits = jnp.log(jnp.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8]]))
    sums = class_sums(logits, jnp.array([0, 1, 1]), jnp.array([1.0, 1.0, 0.0]))
    found = class_metrics({name: (float(total), float(weight)) for name, (total, weight) in sums.items()})
    assert found["accuracy"] == 50.0
    assert found["loss"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 2, rel=1e-6)
