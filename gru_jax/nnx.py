"""Flax NNX modules: thin owners of parameters around `gru_jax.unroll`; cells for `flax.nnx.RNN`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import cells
from gru_jax.cells import Cell
from gru_jax.cells.streaming import streaming_step
from gru_jax.layers import Stack
from gru_jax.types import Array, DType, Params, State
from gru_jax.unroll import unroll


class Recurrent(nnx.Module):
    """A stack of any cell as a module.

    Args:
      cell: the cell's equations, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I.
      hidden_features: H.
      num_layers: L.
      bidirectional: whether each layer runs in both directions.
      dropout: the rate between layers; it acts where the call gets `rngs`.
      merge: "concat" or "sum" of the two directions' outputs.
      weight_dropout: the rate at which recurrent weights are dropped, the same ones at all steps of such a call.
      backend: see `gru_jax.unroll`.
      matmul_dtype: see `gru_jax.unroll`.
      param_dtype: the dtype of the parameters and the state.
      rngs: draws the parameters from the stream `params`.
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        merge: str = "concat",
        weight_dropout: float = 0.0,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.cell = Stack(cell, num_layers, bidirectional, merge, dropout, weight_dropout)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.out_features = self.cell.output_size(hidden_features)
        self.param_dtype = param_dtype
        self.backend = backend
        self.matmul_dtype = matmul_dtype
        params = self.cell.init(rngs.params(), in_features, hidden_features, param_dtype)
        self.layers = nnx.data(jax.tree.map(nnx.Param, params))

    def parameters(self) -> Params:
        """Returns the parameters as `gru_jax.unroll` takes them, for `self.cell`."""
        return jax.tree.map(lambda p: p[...], self.layers, is_leaf=lambda p: isinstance(p, nnx.Variable))

    def set_parameters(self, params: Params) -> None:
        """Takes over parameters for `self.cell`, such as `gru_jax.interop` reads, of the sizes and dtype there are.

        The variables stay: a layer that shares them has the new values too.
        """
        expected = self.cell.check(self.parameters())
        if self.cell.check(params) != expected:
            raise ValueError(f"params: expected I, H and dtype {expected}, got {self.cell.check(params)}")
        variables = jax.tree.leaves(self.layers, is_leaf=lambda p: isinstance(p, nnx.Variable))
        for variable, value in zip(variables, jax.tree.leaves(params), strict=True):
            variable.set_value(jnp.asarray(value))

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Returns the state of zeros."""
        return self.cell.initial_state(self.hidden_features, batch_shape, self.param_dtype)

    def __call__(
        self, xs: Array, h0: State | None = None, *, rngs: nnx.Rngs | Array | None = None, **options: Any
    ) -> tuple[Array, State]:
        """Unrolls the layers.

        Args:
          xs: (..., T, I).
          h0: the initial state; None for zeros.
          rngs: Rngs with a stream `dropout`, or a key; None for no dropout.
          **options: lengths, resets, reverse, time_major, memory, block_length of `gru_jax.unroll`.

        Returns:
          ys (..., T, H) and the final state.
        """
        key = None
        if self.cell.drops:
            key = rngs.dropout() if isinstance(rngs, nnx.Rngs) else rngs
        return unroll(
            self.cell,
            self.parameters(),
            xs,
            h0,
            backend=self.backend,
            matmul_dtype=self.matmul_dtype,
            key=key,
            **options,
        )


class GRU(Recurrent):
    """Layers of GRUs; the equations are those of `gru_jax.GRU`, the arguments those of `Recurrent`.

    Example:
      >>> layer = GRU(64, 128, num_layers=2, rngs=nnx.Rngs(0))
      >>> ys, h_last = layer(jnp.ones((32, 100, 64)))
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        reset: str = "before",
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        sizes = (in_features, hidden_features, num_layers, bidirectional, dropout)
        super().__init__(cells.GRU(reset=reset), *sizes, rngs=rngs, **options)


