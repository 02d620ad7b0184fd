"""Runs the notebook docs/notebooks/torch_to_onnx.py and compares the logits after every conversion."""

import pathlib
import runpy

import jax
import numpy as np
import pytest

NOTEBOOK = pathlib.Path(__file__).parents[2] / "docs" / "notebooks" / "torch_to_onnx.py"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Runs the notebook in a temporary folder and returns its variables."""
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}: make test-peers")
    import torch

    torch.set_num_threads(1)  # PyTorch threads wait for each other if tests run in parallel.
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        folder = tmp_path_factory.mktemp("notebook")
        patch.chdir(folder)
        variables = runpy.run_path(str(NOTEBOOK))
    assert (folder / variables["OUTPUT"]).is_file()
    return variables


@pytest.mark.parametrize("name", ["torch_difference", "onnx_difference", "return_difference"])
def test_every_conversion_keeps_the_logits(notebook, name):
    assert notebook[name] < 1e-5


def test_training_in_jax_improves_the_weights_from_pytorch(notebook):
    assert notebook["jax_accuracy"] > max(90, notebook["torch_accuracy"])


def test_exported_model_accepts_any_batch_size(notebook):
    images = notebook["test_xs"][:3]
    expected = notebook["classify"](notebook["params"], images)
    np.testing.assert_allclose(notebook["classify_in_onnxruntime"](images), expected, atol=1e-5)
