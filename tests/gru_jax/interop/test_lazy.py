"""Converters are imported on first access, in a new process."""

import subprocess
import sys
from pathlib import Path

import pytest

import gru_jax

ROOT = Path(__file__).resolve().parents[3]
CALLS = {
    "torch": "torch.from_state_dict(interop.torch.to_state_dict(cell, params))",
    "keras": "keras.from_weights(interop.keras.to_weights(cell, params))",
    "flax": "flax.from_linen(interop.flax.to_linen(cell, params))",
    "haiku": "haiku.from_params(interop.haiku.to_params(cell, params))",
    "equinox": "equinox.from_cell(interop.equinox.to_cell(cell, params))",
    "onnx": "onnx.from_model(interop.onnx.to_model(cell, params))",
}
PROGRAM = """
import jax
import jax.numpy as jnp
{imports}
cell = gru_jax.LSTM()
params = jax.tree.map(jnp.ones_like, cell.init(jax.random.key(0), 2, 3))
interop = {interop}
read, params_read = {interop}.{call}
assert read == cell, read
assert all(bool((a == b).all()) for a, b in zip(params_read, params, strict=True))
"""
WAYS = {"gru_jax.interop": "import gru_jax", "interop": "import gru_jax\nfrom gru_jax import interop"}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("library", CALLS)
def test_converter_is_imported_on_first_access(library):
    if library in ("equinox", "onnx"):
        pytest.importorskip(library, reason=f"needs {library}: make test-peers")
    way = list(WAYS)[len(library) % 2]
    run(PROGRAM.format(imports=WAYS[way], interop=way, call=CALLS[library]))


def test_dir_lists_modules_without_importing_them():
    """Modules that are imported lazily are listed, but not imported."""
    program = """
import sys, gru_jax
print(*[name for name in dir(gru_jax) if name in ("export", "interop", "linen", "nnx", "unroll", "GRU")])
from gru_jax import interop
print(*[name for name in dir(interop) if not name.startswith("_") and name.islower()])
print(*sorted(name for name in sys.modules if name.startswith("gru_jax.interop")))
"""
    assert run(program).splitlines() == [
        "GRU export interop linen nnx unroll",
        "equinox flax haiku importlib keras onnx torch",
        "gru_jax.interop",
    ]


@pytest.mark.parametrize("module", [gru_jax, gru_jax.interop], ids=["gru_jax", "gru_jax.interop"])
@pytest.mark.parametrize("name", ["tensorflow", "__wrapped__", "_torch", "Torch", ""])
def test_unknown_name_raises_attribute_error(module, name):
    assert not hasattr(module, name)
    with pytest.raises(AttributeError, match=rf"^module '{module.__name__}' has no attribute '{name}'$"):
        getattr(module, name)
