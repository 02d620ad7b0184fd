# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # What gates remember
#
# Why does a GRU learn what an Elman network does not? This notebook trains both, and an LSTM, on the adding problem. It
# measures how far gradients reach before and after training, and then looks at the gates at work. The studies of
# `experiments.studies` do the same at full size.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/what_gates_remember.py
# ```

# %%
from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gru_jax

LENGTH, HIDDEN, BATCH, STEPS = 50, 48, 32, 700

# %% [markdown]
# ## The adding problem
#
# Each step has a number from 0 to 1 and a mark (Hochreiter and Schmidhuber 1997). One step of each half is marked. The
# target is the sum of the two marked numbers. Always answering 1 has a mean squared error of 1/6.


# %%
def draw(key, count):
    """Returns sequences (B, T, 2) of numbers and marks, and their targets (B,)."""
    key_numbers, key_first, key_second = jax.random.split(key, 3)
    numbers = jax.random.uniform(key_numbers, (count, LENGTH))
    first = jax.random.randint(key_first, (count, 1), 0, LENGTH // 2)
    second = jax.random.randint(key_second, (count, 1), LENGTH // 2, LENGTH)
    marks = ((jnp.arange(LENGTH) == first) | (jnp.arange(LENGTH) == second)).astype(jnp.float32)
    return jnp.stack([numbers, marks], axis=-1), (numbers * marks).sum(axis=1)


# %% [markdown]
# ## Training
#
# Three cells, each with a linear readout of the last state. The LSTM's initial biases fit the length of the sequences
# (chrono initialization, Tallec and Ollivier 2018); with its default ones it needs about twice as many steps.

# %%
cells = {
    "GRU": gru_jax.GRU(),
    "LSTM": gru_jax.LSTM(b_init="chrono", longest_delay=LENGTH),
    "Elman": gru_jax.Elman(),
}
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))


def init(cell, key):
    key_cell, key_readout = jax.random.split(key)
    return cell.init(key_cell, 2, HIDDEN), jax.random.normal(key_readout, (HIDDEN,)) / HIDDEN**0.5


def loss(cell, model, key):
    params, readout = model
    xs, targets = draw(key, BATCH)
    ys, _ = gru_jax.unroll(cell, params, xs)
    return jnp.square(ys[:, -1] @ readout - targets).mean()


@partial(jax.jit, static_argnums=0)
def train(cell, model, keys):
    """Takes a step per key. Returns the trained model and the losses."""

    def step(carry, key):
        model, moments = carry
        value, gradient = jax.value_and_grad(partial(loss, cell))(model, key)
        updates, moments = optimizer.update(gradient, moments)
        return (optax.apply_updates(model, updates), moments), value

    (model, _), losses = jax.lax.scan(step, (model, optimizer.init(model)), keys)
    return model, losses


fresh = {name: init(cell, jax.random.key(0)) for name, cell in cells.items()}
keys = jax.random.split(jax.random.key(1), STEPS)
trained, losses = {}, {}
for name, cell in cells.items():
    trained[name], losses[name] = train(cell, fresh[name], keys)

figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for name, values in losses.items():
    axes.plot(np.convolve(values, np.ones(20) / 20, "valid"), label=name)
    print(f"{name:5}: mean squared error of the last 50 steps {values[-50:].mean():.4f}")
