"""The minimal gated unit: a user-defined cell without `Adjoint` methods.

Reference: Zhou et al., "Minimal Gated Unit for Recurrent Neural Networks", 2016.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class MinimalParams(NamedTuple):
    """W (I, 2H), U (H, 2H), b (2H,): columns `[f | n]`."""

    W: Any
    U: Any
    b: Any


@dataclass(frozen=True)
class Minimal:
    """f = sigmoid(W_xf x + U_hf h + b_f);  h' = (1 - f) * h + f * tanh(W_xn x + U_hn (f * h) + b_n)."""

    def init(self, key, input_size, hidden_size, dtype=jnp.float32):
        key_W, key_U, key_b = jax.random.split(key, 3)
        return MinimalParams(
            jax.random.normal(key_W, (input_size, 2 * hidden_size), dtype),
            jax.random.normal(key_U, (hidden_size, 2 * hidden_size), dtype),
            jax.random.normal(key_b, (2 * hidden_size,), dtype),
        )

    def infer_sizes(self, params):
        return params.W.shape[0], params.U.shape[0], params.W.dtype

    def initial_state(self, hidden_size, batch_shape=(), dtype=jnp.float32):
        return jnp.zeros((*batch_shape, hidden_size), dtype)

    def project(self, params, xs, matmul_dtype=None):
        H = params.U.shape[0]
        return xs @ params.W[:, :H], xs @ params.W[:, H:]

    def step(self, params, state, gate_inputs, matmul_dtype=None):
        H = params.U.shape[0]
        b_f, b_n = (jnp.broadcast_to(b, state.shape) for b in (params.b[:H], params.b[H:]))
        f = jax.nn.sigmoid(gate_inputs[0] + state @ params.U[:, :H] + b_f)
        return (1 - f) * state + f * jnp.tanh(gate_inputs[1] + (f * state) @ params.U[:, H:] + b_n)

    def output(self, state):
        return state
