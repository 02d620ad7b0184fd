# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Lengths, masks, resets and streaming
#
# Sequences have different lengths, batches pack several of them into a row, values are missing, and streams do not end.
# Each of these is one argument of `gru_jax.unroll`. Every section states a fact and checks it.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/lengths_masks_resets_streaming.py
# ```

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gru_jax

cell = gru_jax.GRU()
params = cell.init(jax.random.key(0), input_size=4, hidden_size=24)
T = 40
xs = jax.random.normal(jax.random.key(1), (3, T, 4))  # (B, T, I)


def show(states, title, cuts=()):
    """Draws states (T, H) over time, with vertical lines at `cuts`."""
    _, axes = plt.subplots(figsize=(8, 2), layout="constrained")
    axes.imshow(np.asarray(states).T, aspect="auto", cmap="RdBu", vmin=-1, vmax=1, interpolation="nearest")
    for cut in cuts:
        axes.axvline(cut - 0.5, color="black", linewidth=1)
    axes.set(xlabel="step", ylabel="unit", title=title)
    plt.show()


# %% [markdown]
# ## Lengths
#
# A batch is padded to its longest sequence, and `lengths` says how long each one is. Past its length a sequence has
# outputs of zero, and `h_last` is the state after its last real step.

# %%
lengths = jnp.array([40, 25, 10])
ys, h_last = gru_jax.unroll(cell, params, xs, lengths=lengths)
show(ys[1], "a sequence of 25 steps in a batch of 40", cuts=(25,))

for row, length in enumerate(lengths):
    alone, h_alone = gru_jax.unroll(cell, params, xs[row, :length])
    np.testing.assert_allclose(ys[row, :length], alone, atol=1e-6)
    np.testing.assert_allclose(h_last[row], h_alone, atol=1e-6)
    assert (ys[row, length:] == 0).all()

# %% [markdown]
# What the padding holds does not matter, for values and for gradients.

# %%
padding = jnp.arange(T) >= lengths[:, None]
junk = jnp.where(padding[..., None], 1e6, xs)


def loss(params, xs):
    ys, h_last = gru_jax.unroll(cell, params, xs, lengths=lengths)
    return jnp.square(ys).sum() + h_last.sum()


for clean, dirty in zip(jax.grad(loss)(params, xs), jax.grad(loss)(params, junk), strict=True):
    np.testing.assert_array_equal(clean, dirty)

# %% [markdown]
# With `reverse=True`, and in the backward direction of a `Stack`, each sequence starts at its own last step, not in the
# padding.

# %%
backward, _ = gru_jax.unroll(cell, params, xs, lengths=lengths, reverse=True)
alone, _ = gru_jax.unroll(cell, params, xs[1, :25], reverse=True)
np.testing.assert_allclose(backward[1, :25], alone, atol=1e-6)

# %% [markdown]
# ## Masks
#
# Some steps have no observation, and nobody knows what stands there. `mask` is false at these steps: the state is held,
# and the output is that of the held state. The rest is as if they were not there.

# %%
observed = jax.random.bernoulli(jax.random.key(2), 0.5, (T,))
with_gaps = jnp.where(observed[:, None], xs[0], jnp.nan)
held, _ = gru_jax.unroll(cell, params, with_gaps, mask=observed)
show(held, "half of the steps are missing")

dense, _ = gru_jax.unroll(cell, params, xs[0][observed])
np.testing.assert_allclose(held[observed], dense, atol=1e-6)

# %% [markdown]
# When time passes between two observations, the state may fade. `decay` multiplies it before each step, here by
# $e^{-\Delta / 5}$ for a time $\Delta$ since the last observation. A decay of 0 is a reset.

# %%
times = jnp.flatnonzero(observed)
fade = jnp.exp(-jnp.diff(times, prepend=times[:1]) / 5)[:, None]  # (T, 1), the same factor for each unit
faded, _ = gru_jax.unroll(cell, params, xs[0][observed], decay=fade)
assert jnp.linalg.norm(faded) < jnp.linalg.norm(dense)

start = jnp.zeros(T, bool).at[10].set(True)
by_decay, _ = gru_jax.unroll(cell, params, xs[0], decay=jnp.where(start, 0.0, 1.0)[:, None])
by_reset, _ = gru_jax.unroll(cell, params, xs[0], resets=start)
np.testing.assert_allclose(by_decay, by_reset, atol=1e-6)

# %% [markdown]
# ## Resets
#
# Three sequences of 40, 25 and 10 steps fill a padded batch to 62 %. Packed into one row they fill it completely.
# `resets` marks the first step of each. The state before it is fresh, so nothing leaks from one sequence to the next.