class LSTM(Recurrent):
    """Layers of LSTMs; the equations are those of `gru_jax.LSTM`, the arguments those of `Recurrent`."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        sizes = (in_features, hidden_features, num_layers, bidirectional, dropout)
        super().__init__(cells.LSTM(forget_bias), *sizes, rngs=rngs, **options)


class Elman(Recurrent):
    """Layers of Elman networks; the equations are those of `gru_jax.Elman`, the arguments those of `Recurrent`."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        sizes = (in_features, hidden_features, num_layers, bidirectional, dropout)
        super().__init__(cells.Elman(), *sizes, rngs=rngs, **options)


class RecurrentCell(nnx.RNNCellBase):
    """One step of any cell as a module, for `flax.nnx.RNN`; the layers above are faster, and do all that RNN does.

    Args:
      cell: the cell's equations, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I.
      hidden_features: H.
      matmul_dtype: see `gru_jax.unroll`.
      param_dtype: the dtype of the parameters and the state.
      rngs: draws the parameters from the stream `params`.
    """

    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        *,
        matmul_dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.cell = cell
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.matmul_dtype = matmul_dtype
        self.param_dtype = param_dtype
        params = cell.init(rngs.params(), in_features, hidden_features, param_dtype)
        self.weights = nnx.data(jax.tree.map(nnx.Param, params))

    def parameters(self) -> Params:
        """Returns the parameters as `self.cell` takes them."""
        return jax.tree.map(lambda p: p[...], self.weights, is_leaf=lambda p: isinstance(p, nnx.Variable))

    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Maps the state and inputs (..., I) to the next state and its output (..., H)."""
        state = streaming_step(
            self.cell, self.parameters(), carry, inputs, self.matmul_dtype, state_name="carry", input_name="inputs"
        )
        return state, self.cell.output(state)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None) -> State:
        """Returns the state before the first step, for inputs (..., I).

        Args:
          input_shape: the inputs' shape.
          rngs: Rngs with a stream `carry`, or such a stream; needed with carry_init only.
          carry_init: an initialiser `(key, shape, dtype) -> array`; None for zeros.
        """
        state = self.cell.initial_state(self.hidden_features, input_shape[:-1], self.param_dtype)
        if carry_init is None:
            return state
        if rngs is None:
            raise ValueError("rngs: expected Rngs with a stream `carry`, for carry_init draws from it, got None")
        stream = rngs.carry if isinstance(rngs, nnx.Rngs) else rngs
        return jax.tree.map(lambda leaf: carry_init(stream(), leaf.shape, leaf.dtype), state)

    @property
    def num_feature_axes(self) -> int:
        """One: the features."""
        return 1


class GRUCell(RecurrentCell):
    """A GRU cell; the equations are those of `gru_jax.GRU`.

    Example:
      >>> rnn = nnx.RNN(GRUCell(64, 128, rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((32, 100, 64)))
    """

    def __init__(
        self, in_features: int, hidden_features: int, *, reset: str = "before", rngs: nnx.Rngs, **options: Any
    ):
        super().__init__(cells.GRU(reset=reset), in_features, hidden_features, rngs=rngs, **options)


class LSTMCell(RecurrentCell):
    """An LSTM cell; the equations are those of `gru_jax.LSTM`, the carry is an `LSTMState`."""

    def __init__(
        self, in_features: int, hidden_features: int, *, forget_bias: float = 1.0, rngs: nnx.Rngs, **options: Any
    ):
        super().__init__(cells.LSTM(forget_bias), in_features, hidden_features, rngs=rngs, **options)


class ElmanCell(RecurrentCell):
    """An Elman cell; the equations are those of `gru_jax.Elman`."""

    def __init__(self, in_features: int, hidden_features: int, *, rngs: nnx.Rngs, **options: Any):
        super().__init__(cells.Elman(), in_features, hidden_features, rngs=rngs, **options)
