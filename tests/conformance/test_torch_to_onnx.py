"""The example that takes a GRU from PyTorch to ONNX Runtime: every hand-over keeps the numbers, at any batch size."""

import numpy as np
import pytest

from gru_jax.interop.onnx import from_model
from gru_jax.interop.torch import from_state_dict


@pytest.fixture
def example():
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package, reason=f"needs {package}: make test-peers")
    from experiments import torch_to_onnx

    torch_to_onnx.torch.set_num_threads(1)  # Its threads wait for each other where tests run side by side.
    return torch_to_onnx


def test_every_hand_over_agrees(example, tmp_path, capsys):
    output = tmp_path / "digits.onnx"
    differences = example.hand_over(torch_epochs=1, epochs=1, output=output)
    assert max(differences) < 1e-5
    names = [line[:24].strip() for line in capsys.readouterr().out.splitlines()]
    assert names == [
        "PyTorch, 1 epochs",
        "the same weights here",
        "1 epochs more, here",
        "ONNX Runtime",
        "back in PyTorch",
    ]
    cell, params = from_model(output)
    head = (np.zeros((example.HIDDEN, 10), np.float32), np.arange(10, dtype=np.float32))
    logits = example.run_in_onnxruntime(output, head, np.zeros((3, 8, 8), np.float32))
    np.testing.assert_array_equal(logits, np.tile(head[1], (3, 1)))
    ours = example.classify(cell, (params, head), np.zeros((3, 8, 8), np.float32))
    np.testing.assert_array_equal(ours, logits)


def test_training_here_lowers_the_loss_of_weights_from_pytorch(example):
    theirs = example.TorchClassifier()
    cell, params = from_state_dict(theirs.state_dict(), prefix="rnn.")
    head = tuple(parameter.detach().numpy().T for parameter in theirs.head.parameters())
    xs, labels = next(example.batches(1, seed=2))

    def loss(params):
        logits = np.asarray(example.classify(cell, params, xs), np.float64)
        return float((np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels]).mean())

    before = (params, head)
    assert loss(example.go_on_training(cell, before, 1)) < 0.8 * loss(before)
