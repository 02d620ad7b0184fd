# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # From PyTorch to JAX to ONNX Runtime
#
# A GRU classifier of handwritten digits is trained in PyTorch, trained further with `gru_jax`, exported to ONNX, and
# loaded into PyTorch again. After each conversion the logits of both sides are compared.
#
# Open this file as a notebook with [Jupytext](https://jupytext.readthedocs.io), or run it as a program:
#
# ```
# pip install '.[experiments,peers]'
# python docs/notebooks/torch_to_onnx.py
# ```

# %%
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import optax
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import gru_jax
from gru_jax.interop import onnx as gru_onnx
from gru_jax.interop import torch as gru_torch

OUTPUT = pathlib.Path("runs/digits.onnx")
TORCH_EPOCHS, JAX_EPOCHS = 3, 12
HIDDEN, BATCH, LEARNING_RATE = 64, 32, 3e-3

# %% [markdown]
# ## Data
#
# Each image is a sequence of 8 rows with 8 pixels: inputs `(B, T, I) = (B, 8, 8)`, labels `(B,)`.

# %%
images, labels = load_digits(return_X_y=True)
images, labels = (images / 16).astype(np.float32).reshape(-1, 8, 8), labels.astype(np.int32)
train_xs, test_xs, train_labels, test_labels = train_test_split(
    images, labels, test_size=360, stratify=labels, random_state=0
)


def batches(epochs, seed):
    """Yields shuffled batches of the training images (B, 8, 8) and labels (B,)."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(train_xs))
        for start in range(0, len(order) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            yield train_xs[rows], train_labels[rows]


def accuracy(logits):
    """Returns the accuracy of logits (B, 10) on the test images, in percent."""
    return 100 * np.mean(np.argmax(np.asarray(logits), axis=-1) == test_labels)


# %% [markdown]
# ## Training in PyTorch


# %%
class TorchClassifier(torch.nn.Module):
    """A GRU and a linear layer on its last state."""

    def __init__(self):
        super().__init__()
        self.rnn = torch.nn.GRU(8, HIDDEN, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 10)

    def forward(self, xs):
        return self.head(self.rnn(xs)[1][0])


torch.manual_seed(0)
torch_model = TorchClassifier()
torch_optimizer = torch.optim.Adam(torch_model.parameters(), LEARNING_RATE)
for xs, ys in batches(TORCH_EPOCHS, seed=0):
    torch_loss = torch.nn.functional.cross_entropy(torch_model(torch.from_numpy(xs)), torch.from_numpy(ys).long())
    torch_optimizer.zero_grad()
    torch_loss.backward()
    torch_optimizer.step()

with torch.no_grad():
    torch_logits = torch_model(torch.from_numpy(test_xs)).numpy()
torch_accuracy = accuracy(torch_logits)
print(f"PyTorch, {TORCH_EPOCHS} epochs: test accuracy {torch_accuracy:.2f} %")

# %% [markdown]
# ## PyTorch to JAX
#
# `from_state_dict` returns a cell, here `GRU(reset="after")`, and its parameters.

# %%
cell, gru_params = gru_torch.from_state_dict(torch_model.rnn.state_dict())
W, b = (jnp.asarray(parameter.detach().numpy().T) for parameter in torch_model.head.parameters())
params = gru_params, (W, b)


def classify(params, xs):
    """Maps images (B, 8, 8) to logits (B, 10)."""
    gru_params, (W, b) = params
    _, h_last = gru_jax.unroll(cell, gru_params, xs)
    return h_last @ W + b


torch_difference = np.abs(torch_logits - classify(params, test_xs)).max()
print(f"the same weights in JAX: logits differ by at most {torch_difference:.1e}")

# %% [markdown]
# ## Training in JAX

# %%
optimizer = optax.adam(LEARNING_RATE)


def loss(params, xs, labels):
    return optax.softmax_cross_entropy_with_integer_labels(classify(params, xs), labels).mean()


@jax.jit
def train_step(params, state, xs, labels):
    updates, state = optimizer.update(jax.grad(loss)(params, xs, labels), state, params)
    return optax.apply_updates(params, updates), state


state = optimizer.init(params)
for xs, ys in batches(JAX_EPOCHS, seed=1):
    params, state = train_step(params, state, xs, ys)
logits = classify(params, test_xs)
jax_accuracy = accuracy(logits)
print(f"{JAX_EPOCHS} more epochs in JAX: test accuracy {jax_accuracy:.2f} %")

# %% [markdown]
# ## JAX to ONNX Runtime
#
# The model is one ONNX operator `GRU`. Batch size and sequence length stay open.

# %%
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
gru_onnx.to_file(OUTPUT, cell, params[0])
session = onnxruntime.InferenceSession(OUTPUT, providers=["CPUExecutionProvider"])


def classify_in_onnxruntime(xs):
    """Maps images (B, 8, 8) to logits (B, 10)."""
    h_last = np.asarray(session.run(["h_last"], {"xs": xs})[0])  # (layers * directions, B, H)
    return h_last[0] @ np.asarray(params[1][0]) + np.asarray(params[1][1])


onnx_difference = np.abs(classify_in_onnxruntime(test_xs) - logits).max()
print(f"ONNX Runtime, from {OUTPUT}: logits differ by at most {onnx_difference:.1e}")

# %% [markdown]
# ## JAX to PyTorch

# %%
torch_model.rnn.load_state_dict(
    {name: torch.from_numpy(array) for name, array in gru_torch.to_state_dict(cell, params[0]).items()}
)
torch_model.head.load_state_dict({"weight": torch.tensor(params[1][0].T), "bias": torch.tensor(params[1][1])})
with torch.no_grad():
    return_difference = np.abs(torch_model(torch.from_numpy(test_xs)).numpy() - logits).max()
print(f"back in PyTorch: logits differ by at most {return_difference:.1e}")

# %%
assert max(torch_difference, onnx_difference, return_difference) < 1e-5
assert jax_accuracy > max(90, torch_accuracy)
np.testing.assert_allclose(classify_in_onnxruntime(test_xs[:3]), logits[:3], atol=1e-5)  # any batch size
