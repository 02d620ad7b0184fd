"""Recurrent layers as NNX modules: thin owners of parameters around `gru_jax.unroll`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Initializer, Params, State
from gru_jax._unroll.unroll import unroll
from gru_jax.cells import Cell
from gru_jax.flax_conventions import computation_dtype, explained, promote, title
from gru_jax.nnx.variables import dtype_of, is_variable, parameters_key, stream, values


class Recurrent(nnx.Module):
    """A stack of any cell as a module.

    Dropout is that of `flax.nnx.Dropout`: a layer begins in training mode; `train()`, `eval()`, `nnx.view` and
    `deterministic` change it, and the keys come from a copy of the stream `dropout` of `rngs`.

    Variables have the paths `layers/<layer>/<direction>/<field>`, e.g. `layers/0/1/W` of the backward direction of the
    first layer.

    Args:
      cell: the cell's equations, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I.
      hidden_features: H.
      num_layers: L.
      bidirectional: whether each layer runs in both directions.
      dropout: the rate between layers, in training mode.
      merge: how the two directions' outputs become one: "concat", "sum", "ave" or "mul".
      weight_dropout: the rate at which recurrent weights are dropped in training mode, the same ones at all steps.
      backend: see `gru_jax.unroll`.
      matmul_dtype: see `gru_jax.unroll`.
      dtype: the dtype of the computation, hence of outputs and states; None for what inputs and parameters promote to,
        as in every layer of Flax. A state that is given in float32 stays so beside 16 bits.
      param_dtype: the dtype of the parameters.
      deterministic: whether nothing is dropped; None if every call says so.
      return_state: whether a call returns (ys, state), or ys alone, e.g. within `nnx.Sequential`. The name is Keras',
        as the order is; Flax's `return_carry` puts the state first.
      rngs: draws the parameters from the stream `params`.
    """

    @explained
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
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        self.cell = Stack(cell, num_layers, bidirectional, merge, dropout, weight_dropout)
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.out_features = self.cell.output_size(hidden_features)
        self.backend = backend
        self.matmul_dtype = matmul_dtype
        self.dtype = computation_dtype(self, dtype)
        self.param_dtype = param_dtype
        self.deterministic = deterministic
        self.return_state = return_state
        params = self.cell.init(parameters_key(title(self), rngs), in_features, hidden_features, param_dtype)
        # Dictionaries with the names that checkpoints have: `nnx.update` takes them as they are restored.
        self.layers = nnx.data(
            {
                str(number): {str(k): jax.tree.map(nnx.Param, direction) for k, direction in enumerate(layer)}
                for number, layer in enumerate(params)
            }
        )
        self.rngs = nnx.data(self._dropout_stream(rngs))

    def _dropout_stream(self, rngs: nnx.Rngs | nnx.RngStream) -> nnx.RngStream | None:
        """Returns a stream of this layer's own; None where there is none to copy, or nothing is dropped."""
        if not self.cell.drops:
            return None
        if isinstance(rngs, nnx.Rngs):
            return rngs["dropout"].fork() if "dropout" in rngs or "default" in rngs else None
        return rngs.fork()

    def parameters(self) -> Params:
        """Returns the parameters as `gru_jax.unroll` takes them, for `self.cell`."""
        return values(self._variables())

    def set_parameters(self, params: Params) -> None:
        """Takes over parameters for `self.cell`, such as `gru_jax.interop` reads, of the sizes and dtype there are.

        The variables stay: a layer that shares them has the new values too.
        """
        expected = self.cell.check(self.parameters())
        if self.cell.check(params) != expected:
            raise ValueError(f"params: expected I, H and dtype {expected}, got {self.cell.check(params)}")
        variables = jax.tree.leaves(self._variables(), is_leaf=is_variable)
        for variable, value in zip(variables, jax.tree.leaves(params), strict=True):
            variable.set_value(jnp.asarray(value))

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Returns the state of zeros, in the dtype of the computation, or if that is None, of the parameters."""
        dtype = dtype_of(values(self._variables())) if self.dtype is None else self.dtype
        return self.cell.initial_state(self.hidden_features, batch_shape, dtype)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets the mode, for `nnx.view`.

        Args:
          deterministic: whether nothing is dropped; None for no change.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    @explained
    def __call__(
        self,
        xs: Array,
        h0: State | None = None,
        *,
        lengths: Array | None = None,
        resets: Array | None = None,
        reset_state: State | None = None,
        reverse: bool = False,
        time_major: bool = False,
        memory: str = "auto",
        block_length: int | None = None,
        deterministic: bool | None = None,
        return_state: bool | None = None,
        rngs: nnx.Rngs | nnx.RngStream | Array | None = None,
    ) -> Any:
        """Unrolls the layers.

        Args:
          xs: (..., T, I).
          h0: the initial state, as returned or from `initial_state`; None for zeros.
          lengths: see `gru_jax.unroll`, as for all down to block_length.
          resets: (..., T) booleans that mark the first steps of episodes.
          reset_state: the state that an episode starts from; None for zeros.
          reverse: whether to run from the last step to the first.
          time_major: whether time is the first axis.
          memory: what is kept for the backward pass.
          block_length: the steps that the fused backend works on at once.
          deterministic: whether nothing is dropped; None for the module's own.
          return_state: whether to return the state; None for the module's own.
          rngs: Rngs with a stream `dropout`, such a stream, or a key; None for the module's own stream.

        Returns:
          ys (..., T, H) and the final state, or ys alone if not return_state. The state of an LSTM has the fields `h`
          and `c`.

        Raises:
          ValueError, TypeError: where an argument does not fit, or no stream is there to drop with.
        """
        key = self._key(deterministic, rngs)
        params, xs, h0, reset_state = promote(self.dtype, values(self._variables()), xs, h0, reset_state)
        ys, state = unroll(
            self.cell,
            params,
            xs,
            h0,
            lengths=lengths,
            resets=resets,
            reset_state=reset_state,
            reverse=reverse,
            time_major=time_major,
            backend=self.backend,
            matmul_dtype=self.matmul_dtype,
            memory=memory,
            block_length=block_length,
            key=key,
        )
        return (ys, state) if (self.return_state if return_state is None else return_state) else ys

    def _variables(self) -> Any:
        """The variables where `gru_jax.unroll` has the parameters."""
        return tuple(
            tuple(self.layers[str(number)][str(k)] for k in range(self.cell.directions))
            for number in range(self.cell.num_layers)
        )

    def _key(self, deterministic: bool | None, rngs: nnx.Rngs | nnx.RngStream | Array | None) -> Array | None:
        """Returns the key of a call's dropout; None if nothing is dropped."""
        deterministic = self.deterministic if deterministic is None else deterministic
        if not self.cell.drops:
            return None
        arguments.boolean(f"{title(self)}: deterministic", deterministic)
        if deterministic:
            return None
        source: Any = self.rngs if rngs is None else rngs
        if isinstance(source, nnx.Rngs):
            source = stream(title(self), source, "dropout")
        if isinstance(source, nnx.RngStream):
            return source()
        expected = "a stream `dropout` in training mode, from the constructor or the call"
        if source is None:
            raise ValueError(f"{title(self)}: rngs: expected {expected} (eval() drops nothing), got none")
        if not isinstance(source, jax.Array):
            raise TypeError(f"{title(self)}: rngs: expected {expected}, got {type(source).__name__}")
        return source


