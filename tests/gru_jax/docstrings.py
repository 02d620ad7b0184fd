"""Finds and runs the examples in the docstrings of the library."""

import doctest
import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any

import gru_jax

WITH_OTHERS = ("gru_jax.interop", "gru_jax.export", "gru_jax.linen")
"""Their examples need variables of other libraries. tests/conformance runs them, tests/gru_jax the others."""


def examples(with_others: bool) -> Iterator[doctest.DocTest]:
    """Yields the docstrings with examples, of the modules `WITH_OTHERS` or of all other modules."""
    found = [module.name for module in pkgutil.walk_packages(gru_jax.__path__, "gru_jax.")]
    for name in ["gru_jax", *found]:
        if name.startswith(WITH_OTHERS) == with_others and not name.endswith("__main__"):
            module = importlib.import_module(name)
            yield from (test for test in doctest.DocTestFinder().find(module, name, module=module) if test.examples)


def assert_runs(example: doctest.DocTest, names: Mapping[str, Any]) -> None:
    """Runs an example with the given names and compares its output."""
    example.globs = dict(names)
    printed: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(example, out=printed.append, clear_globs=False)
    assert result.failed == 0, "".join(printed)
