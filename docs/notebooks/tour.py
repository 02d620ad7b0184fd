# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A tour in five minutes
#
# `gru_jax` has recurrent cells as pure functions, a fast loop over time, and Flax modules around both. This notebook
# goes from one step of a GRU to a trained model that reads a stream.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/tour.py
# ```

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import gru_jax

# %% [markdown]
# ## A cell
#
# A cell has hyperparameters and no arrays. `init` returns its parameters, a named tuple. Axes have letters: `B` batch,
# `T` time, `I` input features, `H` hidden features.

# %%
cell = gru_jax.GRU()
params = cell.init(jax.random.key(0), input_size=3, hidden_size=16)
print(cell, {name: array.shape for name, array in params._asdict().items() if array is not None})

# %% [markdown]
# A step is a pure function. The columns of `W`, `U` and `b` are the gates `[r | z | n]`:
#
# $$
# \begin{aligned}
# r &= \sigma(W_r x + U_r h + b_r) \\
# z &= \sigma(W_z x + U_z h + b_z) \\
# n &= \tanh(W_n x + U_n (r \odot h) + b_n) \\
# h' &= (1 - z) \odot h + z \odot n
# \end{aligned}
# $$

# %%
h = jnp.zeros((8, 16))  # (B, H)
x = jnp.ones((8, 3))  # (B, I)
h = gru_jax.gru_step(params, h, x)
print(h.shape)

# %% [markdown]
# ## Over time
#
# `unroll` runs a cell over a sequence. It returns the outputs of all steps and the final state.

# %%
xs = jax.random.normal(jax.random.key(1), (8, 50, 3))  # (B, T, I)
ys, h_last = gru_jax.unroll(cell, params, xs)
print(ys.shape, h_last.shape)

# %% [markdown]
# ## The gradient
#
# `jax.grad` works as usual. The gradient of a GRU is derived by hand, which is faster than differentiating the loop.
# `backend="scan"` is the plain loop, for comparison.


# %%
def energy(params, backend):
    return jnp.square(gru_jax.unroll(cell, params, xs, backend=backend)[0]).mean()


fast, plain = jax.grad(energy)(params, "fused"), jax.grad(energy)(params, "scan")
difference = max(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.abs(a - b).max(), fast, plain)))
print(f"largest difference between the two gradients: {difference:.1e}")

# %% [markdown]
# ## Layers and directions
#
# A `Stack` has several layers, one or two directions, and dropout between layers. `unroll` runs it like a cell.

# %%
stack = gru_jax.Stack(gru_jax.LSTM(), num_layers=2, bidirectional=True)
stack_params = stack.init(jax.random.key(2), input_size=3, hidden_size=16)
ys, _ = gru_jax.unroll(stack, stack_params, xs)
print(ys.shape, "both directions")

# %% [markdown]
# ## A task
#
# Noisy waves of 60 steps. The frequency rises in one half of them and falls in the other half. A model must tell which.


# %%
def waves(key, count):
    """Returns waves (B, T, 1), and labels (B,): 1 where the frequency rises."""
    key_label, key_phase, key_noise = jax.random.split(key, 3)
    labels = jax.random.bernoulli(key_label, shape=(count,)).astype(jnp.int32)
    time = jnp.linspace(0, 1, 60)[None]
    cycles = 3 * time + 1.5 * (2 * labels[:, None] - 1) * (time - 1) * time  # 1.5 to 4.5 cycles per unit, or back
    phases = jax.random.uniform(key_phase, (count, 1))
    noise = 0.5 * jax.random.normal(key_noise, cycles.shape)
    return (jnp.sin(2 * jnp.pi * (cycles + phases)) + noise)[..., None], labels


examples, example_labels = waves(jax.random.key(4), 8)
figure, panels = plt.subplots(1, 2, figsize=(8, 2), sharey=True, layout="constrained")
for label, axes in enumerate(panels):
    axes.plot(examples[example_labels == label][0, :, 0])
    axes.set(title=("falls", "rises")[label], xlabel="step")
plt.show()

# %% [markdown]
# ## A model in Flax
#
# `gru_jax.nnx.GRU` is a Flax NNX module. It returns the outputs, and the final state of each layer and direction.


# %%
class Classifier(nnx.Module):
    """A GRU and a linear readout of its last output."""

    def __init__(self, rngs):
        self.rnn = gru_jax.nnx.GRU(1, 32, rngs=rngs)
        self.readout = nnx.Linear(32, 2, rngs=rngs)

    def __call__(self, xs):
        """Maps waves (B, T, 1) to logits (B, 2)."""
        _, ((h_last,),) = self.rnn(xs)
        return self.readout(h_last)


@nnx.jit
def train_step(model, optimizer, xs, labels):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(xs), labels).mean()

    value, gradient = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradient)
    return value


model = Classifier(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
losses = [train_step(model, optimizer, *waves(jax.random.key(step), 64)) for step in range(200)]

test_xs, test_labels = waves(jax.random.key(1000), 1000)
accuracy = 100 * float((model(test_xs).argmax(-1) == test_labels).mean())
print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last; test accuracy {accuracy:.1f} %")

# %% [markdown]
# ## A stream
#
# The same parameters read one value at a time. `gru_jax.step` takes a state and returns the next one. Here the model
# states its belief after every value.

# %%
rnn = model.rnn
streamed = nnx.jit(lambda rnn, state, x: gru_jax.step(rnn.stack, rnn.parameters(), state, x))
state, beliefs = rnn.initial_state((8,)), []
for x in examples.swapaxes(0, 1):  # x (B, 1)
    y, state = streamed(rnn, state, x)
    beliefs.append(jax.nn.softmax(model.readout(y))[:, 1])
beliefs = np.stack(beliefs, axis=1)  # (B, T)

figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
for belief, label in zip(beliefs, example_labels, strict=True):
    axes.plot(belief, color=("tab:blue", "tab:orange")[int(label)])
axes.set(xlabel="step", ylabel="p(rises)", title="orange: the frequency rises; blue: it falls")
plt.show()

# %% [markdown]
# The loss was that of the last step alone, so the beliefs on the way may be wrong, and some are. After the last value
# the belief is that of the whole sequence.

# %%
whole = jax.nn.softmax(model(examples))[:, 1]
np.testing.assert_allclose(beliefs[:, -1], whole, atol=1e-5)
assert difference < 1e-6
assert accuracy > 95
