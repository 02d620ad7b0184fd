# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Recurrent PPO with resets
#
# Proximal policy optimization (PPO) with a recurrent network, in pure JAX. The environment shows a bit at the start of
# an episode and asks for it at the end. A GRU and an LSTM learn to remember the bit. A network without memory can only
# guess.
#
# A rollout is a window of fixed length over many environments. Episodes begin and end anywhere in it, so the state must
# be reset in the middle of a sequence. Other implementations write a scan of their own for that. Here it is one
# argument: `gru_jax.unroll(cell, params, xs, h0, resets=starts)`.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/recurrent_ppo.py
# ```

# %%
from functools import partial
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import gru_jax

FULL = False  # True: delays of up to 60 steps instead of 20
LONGEST_DELAY, STEPS, UPDATES = (60, 64, 400) if FULL else (20, 32, 80)
SEEDS, ENVIRONMENTS = 3, 32
HIDDEN, EPOCHS, MINIBATCHES, LEARNING_RATE = 32, 4, 4, 2e-3
DISCOUNT, TRACE, CLIP, ENTROPY, VALUE = 0.99, 0.95, 0.2, 0.01, 0.5

# %% [markdown]
# ## The environment
#
# `MemoryChain-bsuite` (Osband et al. 2020) comes from [gymnax](https://github.com/RobertTLange/gymnax). The return of
# an episode is 1 if the last action equals the bit, and -1 otherwise. Each environment has a delay of its own. So
# episodes end at different times in different rows of a rollout.

# %%
environment, defaults = gymnax.make("MemoryChain-bsuite")
delays = np.linspace(LONGEST_DELAY // 2, LONGEST_DELAY, ENVIRONMENTS).round().astype(int)
reset_environments = jax.vmap(lambda key, delay: environment.reset(key, defaults.replace(memory_length=delay)))
step_environments = jax.vmap(
    lambda key, state, action, delay: environment.step(key, state, action, defaults.replace(memory_length=delay))
)

# %% [markdown]
# ## The network
#
# An encoder, a cell, and two linear readouts: logits of the policy and the value. The same function acts, with one time
# step, and learns, with all of them.

# %%
T, B = STEPS, ENVIRONMENTS  # the axes of time and batch


class Network(NamedTuple):
    """The parameters."""

    encoder: Any
    cell: Any
    policy: Any
    value: Any


def init(cell, key, features, actions):
    """Returns the parameters of a network."""
    keys, orthogonal = jax.random.split(key, 4), jax.nn.initializers.orthogonal
    return Network(
        encoder=orthogonal()(keys[0], (features, HIDDEN)),
        cell=cell.init(keys[1], HIDDEN, HIDDEN),
        policy=orthogonal(0.01)(keys[2], (HIDDEN, actions)),  # nearly uniform at first
        value=orthogonal()(keys[3], (HIDDEN, 1)),
    )


def apply(cell, params, state, observations, starts):
    """Runs observations (T, B, I) from a state; `starts` (T, B) marks the first step of each episode.

    Returns logits (T, B, A), values (T, B) and the last state.
    """
    xs = jnp.tanh(observations @ params.encoder)
    ys, state = gru_jax.unroll(cell, params.cell, xs, state, resets=starts, time_major=True)
    return ys @ params.policy, (ys @ params.value)[..., 0], state


# %% [markdown]
# ## Boundaries, checked
#
# Two episodes in one sequence must behave as each alone. The outputs of the second episode equal those of a fresh
# start, and no gradient flows from it into the first one.

# %%
cell = gru_jax.GRU()
params = init(cell, jax.random.key(0), features=3, actions=2)
xs = jax.random.normal(jax.random.key(1), (10, 1, 3))
starts = jnp.zeros((10, 1), bool).at[6].set(True)
stale = jnp.ones((1, HIDDEN))  # a state that the second episode must not see

together, _, _ = apply(cell, params, stale, xs, starts)
alone, _, _ = apply(cell, params, jnp.zeros((1, HIDDEN)), xs[6:], starts[6:])
np.testing.assert_allclose(together[6:], alone, atol=1e-6)


def influence(starts):
    """Returns how much each observation changes the last output: (10,)."""

    def last(xs):
        return apply(cell, params, stale, xs, starts)[0][-1].sum()

    return jnp.abs(jax.grad(last)(xs)).sum((1, 2))


print("with a reset at step 6:", influence(starts).round(4))
assert (influence(starts)[:6] == 0).all()
assert (influence(starts)[6:] > 0).all()
assert (influence(jnp.zeros_like(starts)) > 0).all()

# %% [markdown]
# ## A rollout
#
# The network acts for `T` steps. It takes along its state and whether the next step starts an episode.


# %%
class Rollout(NamedTuple):
    """What happened: arrays (T, B, ...)."""

    observations: Any
    starts: Any
    actions: Any
    log_probs: Any
    values: Any
    rewards: Any
    ends: Any


class Position(NamedTuple):
    """Where the environments are between two rollouts."""

    environments: Any
    observations: Any  # (B, I)
    starts: Any  # (B,), whether the next step is the first one of an episode
    state: Any  # of the network


def log_prob(logits, actions):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), actions[..., None], -1)[..., 0]


def act(apply, params, position, key):
    """Plays T steps. Returns the position after them, and the rollout."""

    def step(position, key):
        environments, observations, starts, state = position
        logits, values, state = apply(params, state, observations[None], starts[None])
        key_action, key_step = jax.random.split(key)
        actions = jax.random.categorical(key_action, logits[0])
        after, environments, rewards, ends, _, _ = step_environments(
            jax.random.split(key_step, B), environments, actions, delays
        )
        happened = Rollout(observations, starts, actions, log_prob(logits[0], actions), values[0], rewards, ends)
        return Position(environments, after, ends, state), happened

    return jax.lax.scan(step, position, jax.random.split(key, T))


