"""The examples in the docstrings of the core and of the NNX modules run."""

import doctest
import importlib
import pkgutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gru_jax

NAMES = {"jax": jax, "jnp": jnp, "np": np, "nnx": nnx} | {name: getattr(gru_jax, name) for name in gru_jax.__all__}
# Their examples go on from a program with other libraries; tests/conformance runs them.
SKIPPED = ("gru_jax.interop", "gru_jax.export", "gru_jax.linen")


def module_names():
    names = [module.name for module in pkgutil.walk_packages(gru_jax.__path__, "gru_jax.")]
    return [name for name in ["gru_jax", *names] if not name.startswith(SKIPPED)]


def examples():
    finder = doctest.DocTestFinder()
    for name in module_names():
        module = importlib.import_module(name)
        for test in finder.find(module, name, module=module, globs=NAMES | vars(module)):
            if test.examples:
                yield pytest.param(test, id=test.name)


EXAMPLES = list(examples())


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example):
    runner = doctest.DocTestRunner(verbose=False)
    printed = []
    result = runner.run(example, out=printed.append, clear_globs=False)
    assert result.failed == 0, "".join(printed)


def test_what_users_call_has_an_example():
    found = {param.id.rpartition(".")[2] for param in EXAMPLES}
    assert {"GRU", "LSTM", "Elman", "Stack", "unroll"} <= found


def test_the_face_names_what_it_holds():
    for name in gru_jax.__all__:
        assert hasattr(gru_jax, name)
        if name != "__version__":
            assert getattr(gru_jax, name).__doc__
