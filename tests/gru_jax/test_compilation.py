"""Compiler options: known to the compiler, and without effect on the numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gru_jax import CUDA_GRAPHS, GRU, unroll


def program():
    cell = GRU()
    params = cell.init(jax.random.key(0), 3, 4)
    xs = jax.random.normal(jax.random.key(1), (2, 5, 3))
    return jax.jit(jax.grad(lambda params: jnp.sum(unroll(cell, params, xs)[0] ** 2))).lower(params), params


def test_the_compiler_knows_them_and_the_numbers_stay():
    lowered, params = program()
    plain, graphs = (lowered.compile(compiler_options=options)(params) for options in (None, dict(CUDA_GRAPHS)))
    assert all(map(np.array_equal, jax.tree.leaves(plain), jax.tree.leaves(graphs)))


@pytest.mark.parametrize("name", CUDA_GRAPHS)
def test_the_compiler_would_say_if_it_did_not_know_one(name):
    lowered, _ = program()
    with pytest.raises(Exception, match=name):
        lowered.compile(compiler_options={name: "no such value"})
