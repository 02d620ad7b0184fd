"""Fixtures for the tests against other libraries: the backends of `unroll`, and Keras on JAX."""

import os
from collections.abc import Iterator

import jax
import pytest

# Read when Keras is first imported.
os.environ["KERAS_BACKEND"] = "jax"


@pytest.fixture(params=["scan", "fused"])
def backend(request) -> str:
    """Each backend of `gru_jax.unroll` in turn."""
    return request.param


@pytest.fixture(autouse=True)
def allow_rank_promotion() -> Iterator[None]:
    """Other libraries rely on implicit rank promotion. The tests of gru_jax raise on it."""
    with jax.numpy_rank_promotion("allow"):
        yield
