"""Matrix products with operands in a dtype of their own, forward and backward; sums and results in float32.

Left to itself, the gradient of a product of bfloat16 operands is a product of float32 ones.

Additive attention: which steps of a source a state reads.

A recurrent encoder and a recurrent decoder, with attention between them or a summary of the source alone.

References: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", 2014; Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate", 2015.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

import gru_jax
from experiments.schema import Count, require
from experiments.tasks.recurrent import RecurrentConfig, make_cell, recurrent


def product(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool = False) -> jax.Array:
    """`x w`: x (..., K), w (K, N) -> (..., N) float32, the operands cast to `dtype`.

    With `transposed` it is `x wᵀ`, w (N, K).
    """
    return _differentiable(x, w, dtype, transposed)


def _primal(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool) -> jax.Array:
    return _dot(x, w, ((x.ndim - 1,), (int(transposed),)), dtype)


def _forward(x: jax.Array, w: jax.Array, dtype: Any, transposed: bool) -> tuple[jax.Array, Any]:
    return _primal(x, w, dtype, transposed), (x, w)


def _backward(dtype: Any, transposed: bool, saved: Any, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    rows = tuple(range(x.ndim - 1))
    one, other = (g, x) if transposed else (x, g)
    return _dot(g, w, ((g.ndim - 1,), (int(not transposed),)), dtype), _dot(one, other, (rows, rows), dtype)


_differentiable = jax.custom_vjp(_primal, nondiff_argnums=(2, 3))
_differentiable.defvjp(_forward, _backward)


def _dot(a: jax.Array, b: jax.Array, contracted: Any, dtype: Any) -> jax.Array:
    operands = a.astype(dtype), b.astype(dtype)
    return lax.dot_general(*operands, (contracted, ((), ())), preferred_element_type=jnp.float32)


class Linear(nnx.Module):
    """`x W + b`, with the operands of the product in `dtype`."""

    def __init__(self, in_features: int, out_features: int, dtype: Any, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`: W by Glorot, b zero."""
        self.W = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (in_features, out_features)))
        self.b = nnx.Param(jnp.zeros((out_features,)))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., in_features) to (..., out_features)."""
        y = product(x, self.W[...], self.dtype)
        return y + jnp.broadcast_to(self.b[...], y.shape)


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


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(RecurrentConfig):
    """As `RecurrentConfig`; `num_layers` are the encoder's, the decoder has one.

    `dropout` also acts on the embeddings, on what the decoder reads of the source, and before the softmax;
    `matmul_dtype` is that of all matrix products.

    Attributes:
      attention: "additive", as in Bahdanau et al. 2015, or "none": the decoder reads the same summary of the source
        at every step, as in Cho et al. 2014.
      attention_size: A, units of the comparison of a state with the source's steps.
      embedding_size: the width of a symbol's embedding.
      bidirectional: whether the encoder reads in both directions.
      tied: whether the softmax's weights are the target's embedding.
    """

    attention: Literal["additive", "none"] = "additive"
    attention_size: Count = 256
    embedding_size: Count = 256
    bidirectional: bool = True
    tied: bool = True

    def check(self):
        super().check()
        known = self.attention == "additive" or self.attention_size == 256
        require("attention_size", known, 'the default for attention="none"', self.attention_size)


Source: TypeAlias = Memory | jax.Array
"""What the decoder reads: all of the source's steps, or a summary (B, D)."""


