"""What a classifier reads out, against the same sequences run one by one without padding."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.models.classifier import Classifier, ClassifierConfig

XS = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6, 2)), jnp.float32)
LENGTHS = (6, 3, 1, 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("readout", ["last", "mean"])
def test_readout(readout, bidirectional):
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
