"""One step of a cell as an NNX module, for `flax.nnx.RNN`; the layers are faster, and do all that RNN does."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gru_jax import cells
from gru_jax._types import Array, DType, Initializer, Params, State
from gru_jax.cells import Cell
from gru_jax.cells.base import streaming_step
from gru_jax.flax_conventions import carry_like, computation_dtype, explained, promote, state_of_carry, title
from gru_jax.nnx.variables import dtype_of, parameters_key, stream, values


class RecurrentCell(nnx.RNNCellBase):
    """One step of any cell.

    The carry of an LSTM is an `LSTMState` of fields `h` and `c`. A plain tuple is taken as Flax orders it, (c, h), and
    the next carry is then such a tuple too.

    Args:
      cell: the cell's equations, e.g. `gru_jax.GRU(reset="after")`.
      in_features: I.
      hidden_features: H.
      matmul_dtype: see `gru_jax.unroll`.
      dtype: the dtype of the computation, hence of the state; None for what inputs and parameters promote to. A carry
        in float32 stays so beside 16 bits.
      param_dtype: the dtype of the parameters.
      rngs: draws the parameters from the stream `params`.
    """

    @explained
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
        self.cell = cell
        self.in_features = in_features
        self.hidden_features = hidden_features
        self.matmul_dtype = matmul_dtype
        self.dtype = computation_dtype(self, dtype)
        self.param_dtype = param_dtype
        params = cell.init(parameters_key(title(self), rngs), in_features, hidden_features, param_dtype)
        self.weights = nnx.data(jax.tree.map(nnx.Param, params))

    def parameters(self) -> Params:
        """Returns the parameters as `self.cell` takes them."""
        return values(self.weights)

    @explained
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Maps the state and inputs (..., I) to the next state and its output (..., H)."""
        before = state_of_carry(self.cell, carry)
        params, inputs, before = promote(self.dtype, values(self.weights), inputs, before)
        state = streaming_step(
            self.cell, params, before, inputs, self.matmul_dtype, state_name="carry", input_name="inputs"
        )
        return carry_like(state, carry), self.cell.output(state)

    def initialize_carry(self, input_shape: tuple[int, ...], rngs: Any = None, carry_init: Any = None) -> State:
        """Returns the state before the first step, for inputs (..., I).

        Args:
          input_shape: the inputs' shape.
          rngs: Rngs with a stream `carry`, or such a stream; needed with carry_init only.
          carry_init: an initializer `(key, shape, dtype) -> array`; None for zeros.
        """
        dtype = dtype_of(values(self.weights)) if self.dtype is None else self.dtype
        state = self.cell.initial_state(self.hidden_features, input_shape[:-1], dtype)
        if carry_init is None:
            return state
        if rngs is None:
            raise ValueError("rngs: expected Rngs with a stream `carry`, for carry_init draws from it, got None")
        draw = stream(title(self), rngs, "carry") if isinstance(rngs, nnx.Rngs) else rngs
        return jax.tree.map(lambda leaf: carry_init(draw(), leaf.shape, leaf.dtype), state)

    @property
    def num_feature_axes(self) -> int:
        """One: the features."""
        return 1


class GRUCell(RecurrentCell):
    """A GRU cell; the equations, `reset`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.GRU`.

    Example:
      >>> rnn = nnx.RNN(GRUCell(64, 128, rngs=nnx.Rngs(0)))
      >>> ys = rnn(jnp.ones((32, 100, 64)))
    """

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        reset: str = "before",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        rngs: nnx.Rngs,
    ):
        cell = cells.GRU(reset, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay)
        options: dict[str, Any] = {"matmul_dtype": matmul_dtype, "dtype": dtype, "param_dtype": param_dtype}
        super().__init__(cell, in_features, hidden_features, **options, rngs=rngs)


class LSTMCell(RecurrentCell):
    """An LSTM cell; the equations and the arguments from `forget_bias` on are those of `gru_jax.LSTM`.

    The carry is an `LSTMState`, `state.h` and `state.c`; a plain tuple is Flax's (c, h).

    Example:
      >>> cell = LSTMCell(64, 128, rngs=nnx.Rngs(0))
      >>> state, y = cell(cell.initialize_carry((32, 64)), jnp.ones((32, 64)))
      >>> state.h.shape, state.c.shape
      ((32, 128), (32, 128))
      >>> (c, h), y = cell((state.c, state.h), jnp.ones((32, 64)))
    """

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        forget_bias: float = 1.0,
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        longest_delay: int | None = None,
        rngs: nnx.Rngs,
    ):
        cell = cells.LSTM(forget_bias, W_init=W_init, U_init=U_init, b_init=b_init, longest_delay=longest_delay)
        options: dict[str, Any] = {"matmul_dtype": matmul_dtype, "dtype": dtype, "param_dtype": param_dtype}
        super().__init__(cell, in_features, hidden_features, **options, rngs=rngs)


class ElmanCell(RecurrentCell):
    """An Elman cell; the equations, `activation`, `W_init`, `U_init` and `b_init` are those of `gru_jax.Elman`."""

    @explained
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        activation: str = "tanh",
        matmul_dtype: DType | None = None,
        dtype: DType | None = None,
        param_dtype: DType = jnp.float32,
        W_init: str | Initializer = "glorot",
        U_init: str | Initializer = "orthogonal",
        b_init: str | Initializer = "zeros",
        rngs: nnx.Rngs,
    ):
        cell = cells.Elman(activation, W_init=W_init, U_init=U_init, b_init=b_init)
        options: dict[str, Any] = {"matmul_dtype": matmul_dtype, "dtype": dtype, "param_dtype": param_dtype}
        super().__init__(cell, in_features, hidden_features, **options, rngs=rngs)
