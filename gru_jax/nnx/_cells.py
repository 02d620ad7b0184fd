"""Recurrent cells as NNX modules for `flax.nnx.RNN`. The layers are faster and have all options of `RNN`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import cells
from gru_jax._flax_conventions import (
    ConstructorSignature,
    carry_to_state,
    check_dtype,
    check_options,
    class_name,
    explain_keywords,
    promote,
    state_to_carry,
)
from gru_jax._types import Array, DType, Initializer, Params, State
from gru_jax.cells import Cell
from gru_jax.cells.base import check_cell, run_step
from gru_jax.nnx._variables import dtype_of, new_variables, parameters_key, stream, values


class RecurrentCell(nnx.RNNCellBase):
    """One step of any cell.

    The carry of an LSTM is `LSTMState(h, c)`. A plain tuple is read in the order of Flax, (c, h), and then the new
    carry is such a tuple, too.

    Args:
      cell: the cell, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I, the number of input features.
      hidden_features: H, the number of hidden units.
      matmul_dtype: the dtype of matmul operands, e.g. `jnp.bfloat16`; see `gru_jax.unroll`.
      dtype: the dtype of the computation and the carry. If None, inputs and parameters are promoted, as in Flax. A
        float32 carry is kept in float32 if the dtype has 16 bits.
      param_dtype: the dtype of the parameters.
      rngs: Rngs with a stream `params`.

    Example:
      >>> rnn = nnx.RNN(RecurrentCell(gru_jax.Elman("relu"), 64, 128, rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((32, 100, 64)))  # ys (32, 100, 128)
    """

    __signature__ = ConstructorSignature()

    @explain_keywords
    def __init__(
        self,
        cell: Cell,
        in_features: int,
        hidden_features: int,
        *,
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        check_cell(f"{class_name(self)}: cell", cell)
        sizes = {"in_features": in_features, "hidden_features": hidden_features}
        check_options(self, sizes, param_dtype, matmul_dtype)
        self.cell = cell
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.matmul_dtype = matmul_dtype
        self.dtype = check_dtype(self, dtype)
        self.param_dtype = param_dtype
        key = parameters_key(class_name(self), rngs)
        self.weights = nnx.data(new_variables(cell, key, in_features, hidden_features, param_dtype))

    def parameters(self) -> Params:
        """Returns the parameters of `self.cell`."""
        return values(self.weights)

    @explain_keywords
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Runs one step.

        Args:
          carry: the state, arrays (..., H).
          inputs: (..., I).

        Returns:
          The new carry and the output (..., H).
        """
        before = carry_to_state(self.cell, carry)
        params, inputs, before = promote(self.dtype, values(self.weights), inputs, before)
        names = {"state_name": "carry", "input_name": "inputs"}
        y, state = run_step(self.cell, params, before, inputs, self.matmul_dtype, **names)
        return state_to_carry(state, carry), y

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None) -> State:
        """Returns the initial carry.

        Args:
          input_shape: the shape of the inputs, (..., I).
          rngs: Rngs with a stream `carry`, or such a stream, for carry_init.
          carry_init: an initializer `(key, shape, dtype) -> array`. If None, zeros are used.

        Returns:
          The carry, arrays (..., H).
        """
        dtype = dtype_of(values(self.weights)) if self.dtype is None else self.dtype
        state = self.cell.initial_state(self.hidden_features, input_shape[:-1], dtype)
        if carry_init is None:
            return state
        if not isinstance(rngs, (nnx.Rngs, nnx.RngStream)):
            got = "None" if rngs is None else type(rngs).__name__
            kind = ValueError if rngs is None else TypeError
            raise kind(f"rngs: expected Rngs with a stream `carry` for carry_init, got {got}")
        draw = stream(class_name(self), rngs, "carry") if isinstance(rngs, nnx.Rngs) else rngs
        return jax.tree.map(lambda leaf: carry_init(draw(), leaf.shape, leaf.dtype), state)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the inputs, 1."""
        return 1


class GRUCell(RecurrentCell):
    """A gated recurrent unit.

    See `gru_jax.GRU` for the equations and `GRU` and `RecurrentCell` for the remaining arguments.

    Example:
      >>> rnn = nnx.RNN(GRUCell(64, 128, rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((32, 100, 64)))  # ys (32, 100, 128)
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reset: str = "before",
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.GRU(reset, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )


class LSTMCell(RecurrentCell):
    """A long short-term memory cell.

    See `gru_jax.LSTM` for the equations and `LSTM` and `RecurrentCell` for the remaining arguments.

    Example:
      >>> cell = LSTMCell(64, 128, rngs=nnx.Rngs(0))
      >>> state, y = cell(cell.initialize_carry((32, 64)), jnp.ones((32, 64)))
      >>> state.h.shape, state.c.shape
      ((32, 128), (32, 128))
      >>> (c, h), y = cell((state.c, state.h), jnp.ones((32, 64)))  # In the order of Flax.
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: float = 1.0,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.LSTM(forget_bias, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay),
            in_features,
            hidden_features,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )


class ElmanCell(RecurrentCell):
    """An Elman cell.

    See `gru_jax.Elman` for the equations and `Elman` and `RecurrentCell` for the remaining arguments.

    Example:
      >>> rnn = nnx.RNN(ElmanCell(64, 128, activation="relu", rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((32, 100, 64)))  # ys (32, 100, 128)
    """

    @explain_keywords
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "tanh",
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            cells.Elman(activation, W_init=W_init, U_init=U_init, b_init=b_init),
            in_features,
            hidden_features,
            matmul_dtype=matmul_dtype,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