class GRU(Recurrent):
    """Layers of GRUs.

    The equations, `reset`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.GRU`, the other
    arguments those of `Recurrent`.

    Example:
      >>> layer = GRU(64, 128, num_layers=2, dropout=0.3, rngs=nnx.Rngs(0))
      >>> ys, state = layer(jnp.ones((32, 100, 64)))
      >>> layer.eval()  # drops nothing from here on
      >>> ys, state = layer(jnp.ones((32, 100, 64)), lengths=jnp.full((32,), 80))
    """

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        reset: str = "before",
        *,
        merge: str = "concat",
        weight_dropout: float = 0.0,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.GRU(reset, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            dropout,
            merge=merge,
            weight_dropout=weight_dropout,
            backend=backend,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            deterministic=deterministic,
            return_state=return_state,
            rngs=rngs,
        )


class LSTM(Recurrent):
    """Layers of LSTMs.

    The equations, `forget_bias`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.LSTM`, the
    other arguments those of `Recurrent`.

    Example:
      >>> layer = LSTM(64, 128, rngs=nnx.Rngs(0))
      >>> ys, ((state,),) = layer(jnp.ones((32, 100, 64)))  # one layer, one direction
      >>> state.h.shape, state.c.shape
      ((32, 128), (32, 128))
    """

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        forget_bias: float = 1.0,
        *,
        merge: str = "concat",
        weight_dropout: float = 0.0,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.LSTM(forget_bias, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            dropout,
            merge=merge,
            weight_dropout=weight_dropout,
            backend=backend,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            deterministic=deterministic,
            return_state=return_state,
            rngs=rngs,
        )


class Elman(Recurrent):
    """Layers of Elman networks.

    The equations, `activation`, `W_init`, `U_init` and `b_init` are those of `gru_jax.Elman`, the other arguments those
    of `Recurrent`.
    """

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: str = "tanh",
        *,
        merge: str = "concat",
        weight_dropout: float = 0.0,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.Elman(activation, W_init=W_init, U_init=U_init, b_init=b_init),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            dropout,
            merge=merge,
            weight_dropout=weight_dropout,
            backend=backend,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            deterministic=deterministic,
            return_state=return_state,
            rngs=rngs,
        )
