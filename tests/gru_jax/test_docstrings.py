"""Runs the examples in the docstrings of the core and of the NNX modules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gru_jax
from tests.gru_jax.docstrings import assert_runs, examples

NAMES = {"gru_jax": gru_jax, "jax": jax, "jnp": jnp, "np": np, "nnx": nnx, "optax": optax} | {
    name: getattr(gru_jax, name) for name in gru_jax.__all__
}
EXAMPLES = list(examples(with_others=False))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_example_runs(example):
    assert_runs(example, NAMES | example.globs)


def test_cells_stacks_and_functions_have_an_example():
    found = {example.name.rpartition(".")[2] for example in EXAMPLES}
    assert {"GRU", "LSTM", "Elman", "Stack", "gru_step", "lstm_step", "elman_step", "step", "unroll"} <= found
