"""Readouts of padded batches against single sequences; cross-entropy and accuracy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.classifier import Classifier, ClassifierConfig, class_metrics, class_sums

XS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 2)), jnp.float32)
LENGTHS = (6, 3, 1, 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("readout", ["last", "mean"])
def test_readout_equals_unpadded_sequences(readout, bidirectional):
    config = ClassifierConfig(hidden_size=3, bidirectional=bidirectional, readout=readout)
    model = Classifier(config, 2, 5, nnx.Rngs(0))
    logits = model(XS, lengths=jnp.array(LENGTHS))
    for row, length in enumerate(LENGTHS):
        if length == 0:
            summary = np.zeros(6 if bidirectional else 3, np.float32)
        elif readout == "mean":
            summary = model.recurrent(XS[row : row + 1, :length])[0][0].mean(axis=0)
        else:
            _, (directions,) = model.recurrent(XS[row : row + 1, :length])
            summary = jnp.concatenate([state[0] for state in directions])
        expected = np.asarray(summary) @ model.readout.kernel[...] + model.readout.bias[...]
        np.testing.assert_allclose(logits[row], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(XS)[0], logits[0], rtol=1e-5, atol=1e-6)


def test_rows_of_weight_zero_have_no_effect():
    # Every row predicts 0.8 and 0.2. Two rows have class 0, the third has class 1, the last is padding.
    logits = jnp.tile(jnp.log(jnp.array([[0.8, 0.2]])), (4, 1))
    sums = class_sums(logits, jnp.array([0, 0, 1, 0]), jnp.array([1.0, 1.0, 1.0, 0.0]))
    found = class_metrics({name: (float(total), float(weight)) for name, (total, weight) in sums.items()})
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert found["loss"] == pytest.approx(-(2 * np.log(0.8) + np.log(0.2)) / 3, rel=1e-6)
