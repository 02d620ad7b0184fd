"""Residual blocks: recurrent layers as deep models use them, each with a convolution and an MLP.

Reference: Feng et al., "Were RNNs All We Needed?", 2024 (the block).
"""

import dataclasses
import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax
from experiments.schema import Count, Natural, require
from experiments.tasks.precision import product
from experiments.tasks.recurrent import RecurrentConfig, recurrent


@dataclasses.dataclass(frozen=True)
class ResidualConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `num_layers` is the number of blocks, and `matmul_dtype` also applies to their MLPs.

    Attributes:
      embedding_size: E, the width of the blocks' inputs and outputs.
      conv_width: K, the steps that the convolution reads; 0 for no convolution.
      mlp_factor: the hidden size of the MLP, in multiples of E; 0 for no MLP.
    """

    embedding_size: Count = 128
    conv_width: Natural = 4
    mlp_factor: Natural = 4

    def check(self):
        super().check()
        require("conv_width", self.conv_width != 1, "0 or at least 2", self.conv_width)


class BlockState(NamedTuple):
    """The state of a block.

    Attributes:
      window: (B, K - 1, E), the last inputs of the convolution; None without one.
      cell: the state of the recurrent layer.
    """

    window: Any
    cell: Any


class ResidualBlocks(nnx.Module):
    """Residual blocks in a row, and a norm after the last one; called like `gru_jax.nnx.Recurrent`."""

    def __init__(self, config: ResidualConfig, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.num_layers = config.num_layers
        # A dict with the names in checkpoints, as in `gru_jax.nnx.Recurrent`.
        self.blocks = nnx.data({str(number): ResidualBlock(config, rngs) for number in range(config.num_layers)})
        self.norm = nnx.RMSNorm(config.embedding_size, rngs=rngs)

    def __call__(
        self, xs: jax.Array, h0: Any = None, *, deterministic: bool = True, rngs: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Applies the blocks.

        Args:
          xs: (B, T, E).
          h0: the initial state, from `initial_state` or a previous call; None for zeros.
          deterministic: whether to apply no dropout.
          rngs: PRNG key for dropout, consumed; None if deterministic.

        Returns:
          ys (B, T, E) and the state after the last step.
        """
        states = []
        for number, before in enumerate(self.initial_state(xs.shape[:1]) if h0 is None else h0):
            key = None if deterministic or rngs is None else jax.random.fold_in(rngs, number)
            xs, after = self.blocks[str(number)](xs, before, key)
            states.append(after)
        return self.norm(xs), tuple(states)

    def initial_state(self, batch_shape: tuple[int, ...]) -> tuple[BlockState, ...]:
        """Returns zeros for the state of all blocks."""
        return tuple(self.blocks[str(number)].initial_state(batch_shape) for number in range(self.num_layers))


class ResidualBlock(nnx.Module):
    """A causal depthwise convolution, a recurrent cell and an MLP, each added to its input:

        x = x + conv(x)
        x = x + P cell(norm(x)) + p
        x = x + W2 gelu(W1 norm(x) + b1) + b2

    `norm` divides by the root mean square over the features (Zhang and Sennrich, 2019). In training, dropout acts on
    the last two summands.
    """

    def __init__(self, config: ResidualConfig, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        width, inner = config.embedding_size, config.mlp_factor * config.embedding_size
        self.config = config
        taps = jax.nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.taps = nnx.Param(taps(rngs.params(), (config.conv_width, width))) if config.conv_width else None
        self.cell_norm = nnx.RMSNorm(width, rngs=rngs)
        self.cell = recurrent(dataclasses.replace(config, num_layers=1), width, rngs)
        self.project = Linear(config.hidden_size, width, config.matmul_dtype, rngs)
        self.mlp_norm = nnx.RMSNorm(width, rngs=rngs) if inner else None
        self.widen = Linear(width, inner, config.matmul_dtype, rngs) if inner else None
        self.narrow = Linear(inner, width, config.matmul_dtype, rngs) if inner else None

    def __call__(self, xs: jax.Array, state: BlockState, key: jax.Array | None) -> tuple[jax.Array, BlockState]:
        """Returns ys (B, T, E) and the state after them, given xs (B, T, E) and the state before them."""
        rate, window = self.config.dropout, None
        keys = (None, None, None) if key is None else jax.random.split(key, 3)
        if self.taps is not None:
            convolved, window = convolve(xs, self.taps[...], state.window)
            xs = xs + convolved
        hs, cell = self.cell(self.cell_norm(xs), state.cell, deterministic=keys[0] is None, rngs=keys[0])
        xs = xs + gru_jax.dropout(self.project(hs), rate, keys[1])
        if self.mlp_norm is not None and self.widen is not None and self.narrow is not None:
            xs = xs + gru_jax.dropout(self.narrow(jax.nn.gelu(self.widen(self.mlp_norm(xs)))), rate, keys[2])
        return xs, BlockState(window, cell)

    def initial_state(self, batch_shape: tuple[int, ...]) -> BlockState:
        """Returns zeros for the state."""
        shape = *batch_shape, self.config.conv_width - 1, self.config.embedding_size
        return BlockState(None if self.taps is None else jnp.zeros(shape), self.cell.initial_state(batch_shape))


class Linear(nnx.Module):
    """The affine map `x kernel + bias`, with the operands of products in `matmul_dtype`, in the backward pass too."""

    def __init__(self, in_features: int, out_features: int, matmul_dtype: str, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        init = jax.nn.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (in_features, out_features)))
        self.bias = nnx.Param(jnp.zeros(out_features))
        self.matmul_dtype = matmul_dtype

    def __call__(self, xs: jax.Array) -> jax.Array:
        """Maps (..., in_features) to (..., out_features)."""
        ys = product(xs, self.kernel[...], self.matmul_dtype)
        return ys + jnp.broadcast_to(self.bias[...], ys.shape)


def convolve(xs: jax.Array, taps: jax.Array, window: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Convolves each feature causally: y_t = sum_k taps_k x_(t-K+1+k).

    Args:
      xs: (B, T, E).
      taps: (K, E).
      window: (B, K - 1, E), the inputs before xs.

    Returns:
      ys (B, T, E), and the last K - 1 inputs.
    """
    steps, before = xs.shape[1], window.shape[1]
    padded = jnp.concatenate((window, xs), axis=1)
    terms = (padded[:, k : k + steps] * taps[None, None, k] for k in range(before + 1))
    return functools.reduce(operator.add, terms), padded[:, steps:]
