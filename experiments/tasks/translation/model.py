"""A recurrent encoder-decoder, with additive attention or with a fixed summary of the source.

In order: attention, the encoder-decoder.

References: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation", 2014; Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate", 2015.
"""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax
from experiments.schema import Count, require
from experiments.tasks.precision import product
from experiments.tasks.recurrent import RecurrentConfig, make_cell, recurrent


class Linear(nnx.Module):
    """`x W + b`, with the operands of the matmul in `dtype`."""

    def __init__(self, in_features: int, out_features: int, dtype: Any, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`: W Glorot uniform, b zero."""
        self.W = nnx.Param(nnx.initializers.glorot_uniform()(rngs.params(), (in_features, out_features)))
        self.b = nnx.Param(jnp.zeros((out_features,)))
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x (..., in_features) to (..., out_features)."""
        y = product(x, self.W[...], self.dtype)
        return y + jnp.broadcast_to(self.b[...], y.shape)


class Memory(NamedTuple):
    """An encoded source of S steps.

    Attributes:
      annotations: (B, S, D), the encoder's outputs.
      keys: (B, S, A), the projected annotations.
      mask: (B, S) bool, False for padding.
    """

    annotations: jax.Array
    keys: jax.Array
    mask: jax.Array


class AdditiveAttention(nnx.Module):
    """The mean of the annotations a_s, weighted by their fit to the state h:

        e_s = vᵀ tanh(W h + U a_s + b)
        α   = softmax(e)
        c   = Σ_s α_s a_s

    Reference: Bahdanau et al., "Neural Machine Translation by Jointly Learning to Align and Translate", 2015.
    """

    def __init__(self, state_size: int, annotation_size: int, size: int, dtype: Any, rngs: nnx.Rngs):
        """Initializes the parameters.

        Args:
          state_size: H.
          annotation_size: D.
          size: A, the hidden units.
          dtype: of the operands of matmuls.
          rngs: the "params" stream initializes the parameters.
        """
        init = nnx.initializers.glorot_uniform()
        self.W = nnx.Param(init(rngs.params(), (state_size, size)))
        self.key = Linear(annotation_size, size, dtype, rngs)  # U and b
        self.v = nnx.Param(init(rngs.params(), (size, 1)))
        self.dtype = dtype

    def memory(self, annotations: jax.Array, lengths: jax.Array) -> Memory:
        """Returns the part of the computation that does not depend on the state.

        Args:
          annotations: (B, S, D).
          lengths: (B,) int, the steps of each source, at least 1.
        """
        mask = jnp.arange(annotations.shape[1])[None] < lengths[:, None]
        return Memory(annotations, self.key(annotations), mask)

    def __call__(self, h: jax.Array, memory: Memory) -> tuple[jax.Array, jax.Array]:
        """Returns the context c (B, D) and the weights α (B, S) of states h (B, H)."""
        query = product(h, self.W[...], self.dtype)
        hidden = jnp.tanh(query[:, None] + memory.keys)
        energies = jnp.matmul(hidden, self.v[...])[..., 0]
        weights = jax.nn.softmax(jnp.where(memory.mask, energies, -jnp.inf), axis=-1)
        return (weights[..., None] * memory.annotations).sum(axis=1), weights


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig(RecurrentConfig):
    """Extends `RecurrentConfig`. `num_layers` is the encoder's; the decoder has one layer.

    `dropout` also acts on the embeddings, on the encoded source, and before the softmax. `matmul_dtype` holds for all
    matmuls, `zoneout` for the encoder.

    Attributes:
      attention: "additive", as in Bahdanau et al. 2015; or "none", the decoder gets the same summary of the source
        at every step, as in Cho et al. 2014.
      attention_size: A, hidden units of the attention.
      embedding_size: E, the width of the embeddings.
      bidirectional: whether the encoder reads in both directions.
      tied: whether the softmax shares the weights of the target embedding.
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
        # The decoder's cell has two inputs, each with rows of W, and its output is read from its state.
        cell, inputs = make_cell(self), self.hidden_size + 1
        params = jax.eval_shape(lambda: cell.init(jax.random.key(0), inputs, self.hidden_size))
        plain = hasattr(params, "W") and params.W.shape[0] == inputs and not isinstance(cell, gru_jax.Readout)
        require("cell", plain, "a cell with input weights W, whose output is part of its state", self.cell)


Source: TypeAlias = Memory | jax.Array
"""An encoded source: all steps for attention, or a summary (B, D)."""


class EncoderDecoder(nnx.Module):
    """Maps source symbols (B, S) and target symbols (B, T) to logits of each next target symbol (B, T, V).

    With the encoder's outputs a and final states q, and the embedding y_{t-1} of the previous target symbol:

        s_0 = tanh(W_q q + b_q)
        c_t = attention(s_{t-1}, a), or tanh(W_c q + b_c) without attention
        s_t = cell(s_{t-1}, [y_{t-1}, c_t])
        m_t = maxout(W_m [s_t, y_{t-1}, c_t] + b_m)
        p_t = softmax(E m_t + b)
    """

    def __init__(self, config: EncoderDecoderConfig, source_vocabulary: int, target_vocabulary: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
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
        init = nnx.initializers.variance_scaling(1.0, "fan_out", "normal")
        self.softmax = None if config.tied else nnx.Param(init(rngs.params(), (V, E)))
        self.bias = nnx.Param(jnp.zeros((V,)))

    def __call__(
        self, source: jax.Array, lengths: jax.Array, inputs: jax.Array, *, key: jax.Array | None = None
    ) -> jax.Array:
        """Predicts targets by teacher forcing.

        Args:
          source: (B, S) int.
          lengths: (B,) int, the symbols of each source, at least 1.
          inputs: (B, T) int, the target shifted right by one step.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          logits (B, T, V).
        """
        keys = (None,) * 4 if key is None else jax.random.split(key, 4)
        encoded, state = self.encode(source, lengths, key=keys[0])
        ys = gru_jax.dropout(self.target_embedding(inputs), self.config.dropout, keys[1])
        hs, contexts, _ = self._unroll(encoded, state, ys, keys[2])
        return self._logits(hs, ys, contexts, keys[3])

    def alignment(self, source: jax.Array, lengths: jax.Array, inputs: jax.Array) -> jax.Array:
        """Returns the attention weights (B, T, S) of each target step over the source steps."""
        if self.attention is None:
            raise ValueError('config.attention: expected "additive", got "none", which has no alignment')
        encoded, state = self.encode(source, lengths)
        return self._unroll(encoded, state, self.target_embedding(inputs), None)[2]

    def encode(self, source: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> tuple[Source, Any]:
        """Returns the encoded source and the decoder's initial state."""
        rate, keys = self.config.dropout, (None,) * 3 if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(self.source_embedding(source), rate, keys[0])
        annotations, final = self.encoder(xs, lengths=lengths, deterministic=keys[1] is None, rngs=keys[1])
        last = jnp.concatenate([self.cell.output(direction) for direction in final[-1]], axis=-1)
        if self.attention is not None:
            encoded = self.attention.memory(gru_jax.dropout(annotations, rate, keys[2]), lengths)
        else:
            assert self.summary is not None
            encoded = gru_jax.dropout(jnp.tanh(self.summary(last)), rate, keys[2])
        zero = self.cell.initial_state(self.config.hidden_size)
        parts = jnp.split(jnp.tanh(self.start(last)), len(jax.tree.leaves(zero)), axis=-1)
        return encoded, jax.tree.unflatten(jax.tree.structure(zero), parts)

    def step(self, encoded: Source, symbols: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Runs one step of the decoder.

        Args:
          encoded: from `encode`.
          symbols: (B,) int, the previous symbols.
          state: from `encode` or the previous step.

        Returns:
          logits (B, V) of the next symbol, and the new state.
        """
        y = self.target_embedding(symbols)
        context, _ = self._context(encoded, state)
        params = self._decoder_parameters(None)
        projected = self.cell.project(params, jnp.concatenate([y, context], axis=-1), self.dtype)
        state = self.cell.step(params, state, projected, self.dtype)
        return self._logits(self.cell.output(state), y, context, None), state

    def _unroll(self, encoded: Source, state: Any, ys: jax.Array, key: jax.Array | None) -> tuple[jax.Array, ...]:
        """Runs the decoder on embeddings (B, T, E). Returns states (B, T, H), contexts (B, T, D), weights (B, T, S)."""
        cell, E = self.cell, self.config.embedding_size
        params = self._decoder_parameters(key)
        of_y, of_context = (params._replace(W=W) for W in (params.W[:E], params.W[E:]))

        def step(state: Any, projected: Any) -> tuple[Any, tuple[jax.Array, ...]]:
            context, weights = self._context(encoded, state)
            projected = jax.tree.map(jnp.add, projected, cell.project(of_context, context, self.dtype))
            state = cell.step(params, state, projected, self.dtype)
            return state, (cell.output(state), context, weights)

        projected = cell.project(of_y, ys.swapaxes(0, 1), self.dtype)  # one matmul for all steps
        _, outputs = jax.lax.scan(step, state, projected)
        return jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), outputs)

    def _context(self, encoded: Source, state: Any) -> tuple[jax.Array, jax.Array]:
        """Returns the context c (B, D) and the attention weights α (B, S) of a step."""
        if isinstance(encoded, Memory):
            assert self.attention is not None
            return self.attention(self.cell.output(state), encoded)
        return encoded, jnp.zeros((len(encoded), 0))

    def _logits(self, h: jax.Array, y: jax.Array, context: jax.Array, key: jax.Array | None) -> jax.Array:
        """Maps states (..., H), embeddings (..., E) and contexts (..., D) to logits (..., V)."""
        one, other = jnp.split(self.maxout(jnp.concatenate([h, y, context], axis=-1)), 2, axis=-1)
        m = gru_jax.dropout(jnp.maximum(one, other), self.config.dropout, key)
        weights = self.target_embedding.embedding if self.softmax is None else self.softmax
        logits = product(m, weights[...], self.dtype, transposed=True)
        return logits + jnp.broadcast_to(self.bias[...], logits.shape)

    def _decoder_parameters(self, key: jax.Array | None) -> Any:
        """Returns the parameters of the decoder's cell, with weight dropout if there is a key."""
        params = jax.tree.map(lambda p: p[...], self.decoder, is_leaf=lambda p: isinstance(p, nnx.Variable))
        if self.config.weight_dropout == 0:  # Not every cell has a U.
            return params
        return params._replace(U=gru_jax.dropout(params.U, self.config.weight_dropout, key))
