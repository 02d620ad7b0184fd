# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Your own cell and its gradient
#
# A cell is a class of about thirty lines. It then works with `unroll`, with `Stack` and in Flax modules, and its
# gradient follows from its step. This notebook writes a cell, derives its gradient by hand, and checks the derivation.
# A wrong derivation is caught.
#
# ```
# pip install '.[notebooks]'
# python docs/notebooks/your_own_cell.py
# ```

# %%
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx
from jax.test_util import check_grads

import gru_jax
from gru_jax.cells import Adjoint

# %% [markdown]
# ## The equations
#
# A leaky integrator (Jaeger et al. 2007): each unit moves a fraction $a$ of the way to its candidate $n$. Here every
# unit learns its own fraction, through $s$.
#
# $$
# u = W x + U h + b, \qquad n = \tanh(u), \qquad a = \sigma(s), \qquad h' = (1 - a) \odot h + a \odot n
# $$
#
# A unit with a small $a$ forgets slowly. Its time constant is about $1 / a$ steps.
#
# ## The cell
#
# `project` is the part that depends on the input alone; it runs for all time steps at once. `step` is the rest.


# %%
class LeakyParams(NamedTuple):
    """W (I, H), U (H, H), b (H,), s (H,)."""

    W: Any
    U: Any
    b: Any
    s: Any


@jax.tree_util.register_static
@dataclass(frozen=True)
class Leaky:
    """A leaky integrator with a time constant per unit."""

    def init(self, key, input_size, hidden_size, dtype=jnp.float32):
        key_W, key_U = jax.random.split(key)
        return LeakyParams(
            W=jax.nn.initializers.glorot_uniform()(key_W, (input_size, hidden_size), dtype),
            U=jax.nn.initializers.orthogonal()(key_U, (hidden_size, hidden_size), dtype),
            b=jnp.zeros(hidden_size, dtype),
            s=jnp.linspace(0, -4, hidden_size, dtype=dtype),  # time constants of 2 to 56 steps
        )

    def infer_sizes(self, params):
        return *params.W.shape, params.W.dtype

    def initial_state(self, hidden_size, batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, hidden_size), dtype)

    def project(self, params, xs, matmul_dtype=None):
        return xs @ params.W

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        a = jax.nn.sigmoid(params.s)
        return (1 - a) * state + a * jnp.tanh(gate_inputs + state @ params.U + params.b)

    def output(self, state):
        return state


# %% [markdown]
# It works at once, in a `Stack` and in a Flax module too. The two backends agree.

# %%
cell = Leaky()
params = cell.init(jax.random.key(0), input_size=3, hidden_size=32)
xs = jax.random.normal(jax.random.key(1), (4, 20, 3))  # (B, T, I)
ys, h_last = gru_jax.unroll(cell, params, xs)
np.testing.assert_allclose(ys, gru_jax.unroll(cell, params, xs, backend="scan")[0], atol=1e-6)

