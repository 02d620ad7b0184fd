"""The public API: its names, and their docstrings."""

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

import gru_jax

CELLS = [kind.__name__ for kind in gru_jax.CELLS.values()]
STATES = [f"{cell}State" for cell in CELLS if hasattr(gru_jax, f"{cell}State")]
PROTOCOLS = ["Adjoint", "Cell", "LinearCell", "Network", "Readout", "ReadoutAdjoint"]
OF_CELLS = [*CELLS, *(f"{cell}Params" for cell in CELLS), *STATES, "elman_step", "gru_step", "lstm_step"]
OF_MODULES = [*CELLS, *(f"{cell}Cell" for cell in CELLS)]
API = {
    "gru_jax": ["CELLS", "Stack", "__version__", "dropout", "step", "unroll", *PROTOCOLS, *OF_CELLS],
    "gru_jax.cells": ["CELLS", "step", *PROTOCOLS, *OF_CELLS],
    "gru_jax.nnx": ["GRUD", "GRUDState", "Recurrent", "RecurrentCell", *OF_MODULES],
    "gru_jax.linen": ["Recurrent", "RecurrentCell", *OF_MODULES],
    "gru_jax.interop": ["equinox", "flax", "haiku", "keras", "onnx", "torch"],
    "gru_jax.export": ["load_weights", "save_program", "save_weights", "step_program", "unroll_program"],
}
MODULES = {"cells", "export", "interop", "linen", "nnx"}
"""The public modules of `gru_jax`."""


@pytest.mark.parametrize("module", API)
def test_modules_export_the_public_names(module):
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(API[module])
    assert set(found.__all__) <= set(dir(found))


def test_package_has_no_other_public_names():
    imported = {"TYPE_CHECKING", "ModuleType", "importlib"}
    public = {name for name in dir(gru_jax) if not name.startswith("_")}
    assert public - imported == (set(API["gru_jax"]) - {"__version__"}) | MODULES


def is_documented(value: object) -> bool:
    """Returns whether a value has a docstring, with shapes such as (..., I) for functions of inputs or states."""
    docstring = inspect.getdoc(value) or ""
    arrays = inspect.isfunction(value) and {"h", "x", "xs", "state"} & set(inspect.signature(value).parameters)
    return bool(re.search(r"\((\.\.\.|[A-Z]\w*), ?|any shape", docstring) if arrays else docstring)


@pytest.mark.parametrize("module", API)
def test_public_names_have_docstrings_with_shapes(module):
    found = importlib.import_module(module)
    names = {name: getattr(found, name) for name in found.__all__ if name != "__version__"}
    names |= {
        f"{name}.{method}": getattr(value, method)
        for name, value in names.items()
        if inspect.isclass(value) and value.__module__.startswith("gru_jax")
        for method, function in vars(value).items()
        if inspect.isfunction(function) and not method.startswith("_")
    }
    assert [name for name, value in names.items() if not is_documented(value)] == []


def test_docstrings_of_parameter_tuples_have_the_shape_of_every_field():
    for kind in (vars(gru_jax)[name] for name in gru_jax.cells.__all__ if name.endswith(("Params", "State"))):
        assert [field for field in kind._fields if f"{field}: (" not in kind.__doc__] == []


def test_modules_are_imported_on_first_access():
    script = """if True:
        import sys, gru_jax
        assert "flax" not in sys.modules
        assert gru_jax.nnx.GRU and gru_jax.nnx.GRUCell
        assert gru_jax.linen.GRU and gru_jax.interop and gru_jax.export.save_weights
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_unknown_attributes_raise_attribute_error():
    assert isinstance(gru_jax.interop, ModuleType)
    with pytest.raises(AttributeError, match=r"module 'gru_jax' has no attribute 'keras'"):
        gru_jax.keras  # noqa: B018