# %%
packed = jnp.concatenate([xs[row, :length] for row, length in enumerate(lengths)])  # (75, I)
first = jnp.array([0, 40, 65])
resets = jnp.isin(jnp.arange(75), first)
packed_ys, _ = gru_jax.unroll(cell, params, packed, resets=resets)
show(packed_ys, "three sequences in one row", cuts=(40, 65))

for row, (start, length) in enumerate(zip(first, lengths, strict=True)):
    np.testing.assert_allclose(packed_ys[start : start + length], ys[row, :length], atol=1e-6)

# %% [markdown]
# `reset_state` is the state that a sequence starts from. It can be learned, since it has a gradient.

# %%
learned = 0.5 * jnp.ones(24)
influence = jax.grad(
    lambda state: gru_jax.unroll(cell, params, packed, resets=resets, reset_state=state)[0][first].sum()
)(learned)
assert (influence != 0).all()

# %% [markdown]
# ## Streaming
#
# A stream arrives in chunks. The final state of one chunk is the initial state of the next one. The outputs equal those
# of one pass over everything.

# %%
stream = jax.random.normal(jax.random.key(4), (1, 60, 4))
whole, _ = gru_jax.unroll(cell, params, stream)

state, chunks = None, []
for start in range(0, 60, 20):
    ys, state = gru_jax.unroll(cell, params, stream[:, start : start + 20], state)
    chunks.append(ys)
np.testing.assert_allclose(jnp.concatenate(chunks, axis=1), whole, atol=1e-6)

# %% [markdown]
# For one value at a time there is `gru_jax.step`. It works for stacks as well.

# %%
stack = gru_jax.Stack(gru_jax.LSTM(), num_layers=2)
stack_params = stack.init(jax.random.key(3), input_size=4, hidden_size=24)
whole, _ = gru_jax.unroll(stack, stack_params, stream)

next_output = jax.jit(lambda params, state, x: gru_jax.step(stack, params, state, x))
state, outputs = stack.initial_state(24, batch_shape=(1,)), []
for x in stream.swapaxes(0, 1):  # x (B, I)
    y, state = next_output(stack_params, state, x)
    outputs.append(y)
np.testing.assert_allclose(jnp.stack(outputs, axis=1), whole, atol=1e-6)

# %% [markdown]
# ## Stateful training
#
# A long text is trained on in windows, and the state is carried from window to window. The gradient stops between them
# (truncated backpropagation through time), since the state enters as an argument that is not differentiated. Where a
# new document begins in a window, `resets` drops the carried state.


# %%
@jax.jit
def train_step(params, state, xs, targets, resets):
    """Returns new parameters, the state for the next window, and the loss."""

    def loss(params):
        ys, after = gru_jax.unroll(cell, params, xs, state, resets=resets)
        return jnp.square(ys[..., 0] - targets).mean(), after

    (value, after), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), after, value


# %% [markdown]
# The task: output, on a scale of 0.5, the sign that the first input of the document had. Documents begin anywhere in a
# window and last for several. So most windows know the sign from the carried state alone.


# %%
def documents(seed, windows, count=64, length=10):
    """Yields inputs (B, T, 4), targets (B, T) and resets (B, T) of consecutive windows."""
    rng = np.random.default_rng(seed)
    signs = np.zeros((count, 1), np.float32)  # of the current documents; 0 before the first one
    for _ in range(windows):
        inputs = np.zeros((count, length, 4), np.float32)
        targets, resets = np.repeat(0.5 * signs, length, axis=1), np.zeros((count, length), bool)
        for row in np.flatnonzero(rng.random(count) < 0.4):
            start, signs[row] = rng.integers(length), rng.choice([-1, 1])
            inputs[row, start, 0] = signs[row, 0]
            targets[row, start:] = 0.5 * signs[row]
            resets[row, start] = True
        yield inputs, targets, resets


trained, state = params, cell.initial_state(24, (64,))
for inputs, targets, begins in documents(0, windows=400):
    trained, state, _ = train_step(trained, state, inputs, targets, begins)

# %% [markdown]
# A state that starts at zero in each window is the comparison.

# %%
zeros = cell.initial_state(24, (64,))
state, carried, forgotten = zeros, [], []
for inputs, targets, begins in documents(1, windows=50):
    forgotten.append(train_step(trained, zeros, inputs, targets, begins)[2])
    _, state, error = train_step(trained, state, inputs, targets, begins)
    carried.append(error)
carried, forgotten = np.mean(carried), np.mean(forgotten)
print(f"mean squared error: {carried:.3f} with the carried state, {forgotten:.3f} without")

# %%
assert carried < 0.02
assert forgotten > 5 * carried