layers = gru_jax.nnx.Recurrent(cell, 3, 32, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
print(layers(xs)[0].shape)

# %% [markdown]
# ## What it does
#
# One pulse at step 5, without recurrent weights. Each unit forgets it at its own rate.

# %%
pulse = jnp.zeros((1, 60, 3)).at[:, 5].set(1.0)
response, _ = gru_jax.unroll(cell, params._replace(U=jnp.zeros_like(params.U)), pulse)
figure, axes = plt.subplots(figsize=(8, 2.6), layout="constrained")
for unit in (0, 8, 16, 24, 31):
    a, h = float(jax.nn.sigmoid(params.s[unit])), np.abs(response[0, :, unit])
    axes.plot(h / h.max(), label=f"1 / a = {1 / a:.0f} steps")
axes.set(xlabel="step", ylabel="|h|, relative to its peak")
axes.legend()
plt.show()

# %% [markdown]
# ## The gradient, derived
#
# Let $g$ be the cotangent of $h'$, that is $\partial L / \partial h'$, one value per unit. From
# $h' = (1 - a) \odot h + a \odot n$ each unit passes on
#
# $$
# \bar n = g \odot a, \qquad \bar a = g \odot (n - h), \qquad \bar h = g \odot (1 - a) + \ldots
# $$
#
# The dots stand for the path through $u$. Since $\tanh'(u) = 1 - n^2$ and $\sigma'(s) = a (1 - a)$,
#
# $$
# \bar u = g \odot c \quad \text{with} \quad c = a \odot (1 - n^2), \qquad
# \bar s = \bar a \odot a \odot (1 - a).
# $$
#
# From $u = W x + U h + b$ follow the products. Rows are examples, so $u = x W + h U + b$ in code:
#
# $$
# \bar h = g \odot (1 - a) + \bar u\, U^\top, \qquad
# \bar x = \bar u\, W^\top, \qquad
# \bar W = \sum x^\top \bar u, \qquad \bar U = \sum h^\top \bar u, \qquad \bar b = \sum \bar u.
# $$
#
# ## What belongs into the loop
#
# Only $\bar h$ must wait for the step after it. All else can be computed for many steps at once:
#
# | method | when | computes |
# | --- | --- | --- |
# | `step_with_residuals` | forward loop | $h'$, and $h U$ as the residual |
# | `linearize` | before the reverse loop, in bulk | $c$ and $n - h$ |
# | `pullback` | reverse loop | $\bar h$, and keeps $g$ |
# | `gradients` | after the reverse loop, in bulk | the gradients of parameters and inputs |
#
# The products with $U$ and $U^\top$ arrive as functions, so that a backend can choose how to store the matrix.


# %%
def total(array):
    """Returns the sum over all axes but the last."""
    return array.sum(tuple(range(array.ndim - 1)))


@jax.tree_util.register_static
@dataclass(frozen=True)
class LeakyByHand(Leaky):
    """The leaky integrator with its derived gradient."""

    def recurrent_matrices(self, params):
        return (params.U,)

    def step_with_residuals(self, params, products, state, gate_inputs):
        a, hU = jax.nn.sigmoid(params.s), products[0](state)
        return (1 - a) * state + a * jnp.tanh(gate_inputs + hU + params.b), hU

    def linearize(self, params, before, after, gate_inputs, residuals):
        n = jnp.tanh(gate_inputs + residuals + params.b)
        return jax.nn.sigmoid(params.s) * (1 - n * n), n - before

    def pullback(self, params, transposed_products, coefficients, cotangent):
        c, _ = coefficients
        kept = (1 - jax.nn.sigmoid(params.s)) * cotangent
        return kept + transposed_products[0](cotangent * c), cotangent

    def gradients(self, params, xs, before, coefficients, step_cotangents, matmul_dtype=None):
        a, (c, change) = jax.nn.sigmoid(params.s), coefficients
        u = step_cotangents * c
        gradient = LeakyParams(
            W=jnp.einsum("...i,...h->ih", xs, u),
            U=jnp.einsum("...i,...h->ih", before, u),
            b=total(u),
            s=total(step_cotangents * change) * a * (1 - a),
        )
        return gradient, u @ params.W.T


by_hand = LeakyByHand()
assert isinstance(by_hand, Adjoint)
assert not isinstance(cell, Adjoint)

# %% [markdown]
# ## Two checks
#
# Differentiation of the plain loop gives the same gradient. And so do finite differences, in double precision.


# %%
def loss(cell, params, xs, backend="auto"):
    ys, h_last = gru_jax.unroll(cell, params, xs, backend=backend)
    return (ys * jnp.cos(jnp.arange(ys.size).reshape(ys.shape))).sum() + jnp.square(h_last).sum()


fused, plain = (jax.grad(loss, (1, 2))(by_hand, params, xs, backend) for backend in ("fused", "scan"))
for name, ours, theirs in zip((*LeakyParams._fields, "xs"), [*fused[0], fused[1]], [*plain[0], plain[1]], strict=True):
    print(f"{name:2}: largest difference {jnp.abs(ours - theirs).max():.1e} of {jnp.abs(theirs).max():.1f}")
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def check(cell):
    """Compares the gradients of a cell with finite differences."""
    with jax.enable_x64(True):
        params = cell.init(jax.random.key(0), 3, 8, jnp.float64)
        xs = jax.random.normal(jax.random.key(1), (2, 6, 3), jnp.float64)
        check_grads(lambda *at: loss(cell, *at), (params, xs), order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


check(by_hand)

# %% [markdown]
# A check is worth what it catches. Here the path from $h'$ straight back to $h$ is forgotten:


# %%
@jax.tree_util.register_static
@dataclass(frozen=True)
class Forgetful(LeakyByHand):
    """A wrong derivation."""

    def pullback(self, params, transposed_products, coefficients, cotangent):
        c, _ = coefficients
        return transposed_products[0](cotangent * c), cotangent


try:
    check(Forgetful())
    caught = False
except AssertionError as error:
    caught = True
    print("caught:", next(line for line in str(error).splitlines() if "Max absolute difference" in line).strip())

# %% [markdown]
# ## What it gains
#
# Three gradients of one layer: the plain loop, the gradient that is derived from the step, and ours. Time varies with
# the machine. Without the methods above you get the second one, and often it is enough.

# %%
large = cell.init(jax.random.key(0), input_size=64, hidden_size=128)
long = jax.random.normal(jax.random.key(1), (32, 100, 64))
variants = {"plain loop": (cell, "scan"), "derived from the step": (cell, "fused"), "by hand": (by_hand, "fused")}
gradient = jax.jit(jax.grad(loss, 1), static_argnums=(0, 3))
seconds = dict.fromkeys(variants, np.inf)
for _ in range(20):
    for name, (which, backend) in variants.items():
        begin = time.perf_counter()
        jax.block_until_ready(gradient(which, large, long, backend))
        seconds[name] = min(seconds[name], time.perf_counter() - begin)
for name, least in seconds.items():
    print(f"{name:22} {1000 * least:6.1f} ms")

# %%
assert caught
