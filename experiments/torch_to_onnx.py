"""A GRU trained in PyTorch goes on training here and runs in ONNX Runtime; each hand-over prints its agreement.

    python -m experiments.torch_to_onnx --output=runs/digits.onnx

Handwritten digits, row by row: 8 steps of 8 pixels. Needs PyTorch, ONNX and ONNX Runtime: pip install '.[peers]'.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import gru_jax
from experiments.runner import cli
from experiments.tasks.images.digits import CLASSES, load_splits
from gru_jax.interop import onnx as gru_onnx
from gru_jax.interop import torch as gru_torch
from gru_jax.interop.packages import needing

with needing("torch", "to train the GRU that is taken over"):
    import torch
with needing("onnxruntime", "to run the GRU that is handed over"):
    import onnxruntime

OUTPUT = flags.DEFINE_string("output", "runs/digits.onnx", "The ONNX file to write.")
TORCH_EPOCHS = flags.DEFINE_integer("torch_epochs", 3, "How long PyTorch trains.", lower_bound=1)
EPOCHS = flags.DEFINE_integer("epochs", 12, "How long training goes on here.", lower_bound=1)

PIXELS, HIDDEN, BATCH, LEARNING_RATE = 8, 64, 32, 3e-3


class Differences(NamedTuple):
    """The largest differences between logits of the same weights, on the validation split."""

    torch_to_here: float
    here_to_onnx: float
    here_to_torch: float


def main(arguments: Sequence[str]) -> None:
    """Trains, hands over twice, and prints what agrees."""
    del arguments
    output = pathlib.Path(OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    hand_over(TORCH_EPOCHS.value, EPOCHS.value, output)


def hand_over(torch_epochs: int, epochs: int, output: pathlib.Path) -> Differences:
    """PyTorch, here, ONNX Runtime, and back to PyTorch."""
    xs, labels = load_splits()["validation"]
    test_xs, test_labels = load_splits()["test"]

    theirs = train_in_torch(torch_epochs)
    logits_torch = run_in_torch(theirs, xs)
    say(f"PyTorch, {torch_epochs} epochs", f"validation {accuracy(logits_torch, labels)}")

    cell, gru_params = gru_torch.from_state_dict(theirs.state_dict(), prefix="rnn.")
    head = tuple(jnp.asarray(theirs.head.get_parameter(name).detach().numpy().T) for name in ("weight", "bias"))
    params = (gru_params, head)
    logits = classify(cell, params, xs)
    taken = difference(logits_torch, logits)
    say("the same weights here", f"validation {accuracy(logits, labels)}, logits within {taken:.1e}")

    params = go_on_training(cell, params, epochs)
    logits = classify(cell, params, xs)
    say(f"{epochs} epochs more, here", f"validation {accuracy(logits, labels)}")

    gru_onnx.to_file(output, cell, params[0])
    given = difference(logits, run_in_onnxruntime(output, params[1], xs))
    tested = run_in_onnxruntime(output, params[1], test_xs)
    say("ONNX Runtime", f"test {accuracy(tested, test_labels)}, logits within {given:.1e}, from {output}")

    for name, array in gru_torch.to_state_dict(cell, params[0], prefix="rnn.").items():
        theirs.get_parameter(name).data = torch.from_numpy(array)
    for name, array in zip(("weight", "bias"), params[1], strict=True):
        theirs.head.get_parameter(name).data = torch.tensor(np.asarray(array).T)
    returned = difference(logits, run_in_torch(theirs, xs))
    say("back in PyTorch", f"logits within {returned:.1e}")
    return Differences(taken, given, returned)


class TorchClassifier(torch.nn.Module):
    """A GRU and a linear layer on its last state."""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(PIXELS, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, CLASSES)

    def forward(self, xs: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(xs)[1][0])


def train_in_torch(epochs: int) -> TorchClassifier:
    """Trains from nothing with Adam."""
    torch.manual_seed(0)
    model = TorchClassifier()
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    for xs, labels in batches(epochs, seed=0):
        loss = torch.nn.functional.cross_entropy(model(torch.from_numpy(xs)), torch.from_numpy(labels).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def go_on_training(cell: Any, params: Any, epochs: int) -> Any:
    """Trains on with Adam, from the weights given."""
    optimizer = optax.adam(LEARNING_RATE)

    @jax.jit
    def step(params, state, xs, labels):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(classify(cell, params, xs), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for xs, labels in batches(epochs, seed=1):
        params, state = step(params, state, xs, labels)
    return params


def classify(cell: Any, params: Any, xs: Any) -> jax.Array:
    """Maps images (B, 8, 8) to logits (B, 10)."""
    gru_params, (W, b) = params
    _, h_last = gru_jax.unroll(cell, gru_params, jnp.asarray(xs))
    return h_last @ W + b


def run_in_torch(model: TorchClassifier, xs: np.ndarray) -> np.ndarray:
    """Logits by PyTorch."""
    with torch.no_grad():
        return model(torch.from_numpy(xs)).numpy()


def run_in_onnxruntime(path: pathlib.Path, head: Any, xs: np.ndarray) -> np.ndarray:
    """Logits by ONNX Runtime, for any number of images; the linear layer is one product."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    h_last = np.asarray(session.run(["h_last"], {"xs": xs})[0])  # (layers and directions, B, H)
    return h_last[0] @ np.asarray(head[0]) + np.asarray(head[1])


def batches(epochs: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training images (B, 8, 8) and labels (B,), in another order each epoch."""
    images, labels = load_splits()["train"]
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(labels))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield images[rows], labels[rows]


def difference(one: Any, other: Any) -> float:
    return float(np.abs(np.asarray(one) - np.asarray(other)).max())


def accuracy(logits: Any, labels: np.ndarray) -> str:
    return f"accuracy {100 * np.mean(np.argmax(np.asarray(logits), axis=-1) == labels):.2f} %"


def say(what: str, result: str) -> None:
    print(f"{what:<24}{result}", flush=True)


if __name__ == "__main__":
    cli.run(main)