class EncoderDecoder(nnx.Module):
    """Source symbols (B, S) and target symbols (B, T) -> logits of each next target symbol (B, T, V).

    With annotations a_s of the source's steps by the encoder, its final states q, and y the embedding of the target
    symbol before:

        s_0 = tanh(W_q q + b_q)
        c_t = attention(s_{t-1}, a), or tanh(W_c q + b_c) at every step where there is none
        s_t = cell(s_{t-1}, [y_{t-1}, c_t])
        m_t = maxout(W_m [s_t, y_{t-1}, c_t] + b_m)
        p_t = softmax(E m_t + b)
    """

    def __init__(self, config: EncoderDecoderConfig, source_vocabulary: int, target_vocabulary: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        H, E, V = config.hidden_size, config.embedding_size, target_vocabulary
        self.config = config
        self.dtype = jnp.dtype(config.matmul_dtype)
        self.source_embedding = nnx.Embed(source_vocabulary, E, rngs=rngs)
        self.target_embedding = nnx.Embed(V, E, rngs=rngs)
        self.encoder = recurrent(config, E, rngs, config.bidirectional)
        D = self.encoder.out_features
        self.cell: Any = make_cell(config)
        self.decoder = nnx.data(jax.tree.map(nnx.Param, self.cell.init(rngs.params(), E + D, H)))
        state_parts = len(jax.tree.leaves(self.cell.initial_state(H)))
        self.start = Linear(D, state_parts * H, self.dtype, rngs)
        attends = config.attention == "additive"
        self.attention = AdditiveAttention(H, D, config.attention_size, self.dtype, rngs) if attends else None
        self.summary = None if attends else Linear(D, D, self.dtype, rngs)
        self.maxout = Linear(H + E + D, 2 * E, self.dtype, rngs)
        draw = nnx.initializers.variance_scaling(1.0, "fan_out", "normal")
        self.softmax = None if config.tied else nnx.Param(draw(rngs.params(), (V, E)))
        self.bias = nnx.Param(jnp.zeros((V,)))

    def __call__(
        self, source: jax.Array, lengths: jax.Array, inputs: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Reads a source, and a target whose next symbols are to be predicted.

        Args:
          source: (B, S) integers.
          lengths: (B,), at least 1: symbols of each source.
          inputs: (B, T) integers: the target, one step late.
          key: for dropout, consumed; None for none.

        Returns:
          logits (B, T, V).
        """
        keys = (None,) * 4 if key is None else jax.random.split(key, 4)
        read, state = self.encode(source, lengths, key=keys[0])
        ys = gru_jax.dropout(self.target_embedding(inputs), self.config.dropout, keys[1])
        hs, contexts, _ = self._unroll(read, state, ys, keys[2])
        return self._logits(hs, ys, contexts, keys[3])

    def alignment(self, source: jax.Array, lengths: jax.Array, inputs: jax.Array) -> jax.Array:
        """Returns the attention's weights α, of each target step on every source step: (B, T, S)."""
        if self.attention is None:
            raise ValueError('config.attention: expected "additive", got "none", which has no alignment')
        read, state = self.encode(source, lengths)
        return self._unroll(read, state, self.target_embedding(inputs), None)[2]

    def encode(self, source: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> tuple[Source, Any]:
        """Reads a source: returns what the decoder reads of it, and the decoder's state before the first step."""
        rate, keys = self.config.dropout, (None,) * 3 if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(self.source_embedding(source), rate, keys[0])
        annotations, final = self.encoder(xs, lengths=lengths, deterministic=keys[1] is None, rngs=keys[1])
        last = jnp.concatenate([self.cell.output(direction) for direction in final[-1]], axis=-1)
        if self.attention is not None:
            read = self.attention.memory(gru_jax.dropout(annotations, rate, keys[2]), lengths)
        else:
            assert self.summary is not None
            read = gru_jax.dropout(jnp.tanh(self.summary(last)), rate, keys[2])
        zero = self.cell.initial_state(self.config.hidden_size)
        parts = jnp.split(jnp.tanh(self.start(last)), len(jax.tree.leaves(zero)), axis=-1)
        return read, jax.tree.unflatten(jax.tree.structure(zero), parts)

    def step(self, read: Source, symbols: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Reads one target symbol of each row.

        Args:
          read: of the source, from `encode`.
          symbols: (B,) integers: the symbols before.
          state: from `encode`, or the step before.

        Returns:
          logits (B, V) of the next symbol, and the state after.
        """
        y = self.target_embedding(symbols)
        context, _ = self._context(read, state)
        params = self._decoder_parameters(None)
        drive = self.cell.project(params, jnp.concatenate([y, context], axis=-1), self.dtype)
        state = self.cell.step(params, state, drive, self.dtype)
        return self._logits(self.cell.output(state), y, context, None), state

    def _unroll(self, read: Source, state: Any, ys: jax.Array, key: jax.Array | None) -> tuple[jax.Array, ...]:
        """Runs the decoder over embeddings (B, T, E): states (B, T, H), contexts (B, T, D), weights (B, T, S)."""
        cell, E = self.cell, self.config.embedding_size
        params = self._decoder_parameters(key)
        of_y, of_context = (params._replace(W=W) for W in (params.W[:E], params.W[E:]))

        def step(state: Any, drive: Any) -> tuple[Any, tuple[jax.Array, ...]]:
            context, weights = self._context(read, state)
            drive = jax.tree.map(jnp.add, drive, cell.project(of_context, context, self.dtype))
            state = cell.step(params, state, drive, self.dtype)
            return state, (cell.output(state), context, weights)

        drives = cell.project(of_y, ys.swapaxes(0, 1), self.dtype)  # what depends on the symbols alone, at once
        _, outputs = jax.lax.scan(step, state, drives)
        return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), outputs)

    def _context(self, read: Source, state: Any) -> tuple[jax.Array, jax.Array]:
        """What the decoder reads of the source before a step: c (B, D) and α (B, S)."""
        if isinstance(read, Memory):
            assert self.attention is not None
            return self.attention(self.cell.output(state), read)
        return read, jnp.zeros((len(read), 0))

    def _logits(self, h: jax.Array, y: jax.Array, context: jax.Array, key: jax.Array | None) -> jax.Array:
        """Maps states (..., H), embeddings (..., E) and contexts (..., D) to logits (..., V)."""
        one, other = jnp.split(self.maxout(jnp.concatenate([h, y, context], axis=-1)), 2, axis=-1)
        m = gru_jax.dropout(jnp.maximum(one, other), self.config.dropout, key)
        weights = self.target_embedding.embedding if self.softmax is None else self.softmax
        logits = product(m, weights[...], self.dtype, transposed=True)
        return logits + jnp.broadcast_to(self.bias[...], logits.shape)

    def _decoder_parameters(self, key: jax.Array | None) -> Any:
        """The decoder's parameters as its cell takes them, recurrent weights dropped where there is a key."""
        params = jax.tree.map(lambda p: p[...], self.decoder, is_leaf=lambda p: isinstance(p, nnx.Variable))
        return params._replace(U=gru_jax.dropout(params.U, self.config.weight_dropout, key))
