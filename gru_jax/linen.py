"""Flax Linen modules: layers that own the parameters of `gru_jax.unroll`, and cells for `flax.linen.RNN`.

A module has one entry in `params`: `layers` of a layer, `weights` of a cell. It is what `gru_jax.unroll` itself takes:
a tuple of layers of tuples of directions of `GRUParams`, and `GRUParams`.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from gru_jax import cells
from gru_jax.cells import Cell
from gru_jax.cells.streaming import streaming_step
from gru_jax.layers import Stack
from gru_jax.types import Array, DType, State
from gru_jax.unroll import unroll


class Recurrent(nn.Module):
    """Layers of a cell; a subclass says which.

    Attributes:
      features: H.
      num_layers: L.
      bidirectional: whether each layer runs in both directions.
      merge: "concat" or "sum" of the two directions' outputs.
      dropout: the rate between layers; it acts where `apply` gets an rng `dropout`.
      weight_dropout: the rate at which recurrent weights are dropped, the same ones at all steps of such a call.
      backend: see `gru_jax.unroll`.
      matmul_dtype: see `gru_jax.unroll`.
      param_dtype: the dtype of the parameters and the state.
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    merge: str = "concat"
    dropout: float = 0.0
    weight_dropout: float = 0.0
    backend: str = "auto"
    matmul_dtype: DType | None = None
    param_dtype: DType = jnp.float32

    @nn.nowrap
    def equations(self) -> Cell:
        """Returns the cell."""
        raise NotImplementedError

    @nn.nowrap
    def stack(self) -> Stack:
        """Returns the network that the parameters are those of."""
        return Stack(
            self.equations(), self.num_layers, self.bidirectional, self.merge, self.dropout, self.weight_dropout
        )

    @nn.compact
    def __call__(self, xs: Array, h0: State | None = None, **options: Any) -> tuple[Array, State]:
        """Unrolls the layers.

        Args:
          xs: (..., T, I).
          h0: the initial state; None for zeros.
          **options: lengths, resets, reverse, time_major, memory, block_length of `gru_jax.unroll`.

        Returns:
          ys (..., T, H) and the final state.
        """
        stack = self.stack()
        params = self.param("layers", stack.init, xs.shape[-1], self.features, self.param_dtype)
        key = self.make_rng("dropout") if stack.drops and self.has_rng("dropout") else None
        return unroll(stack, params, xs, h0, backend=self.backend, matmul_dtype=self.matmul_dtype, key=key, **options)


class GRU(Recurrent):
    """Layers of GRUs; the equations are those of `gru_jax.GRU`.

    Example:
      >>> layer = GRU(128, num_layers=2, dropout=0.3)
      >>> variables = layer.init(jax.random.key(0), xs)
      >>> ys, h_last = layer.apply(variables, xs, rngs={"dropout": jax.random.key(1)})
    """

    reset: str = "before"

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.GRU(reset=self.reset)


class LSTM(Recurrent):
    """Layers of LSTMs; the equations are those of `gru_jax.LSTM`."""

    forget_bias: float = 1.0

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.LSTM(self.forget_bias)


class Elman(Recurrent):
    """Layers of Elman networks; the equations are those of `gru_jax.Elman`."""

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.Elman()


class RecurrentCell(nn.RNNCellBase):
    """One step of a cell, for `flax.linen.RNN`; a subclass says which. The layers above are faster.

    Attributes:
      features: H.
      matmul_dtype: see `gru_jax.unroll`.
      param_dtype: the dtype of the parameters and the state.
    """

    features: int
    matmul_dtype: DType | None = None
    param_dtype: DType = jnp.float32

    @nn.nowrap
    def equations(self) -> Cell:
        """Returns the cell."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Maps the state and inputs (..., I) to the next state and its output (..., H)."""
        cell = self.equations()
        params = self.param("weights", cell.init, inputs.shape[-1], self.features, self.param_dtype)
        state = streaming_step(cell, params, carry, inputs, self.matmul_dtype, state_name="carry", input_name="inputs")
        return state, cell.output(state)

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> State:
        """Returns the state of zeros for inputs (..., I); rng is not used."""
        return self.equations().initial_state(self.features, input_shape[:-1], self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """One: the features."""
        return 1


class GRUCell(RecurrentCell):
    """A GRU cell; the equations are those of `gru_jax.GRU`.

    Example:
      >>> rnn = nn.RNN(GRUCell(128))
      >>> variables = rnn.init(jax.random.key(0), xs)
      >>> ys = rnn.apply(variables, xs)
    """

    reset: str = "before"

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.GRU(reset=self.reset)


class LSTMCell(RecurrentCell):
    """An LSTM cell; the equations are those of `gru_jax.LSTM`, the carry is an `LSTMState`."""

    forget_bias: float = 1.0

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.LSTM(self.forget_bias)


class ElmanCell(RecurrentCell):
    """An Elman cell; the equations are those of `gru_jax.Elman`."""

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.Elman()
