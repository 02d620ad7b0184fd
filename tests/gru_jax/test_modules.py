"""The package's modules are its attributes, and are imported when they are first named."""

import subprocess
import sys

import pytest

import gru_jax


def test_modules_need_no_import_of_their_own():
    script = """if True:
        import sys, gru_jax
        assert "flax" not in sys.modules
        assert gru_jax.nnx.GRU and gru_jax.nnx.GRUCell
        assert gru_jax.linen.GRU and gru_jax.interop and gru_jax.export.save_weights
    """
    subprocess.run([sys.executable, "-c", script], check=True)


def test_another_name_is_an_error():
    with pytest.raises(AttributeError, match=r"module 'gru_jax' has no attribute 'keras'"):
        gru_jax.keras  # noqa: B018