# %% [markdown]
# ## Advantages and loss
#
# Generalized advantage estimation (Schulman et al. 2016) and the clipped objective of PPO (Schulman et al. 2017).


# %%
def advantages(rollout, last_value):
    """Returns the advantages (T, B)."""

    def step(carry, at):
        advantage, next_value = carry
        value, reward, end = at
        delta = reward + DISCOUNT * next_value * ~end - value
        advantage = delta + DISCOUNT * TRACE * advantage * ~end
        return (advantage, value), advantage

    start = jnp.zeros_like(last_value), last_value
    return jax.lax.scan(step, start, (rollout.values, rollout.rewards, rollout.ends), reverse=True)[1]


def loss(params, apply, state, rollout, advantage):
    logits, values, _ = apply(params, state, rollout.observations, rollout.starts)
    ratio = jnp.exp(log_prob(logits, rollout.actions) - rollout.log_probs)
    scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    policy = -jnp.minimum(ratio * scaled, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * scaled).mean()
    value = jnp.square(values - (rollout.values + advantage)).mean()
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1).mean()
    return policy + VALUE * value - ENTROPY * entropy


# %% [markdown]
# ## Training
#
# Minibatches are whole rows of a rollout, each with the state from which it began. An update makes the state that the
# rollout ended with stale, since older parameters computed it. So the rollout is run once more with the new parameters,
# and the next one continues from that state (burn-in, Kapturowski et al. 2019).
#
# The network without memory is the same GRU with a reset at every step.

# %%
optimizer = optax.chain(
    optax.clip_by_global_norm(0.5),
    optax.adam(optax.linear_schedule(LEARNING_RATE, 0.0, UPDATES * EPOCHS * MINIBATCHES)),
)


def train(cell, forgets, key):
    """Trains a network.

    Returns, for each update, the mean return of the episodes that ended, and the largest difference between the log
    probabilities of the rollout and those of the first minibatch, which has the same parameters.
    """
    keys = jax.random.split(key, 3)
    observations, environments = reset_environments(jax.random.split(keys[0], B), delays)
    params = init(cell, keys[1], observations.shape[-1], environment.num_actions)

    def network(params, state, observations, starts):
        return apply(cell, params, state, observations, starts | forgets)

    def minibatch(carry, rows):
        params, moments, state, rollout, advantage = carry
        chosen = jax.tree.map(lambda leaf: leaf[:, rows], (rollout, advantage))
        gradient = jax.grad(loss)(params, network, jax.tree.map(lambda leaf: leaf[rows], state), *chosen)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moments, state, rollout, advantage), None

    def update(carry, key):
        params, moments, position = carry
        key_act, key_rows = jax.random.split(key)
        after, rollout = act(network, params, position, key_act)
        played = position.state, rollout.observations, rollout.starts
        difference = jnp.abs(log_prob(network(params, *played)[0], rollout.actions) - rollout.log_probs).max()

        _, last_value, _ = network(params, after.state, after.observations[None], after.starts[None])
        rows = jax.vmap(partial(jax.random.permutation, x=B))(jax.random.split(key_rows, EPOCHS))
        begin = params, moments, position.state, rollout, advantages(rollout, last_value[0])
        (params, moments, *_), _ = jax.lax.scan(minibatch, begin, rows.reshape(EPOCHS * MINIBATCHES, -1))
        after = after._replace(state=network(params, *played)[2])
        return (params, moments, after), (rollout.rewards.sum() / rollout.ends.sum(), difference)

    position = Position(environments, observations, jnp.ones(B, bool), cell.initial_state(HIDDEN, (B,)))
    begin = params, optimizer.init(params), position
    return jax.lax.scan(update, begin, jax.random.split(keys[2], UPDATES))[1]


# %% [markdown]
# All seeds train at once: `vmap` over their keys.

# %%
networks = {"GRU": (gru_jax.GRU(), False), "LSTM": (gru_jax.LSTM(), False), "no memory": (gru_jax.GRU(), True)}
train_seeds = jax.jit(jax.vmap(train, in_axes=(None, None, 0)), static_argnums=0)
returns, differences = {}, {}
for name, (cell, forgets) in networks.items():
    curves = train_seeds(cell, jnp.array(forgets), jax.random.split(jax.random.key(0), SEEDS))
    returns[name], differences[name] = map(np.asarray, curves)  # (seeds, updates)
    final = returns[name][:, -10:].mean(axis=1)
    print(f"{name:9}: return of the last 10 updates of each seed", *final.round(2))

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
steps = (1 + np.arange(UPDATES)) * STEPS * ENVIRONMENTS
for name, curve in returns.items():
    (line,) = axes.plot(steps, curve.mean(axis=0), label=name)
    axes.fill_between(steps, curve.min(axis=0), curve.max(axis=0), color=line.get_color(), alpha=0.25)
axes.set(xlabel="environment steps", ylabel="return", title=f"mean and range of {SEEDS} seeds")
axes.legend()
plt.show()

# %% [markdown]
# The recurrent networks reach the largest return, 1, with every seed. Without memory the return stays at chance, 0.
#
# The last check concerns the boundaries in training. The rollout computed its log probabilities one step at a time, the
# minibatches all steps at once, with resets. With the same parameters both are equal: the first ratio of PPO is 1.

# %%
print(f"largest difference of log probabilities: {max(values.max() for values in differences.values()):.1e}")
for name, curve in returns.items():
    assert differences[name].max() < 1e-4
    final = curve[:, -10:].mean(axis=1)
    assert (abs(final) < 0.3).all() if name == "no memory" else (final > 0.9).all(), (name, final)