axes.axhline(1 / 6, color="gray", linestyle="--", label="always 1")
axes.set(xlabel="step", ylabel="mean squared error", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# ## How far the gradient reaches
#
# The Jacobian $\partial s_T / \partial s_t$ of the last state with respect to an earlier one is a product of a Jacobian
# per step. Its largest singular value bounds what an error at the end can teach about a step that lies $T - t$ steps
# back. For the LSTM the state is the pair $h$ and $c$.


# %%
@partial(jax.jit, static_argnums=0)
def reach(cell, params, xs):
    """Returns the largest singular value of ds_T / ds_t for the lags T - t = 1 ... T of a sequence (T, I)."""
    start, unravel = jax.flatten_util.ravel_pytree(cell.initial_state(HIDDEN))

    def step(flat, x):
        _, state = gru_jax.step(cell, params, unravel(flat), x)
        return jax.flatten_util.ravel_pytree(state)[0]

    def extend(product, jacobian):
        return product @ jacobian, jnp.linalg.norm(product @ jacobian, 2)

    _, jacobians = jax.lax.scan(lambda flat, x: (step(flat, x), jax.jacobian(step)(flat, x)), start, xs)
    return jax.lax.scan(extend, jnp.eye(start.size), jacobians, reverse=True)[1][::-1]


(example, *_), _ = draw(jax.random.key(2), 4)
figure, panels = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
far = {}
for (name, cell), axes in zip(cells.items(), panels, strict=True):
    before, after = (np.asarray(reach(cell, models[name][0], example)) for models in (fresh, trained))
    far[name] = before[-1], after[-1]
    axes.plot(before, label="before training")
    axes.plot(after, label="after")
    axes.set(title=name, xlabel="lag", yscale="log", ylim=(1e-8, 1e2))
    print(f"{name:5}: over {LENGTH} steps {before[-1]:.1e} before training, {after[-1]:.1e} after")
panels[0].set_ylabel("norm of the Jacobian")
panels[0].legend()
plt.show()

# %% [markdown]
# ## The gates at work
#
# The update gate $z$ of the GRU says how much of a unit is written anew: 0 keeps, 1 overwrites. Its values follow from
# the states and inputs.

# %%
params, _ = trained["GRU"]
xs, targets = draw(jax.random.key(3), 200)
hs, _ = gru_jax.unroll(cells["GRU"], params, xs)
before = jnp.pad(hs, ((0, 0), (1, 0), (0, 0)))[:, :-1]  # the state before each step
z = jax.nn.sigmoid((xs @ params.W + before @ params.U + params.b)[..., HIDDEN : 2 * HIDDEN])
marks = np.asarray(xs[..., 1] == 1)
order = np.argsort(z[:, 10:].mean(axis=(0, 1)))  # units that keep their values are first

figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 4), sharex=True, layout="constrained")
top.imshow(z[0].T[order], aspect="auto", interpolation="nearest", vmin=0, vmax=1)
bottom.imshow(hs[0].T[order], aspect="auto", interpolation="nearest", vmin=-1, vmax=1, cmap="RdBu")
top.set(title="update gates: blue keeps, yellow overwrites", ylabel="unit")
bottom.set(title="states", xlabel="step; the dotted lines are the marked ones", ylabel="unit")
for mark in np.flatnonzero(marks[0]):
    top.axvline(mark, color="white", linestyle=":")
    bottom.axvline(mark, color="black", linestyle=":")
plt.show()

# %% [markdown]
# The upper units are slow: their gates are nearly closed. The lower ones are fast and overwrite themselves at every
# step. What happens around a marked step, on average over 200 sequences?


# %%
def around(values, units, offsets=range(-3, 7)):
    """Returns the mean of values (B, T, H) over some units at the steps `offsets` after a marked one."""
    rows, steps = np.nonzero(marks)
    means = []
    for offset in offsets:
        inside = (steps + offset > 10) & (steps + offset < LENGTH)
        means.append(values[rows[inside], steps[inside] + offset][:, units].mean())
    return np.array(means)


slow, fast = order[: HIDDEN // 4], order[-HIDDEN // 4 :]
figure, panels = plt.subplots(1, 2, figsize=(8, 2.6), layout="constrained")
for axes, values, title in ((panels[0], z, "update gate"), (panels[1], jnp.abs(hs - before), "change of the state")):
    for units, label in ((slow, "slow units"), (fast, "fast units")):
        axes.plot(range(-3, 7), around(values, units), marker="o", label=label)
    axes.set(title=title, xlabel="steps after a marked one")
panels[0].legend()
plt.show()

# %% [markdown]
# The fast units take up the number where it is marked. The slow ones open then, or a step later, and store it. Then
# they close again, and later numbers hardly reach them.

# %%
gates, changes = around(z, slow), around(jnp.abs(hs - before), slow)
print(f"slow units before a mark: z = {gates[:3].mean():.3f}, change {changes[:3].mean():.3f}")
print(f"slow units at a mark and one step later: z = {gates[3:5].max():.3f}, change {changes[3:5].max():.3f}")

# %%
assert losses["GRU"][-50:].mean() < 0.02
assert losses["LSTM"][-50:].mean() < 0.02
assert losses["Elman"][-50:].mean() > 0.1
assert far["GRU"][1] > 1000 * far["GRU"][0]
assert gates[3:5].max() > 1.2 * gates[:3].mean()
assert changes[3:5].max() > 4 * changes[:3].mean()
