"""Settings for the tests against other libraries: which backend is tested, Keras on JAX, the others' own warnings."""

import os

import pytest

# Read when Keras is first imported.
os.environ["KERAS_BACKEND"] = "jax"


@pytest.fixture(params=["scan", "fused"])
def backend(request) -> str:
    """Each backend of `gru_jax.unroll` in turn."""
    return request.param
