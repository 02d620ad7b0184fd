"""A recurrent language model: embedding, recurrent layers or residual blocks, and softmax."""

import dataclasses
from typing import Any, Literal

import jax
from flax import nnx

import gru_jax
from experiments.schema import require
from experiments.tasks.recurrent import recurrent
from experiments.tasks.text.residual import ResidualBlocks, ResidualConfig


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig(ResidualConfig):
    """Extends `ResidualConfig`; `dropout` also acts on the embeddings and before the softmax.

    Attributes:
      block: "none" for recurrent layers one after the other; "residual" for residual blocks, see `ResidualBlock`.
        Only the latter use conv_width and mlp_factor.
      tied: whether the softmax shares the embedding's weights; without residual blocks, embedding_size must then be
        hidden_size.
    """

    block: Literal["none", "residual"] = "none"
    tied: bool = False

    @property
    def output_size(self) -> int:
        """The size of the softmax's inputs."""
        return self.embedding_size if self.block == "residual" else self.hidden_size

    def check(self):
        super().check()
        fits = not self.tied or self.embedding_size == self.output_size
        require("embedding_size", fits, f"hidden_size={self.hidden_size} if tied", self.embedding_size)


class LanguageModel(nnx.Module):
    """Maps symbols (B, T) to logits of each next symbol (B, T, V).

    Reference: Zaremba et al., "Recurrent Neural Network Regularization", 2014 (where dropout acts).
    """

    def __init__(self, config: LanguageModelConfig, vocabulary_size: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config = config
        self.embedding = nnx.Embed(vocabulary_size, config.embedding_size, rngs=rngs)
        if config.block == "residual":
            self.recurrent = ResidualBlocks(config, rngs)
        else:
            self.recurrent = recurrent(config, config.embedding_size, rngs)
        self.softmax = None if config.tied else nnx.Linear(config.output_size, vocabulary_size, rngs=rngs)

    def __call__(self, symbols: jax.Array, h0: Any = None, *, key: jax.Array | None = None) -> tuple[jax.Array, Any]:
        """Applies the model to symbols.

        Args:
          symbols: (B, T) int.
          h0: the initial state, from `initial_state` or a previous call; None for zeros.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          logits (B, T, V) and the final state.
        """
        rate = self.config.dropout
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        xs = gru_jax.dropout(self.embedding(symbols), rate, keys[0])
        ys, h_last = self.recurrent(xs, h0, deterministic=keys[1] is None, rngs=keys[1])
        return self.logits(gru_jax.dropout(ys, rate, keys[2])), h_last

    def step(self, symbols: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """Runs one step, for generation.

        Args:
          symbols: (B,) int.
          state: from `initial_state` or the previous step.

        Returns:
          logits (B, V) of the next symbol, and the new state.
        """
        recurrent, x = self.recurrent, self.embedding(symbols)
        if isinstance(recurrent, ResidualBlocks):
            ys, state = recurrent(x[:, None], state)
            return self.logits(ys[:, 0]), state
        y, state = gru_jax.step(
            recurrent.stack,
            recurrent.parameters(),
            state,
            x,
            zoneout=recurrent.zoneout,
            matmul_dtype=recurrent.matmul_dtype,
        )
        return self.logits(y), state

    def logits(self, ys: jax.Array) -> jax.Array:
        """Maps outputs (..., H), or (..., E) of residual blocks, to logits (..., V)."""
        return self.embedding.attend(ys) if self.softmax is None else self.softmax(ys)

    def initial_state(self, rows: int) -> Any:
        """Returns the zero state of all layers for `rows` sequences."""
        return self.recurrent.initial_state((rows,))
