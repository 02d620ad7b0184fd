"""The library converts arrays and dicts with JAX, Flax and NumPy only. A missing package raises one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gru_jax.interop._arrays import require_package

ROOT = Path(__file__).resolve().parents[3]
PEERS = ("equinox", "haiku", "keras", "onnx", "onnxruntime", "safetensors", "torch")
ALONE = """
import importlib, pkgutil, sys
peers = sys.argv[1].split(",")
sys.modules.update(dict.fromkeys(peers))  # None: the module cannot be imported.

import gru_jax
for module in pkgutil.walk_packages(gru_jax.__path__, "gru_jax."):
    importlib.import_module(module.name)

import jax
from gru_jax import export
from gru_jax.interop import equinox, flax, haiku, keras, onnx, torch
after, before = gru_jax.GRU(reset="after"), gru_jax.GRU()
params_after, params_before = (cell.init(jax.random.key(0), 2, 3) for cell in (after, before))
for cell, read in (
    (after, torch.from_state_dict(torch.to_state_dict(after, params_after))[0]),
    (after, keras.from_weights(keras.to_weights(after, params_after))[0]),
    (after, flax.from_linen(flax.to_linen(after, params_after))[0]),
    (after, flax.from_nnx(flax.to_nnx(after, params_after))[0]),
    (before, haiku.from_params(haiku.to_params(before, params_before))[0]),
):
    assert read == cell, read
for call in (
    lambda: equinox.from_cell(None),
    lambda: equinox.to_cell(after, params_after),
    lambda: export.load_weights("w.safetensors"),
    lambda: export.save_weights("w.safetensors", after, params_after),
    lambda: onnx.from_model("w.onnx"),
    lambda: onnx.to_model(after, params_after),
    lambda: torch.from_file("w.pt"),
    lambda: torch.to_file("w.pt", after, params_after),
):
    try:
        call()
    except ImportError as error:
        print(error)
"""
LINES = """\
equinox: expected this package to read a module, got none installed: pip install equinox
equinox: expected this package to build a module, got none installed: pip install equinox
safetensors: expected this package to read weights, got none installed: pip install safetensors
safetensors: expected this package to write weights, got none installed: pip install safetensors
onnx: expected this package to read ONNX models, got none installed: pip install onnx
onnx: expected this package to write ONNX models, got none installed: pip install onnx
torch: expected this package to read .pt files, got none installed: pip install torch
torch: expected this package to write .pt files, got none installed: pip install torch
"""


def test_library_works_without_other_libraries(tmp_path):
    command = [sys.executable, "-c", ALONE, ",".join(PEERS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == LINES
    assert not list(tmp_path.iterdir())


def test_missing_dependency_of_an_installed_package_is_not_hidden():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), require_package("torch", "to read"):
        import no_such_module  # noqa: F401
