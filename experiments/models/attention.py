"""Additive attention: which steps of a source a state reads."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from experiments.models.products import Linear, product


class Memory(NamedTuple):
    """A source, as attention reads it. S: source steps.

    Attributes:
      annotations: (B, S, D), what is read.
      keys: (B, S, A), what a state is compared with.
      present: (B, S) bool, False past a source's end.
    """

    annotations: jax.Array
    keys: jax.Array
    present: jax.Array


class AdditiveAttention(nnx.Module):
    """A state's mean over annotations, weighted by how well each fits it:

        e_s = vᵀ tanh(W h + U a_s + b)
        α   = softmax(e)
        c   = Σ_s α_s a_s

    Reference: Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate", 2015.
    """

    def __init__(self, state_size: int, annotation_size: int, size: int, dtype: Any, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`.

        Args:
          state_size: H.
          annotation_size: D.
          size: A, units of the comparison.
          dtype: of the operands of matrix products.
          rngs: with a stream `params`.
        """
        draw = nnx.initializers.glorot_uniform()
        self.W = nnx.Param(draw(rngs.params(), (state_size, size)))
        self.key = Linear(annotation_size, size, dtype, rngs)  # U and b
        self.v = nnx.Param(draw(rngs.params(), (size, 1)))
        self.dtype = dtype

    def memory(self, annotations: jax.Array, lengths: jax.Array) -> Memory:
        """Prepares sources: what does not depend on the state is worked out once.

        Args:
          annotations: (B, S, D).
          lengths: (B,), at least 1: steps of each source.
        """
        present = jnp.arange(annotations.shape[1])[None] < lengths[:, None]
        return Memory(annotations, self.key(annotations), present)

    def __call__(self, h: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """Reads: h (B, H) -> c (B, D) and α (B, S)."""
        query = product(h, self.W[...], self.dtype)
        compared = jnp.tanh(query[:, None] + memory.keys)
        energies = jnp.matmul(compared, self.v[...])[..., 0]
        weights = jax.nn.softmax(jnp.where(memory.present, energies, -jnp.inf), axis=-1)
        return (weights[..., None] * memory.annotations).sum(axis=1), weights
