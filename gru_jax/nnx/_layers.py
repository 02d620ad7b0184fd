"""Recurrent layers as NNX modules: parameters as `nnx.Param` around `gru_jax.unroll`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._flax_conventions import (
    ConstructorSignature,
    check_dtype,
    check_options,
    class_name,
    explain_keywords,
    promote,
)
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Initializer, Params, PyTree, State
from gru_jax._unroll.unroll import unroll
from gru_jax._zoneout import check_zoneout
from gru_jax.cells import Cell
from gru_jax.cells.base import check_cell
from gru_jax.nnx._variables import dtype_of, is_variable, new_variables, parameters_key, stream, values


class Recurrent(nnx.Module):
    """Layers of any cell, in one or two directions.

    Dropout works as in `flax.nnx.Dropout`. A layer starts in training mode; `train()`, `eval()`, `nnx.view` and
    `deterministic` switch it. Dropout and zoneout use a fork of the stream `dropout` of `rngs`.

    Parameters have the paths `layers/<layer>/<direction>/<name>`, e.g. `layers/0/1/W` for the backward direction of the
    first layer.

    Args:
      cell: the cell, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I, the number of input features.
      hidden_features: H, the number of hidden units of each direction.
      num_layers: the number of layers.
      bidirectional: whether every layer runs in both directions.
      merge: how the outputs of two directions are merged: "concat" (..., T, 2H), or "sum", "ave", "mul" (..., T, H).
      dropout: the dropout rate of the outputs between layers, in training mode.
      weight_dropout: the dropout rate of the recurrent weights, in training mode; one mask for all steps of a call.
      zoneout: the rate of zoneout, or one for each array of the state; see `gru_jax.unroll`. Units are drawn in
        training mode; otherwise the expectation is used.
      backend: "auto", "scan", "fused", "associative" or "pallas"; see `gru_jax.unroll`.
      matmul_dtype: the dtype of matmul operands, e.g. `jnp.bfloat16`; see `gru_jax.unroll`.
      dtype: the dtype of the computation, outputs and states. If None, inputs and parameters are promoted, as in Flax.
        A float32 state is kept in float32 if the dtype has 16 bits.
      param_dtype: the dtype of the parameters.
      deterministic: if True, nothing is drawn. If None, every call must set it.
      return_state: whether a call returns (ys, state) or only ys, e.g. in `nnx.Sequential`. The order is that of Keras;
        `return_carry` of Flax returns the carry first.
      rngs: Rngs with a stream `params` for the parameters, and `dropout` for dropout in training mode.

    Example:
      >>> layer = Recurrent(gru_jax.LSTM(), 64, 128, bidirectional=True, merge="sum", rngs=nnx.Rngs(0))
      >>> ys, state = layer(jnp.ones((32, 100, 64)))  # ys (32, 100, 128)
    """

    __signature__ = ConstructorSignature()

    @explain_keywords
    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: str = "concat",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        *,
        zoneout: Any = 0.0,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        check_cell(f"{class_name(self)}: cell", cell)
        sizes = {"in_features": in_features, "hidden_features": hidden_features}
        check_options(self, sizes, param_dtype, matmul_dtype, backend)
        self.cell = cell
        self.stack = Stack(cell, num_layers, bidirectional, merge, dropout, weight_dropout)
        self.zoneout = zoneout
        rates = check_zoneout(f"{class_name(self)}: zoneout", zoneout)
        self._draws = self.stack.drops or any(rates.of_arrays(f"{class_name(self)}: zoneout", cell.initial_state(1)))
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.out_features = self.stack.output_size(hidden_features)
        self.backend = backend
        self.matmul_dtype = matmul_dtype
        self.dtype = check_dtype(self, dtype)
        self.param_dtype = param_dtype
        self.deterministic = deterministic
        self.return_state = return_state
        key = parameters_key(class_name(self), rngs)
        variables = new_variables(self.stack, key, in_features, hidden_features, param_dtype)
        # Dicts with the names in checkpoints, so that `nnx.update` accepts a restored state.
        self.layers = nnx.data(
            {
                str(number): {str(k): direction for k, direction in enumerate(layer)}
                for number, layer in enumerate(variables)
            }
        )
        self.rngs = nnx.data(self._dropout_stream(rngs))

    def _dropout_stream(self, rngs: nnx.Rngs | nnx.RngStream) -> nnx.RngStream | None:
        """Returns a copy of the stream `dropout`; None if there is none or nothing is drawn."""
        if not self._draws:
            return None
        if isinstance(rngs, nnx.Rngs):
            return rngs["dropout"].fork() if "dropout" in rngs or "default" in rngs else None
        return rngs.fork()

    def parameters(self) -> Params:
        """Returns the parameters of `self.stack` for `gru_jax.unroll`."""
        return values(self._variables())

    def set_parameters(self, params: Params) -> None:
        """Updates the variables in place; modules that share them see the change.

        Args:
          params: parameters for `self.stack`, e.g. from `gru_jax.interop`, with the current sizes and dtype.
        """
        expected = self.stack.infer_sizes(self.parameters())
        if self.stack.infer_sizes(params) != expected:
            raise ValueError(f"params: expected I, H and dtype {expected}, got {self.stack.infer_sizes(params)}")
        variables = jax.tree.leaves(self._variables(), is_leaf=is_variable)
        for variable, value in zip(variables, jax.tree.leaves(params), strict=True):
            variable.set_value(jnp.asarray(value))

    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Returns zeros for the state: a tuple of layers of tuples of directions, with arrays (*batch_shape, H)."""
        dtype = dtype_of(values(self._variables())) if self.dtype is None else self.dtype
        return self.stack.initial_state(self.hidden_features, batch_shape, dtype)

    def set_view(self, deterministic: bool | None = None) -> None:
        """Sets the mode, for `nnx.view`.

        Args:
          deterministic: if True, nothing is drawn. If None, the mode is unchanged.
        """
        if deterministic is not None:
            self.deterministic = deterministic

    @explain_keywords
    def __call__(
        self,
        xs: Array,
        h0: State | None = None,
        *,
        lengths: Array | None = None,
        mask: Array | None = None,
        resets: Array | None = None,
        reset_state: State | None = None,
        decay: PyTree = None,
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
          xs: inputs (..., T, I), or (T, ..., I) if time_major.
          h0: the initial state, with the structure of the returned state. If None, zeros are used.
          lengths: (...,) integers, the number of steps of each sequence. Later outputs are zero.
          mask: (..., T) booleans, False where the state and the output are held.
          resets: (..., T) booleans, True at the first step of an episode.
          reset_state: the state at the start of an episode, arrays (..., H) or (..., T, H). If None, zeros are used.
          decay: (..., T, H) or (..., T, 1), factors of the state before each step; see `gru_jax.unroll`.
          reverse: whether to run from the last step to the first. Outputs stay aligned with inputs.
          time_major: whether time is the first axis.
          memory: what is stored for the backward pass; see `gru_jax.unroll`.
          block_length: the number of steps in a block of the fused backend; see `gru_jax.unroll`.
          deterministic: overrides the mode of the module if not None.
          return_state: overrides `return_state` of the module if not None.
          rngs: Rngs with a stream `dropout`, such a stream, or a key. If None, the module's stream is used.

        Returns:
          ys (..., T, H), or (..., T, 2H) for merge="concat" of two directions, and the state after the last step of
          each sequence: a tuple of layers of tuples of directions, with arrays (..., H), or `LSTMState(h, c)` of them.
          Only ys if return_state is False.

        Raises:
          ValueError, TypeError: an argument has an invalid shape, dtype or value, or dropout has no stream.
        """
        key = self._key(deterministic, rngs)
        params = values(self._variables())
        params, xs, h0, reset_state, decay = promote(self.dtype, params, xs, h0, reset_state, decay)
        ys, state = unroll(
            self.stack,
            params,
            xs,
            h0,
            lengths=lengths,
            mask=mask,
            resets=resets,
            reset_state=reset_state,
            decay=decay,
            zoneout=self.zoneout,
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
        """Returns the variables in the structure of the parameters of `self.stack`."""
        return tuple(
            tuple(self.layers[str(number)][str(k)] for k in range(self.stack.directions))
            for number in range(self.stack.num_layers)
        )

    def _key(self, deterministic: bool | None, rngs: nnx.Rngs | nnx.RngStream | Array | None) -> Array | None:
        """Returns the key for dropout and zoneout; None if nothing is drawn."""
        deterministic = self.deterministic if deterministic is None else deterministic
        if not self._draws:
            return None
        arguments.boolean(f"{class_name(self)}: deterministic", deterministic)
        if deterministic:
            return None
        source: Any = self.rngs if rngs is None else rngs
        if isinstance(source, nnx.Rngs):
            source = stream(class_name(self), source, "dropout")
        if isinstance(source, nnx.RngStream):
            return source()
        expected = "a stream `dropout` in the constructor or the call in training mode"
        if source is None:
            raise ValueError(f"{class_name(self)}: rngs: expected {expected}, got None")
        if not isinstance(source, jax.Array):
            raise TypeError(f"{class_name(self)}: rngs: expected {expected}, got {type(source).__name__}")
        return source


class GRU(Recurrent):
    """Layers of gated recurrent units.

    See `gru_jax.GRU` for the equations and `Recurrent` for the remaining arguments.

    Args:
      reset: whether the reset gate multiplies "before" the product with U (Cho et al. 2014) or "after" it (PyTorch,
        Keras, Flax).
      W_init: "glorot", "orthogonal", "uniform", or an initializer `(key, shape, dtype) -> array`, for each gate of W.
      U_init: "orthogonal", "glorot", "uniform", or an initializer, for each gate of U.
      b_init: "zeros", "uniform", "chrono", or an initializer, for each gate of b.
      longest_delay: the longest delay in steps for b_init="chrono".

    Example:
      >>> layer = GRU(64, 128, num_layers=2, dropout=0.3, rngs=nnx.Rngs(0))
      >>> ys, state = layer(jnp.ones((32, 100, 64)))
      >>> layer.eval()  # Turns dropout off.
      >>> ys, state = layer(jnp.ones((32, 100, 64)), lengths=jnp.full((32,), 80))
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: str = "concat",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        *,
        zoneout: Any = 0.0,
        reset: str = "before",
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.GRU(reset, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            merge,
            dropout,
            weight_dropout,
            zoneout=zoneout,
            backend=backend,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            deterministic=deterministic,
            return_state=return_state,
            rngs=rngs,
        )


class LSTM(Recurrent):
    """Layers of long short-term memory cells.

    See `gru_jax.LSTM` for the equations and `Recurrent` for the remaining arguments.

    Args:
      forget_bias: added to the initial bias of the forget gate.
      W_init: "glorot", "orthogonal", "uniform", or an initializer `(key, shape, dtype) -> array`, for each gate of W.
      U_init: "orthogonal", "glorot", "uniform", or an initializer, for each gate of U.
      b_init: "zeros", "uniform", "chrono", or an initializer, for each gate of b.
      longest_delay: the longest delay in steps for b_init="chrono".

    Example:
      >>> layer = LSTM(64, 128, rngs=nnx.Rngs(0))
      >>> ys, ((state,),) = layer(jnp.ones((32, 100, 64)))  # One layer, one direction.
      >>> state.h.shape, state.c.shape
      ((32, 128), (32, 128))
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: str = "concat",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        *,
        zoneout: Any = 0.0,
        forget_bias: float = 1.0,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.LSTM(forget_bias, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            merge,
            dropout,
            weight_dropout,
            zoneout=zoneout,
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

    See `gru_jax.Elman` for the equations and `Recurrent` for the remaining arguments.

    Args:
      activation: "tanh" or "relu".
      W_init: "glorot", "orthogonal", "uniform", or an initializer `(key, shape, dtype) -> array`, for each gate of W.
      U_init: "orthogonal", "glorot", "uniform", or an initializer, for each gate of U.
      b_init: "zeros", "uniform", or an initializer, for each gate of b.

    Example:
      >>> layer = Elman(64, 128, activation="relu", return_state=False, rngs=nnx.Rngs(0))
      >>> ys = layer(jnp.ones((32, 100, 64)))  # ys (32, 100, 128)
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        merge: str = "concat",
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        *,
        zoneout: Any = 0.0,
        activation: str = "tanh",
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        backend: str = "auto",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        deterministic: bool | None = False,
        return_state: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.Elman(activation, W_init=W_init, U_init=U_init, b_init=b_init),
            in_features,
            hidden_features,
            num_layers,
            bidirectional,
            merge,
            dropout,
            weight_dropout,
            zoneout=zoneout,
            backend=backend,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            deterministic=deterministic,
            return_state=return_state,
            rngs=rngs,
        )
