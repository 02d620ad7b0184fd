"""Flax Linen modules: layers that own the parameters of `gru_jax.unroll`, and cells for `flax.linen.RNN`.

Parameters are nested dictionaries of arrays with the names that weights files have: `layers/0/forward/W`,
`layers/0/backward/U`, ... of a layer, `weights/W`, ... of a cell. `parameters` of a module maps them to what
`gru_jax.unroll` takes, `to_variables` back.

Example, weight decay by name:
  >>> layer = GRU(128)
  >>> variables = layer.init(jax.random.key(0), xs)
  >>> decayed = traverse_util.path_aware_map(lambda path, _: path[-1] in ("W", "U", "kernel"), variables["params"])
  >>> optimizer = optax.adamw(1e-3, weight_decay=0.1, mask=decayed)
  >>> ys, h_last = unroll(layer.stack(), layer.parameters(variables), xs)
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Initializer, Params, State
from gru_jax._unroll.unroll import unroll
from gru_jax.cells import Cell
from gru_jax.cells.base import streaming_step
from gru_jax.flax_conventions import carry_like, computation_dtype, explained, promote, state_of_carry, title

DIRECTIONS = ("forward", "backward")


class Recurrent(nn.Module):
    """Layers of a cell; a subclass says which.

    Dropout is that of `flax.linen.Dropout`: unless deterministic, a call draws from the rng `dropout`, and it is an
    error if `apply` got none.

    Attributes:
      features: H.
      num_layers: L.
      bidirectional: whether each layer runs in both directions.
      dropout: the rate between layers, unless deterministic.
      merge: how the two directions' outputs become one: "concat", "sum", "ave" or "mul".
      weight_dropout: the rate at which recurrent weights are dropped unless deterministic, the same ones at all steps.
      backend: see `gru_jax.unroll`.
      matmul_dtype: see `gru_jax.unroll`.
      dtype: the dtype of the computation, hence of outputs and states; None for what inputs and parameters promote to,
        as in every layer of Flax. A state that is given in float32 stays so beside 16 bits.
      param_dtype: the dtype of the parameters.
      deterministic: whether nothing is dropped; None if every call says so.
      return_state: whether a call returns (ys, state), or ys alone, e.g. within `nn.Sequential`. The name is Keras', as
        the order is; Flax's `return_carry` puts the state first.
    """

    features: int
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.0
    _: KW_ONLY
    merge: str = "concat"
    weight_dropout: float = 0.0
    backend: str = "auto"
    matmul_dtype: DType | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    deterministic: bool | None = False
    return_state: bool = True

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__init__ = explained(cls.__init__)

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

    @nn.nowrap
    def parameters(self, variables: Mapping[str, Any]) -> Params:
        """Returns the parameters within this module's variables, for `self.stack()` in `gru_jax.unroll`."""
        return _from_names(self.stack(), variables["params"], self.features)

    @nn.nowrap
    def to_variables(self, params: Params) -> dict[str, Any]:
        """Returns parameters for `self.stack()`, such as `gru_jax.interop` reads, as variables for `apply`."""
        self.stack().check(params)
        return {"params": _to_names(self.stack(), params)}

    @nn.nowrap
    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Returns the state of zeros, in the dtype of the computation, or if that is None, of the parameters."""
        return self.stack().initial_state(self.features, batch_shape, self.dtype or self.param_dtype)

    @explained
    @nn.compact
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
    ) -> Any:
        """Unrolls the layers.

        Args:
          xs: (..., T, I).
          h0: the initial state; None for zeros.
          lengths: see `gru_jax.unroll`, as for all down to block_length.
          resets: (..., T) booleans that mark the first steps of episodes.
          reset_state: the state that an episode starts from; None for zeros.
          reverse: whether to run from the last step to the first.
          time_major: whether time is the first axis.
          memory: what is kept for the backward pass.
          block_length: the steps that the fused backend works on at once.
          deterministic: whether nothing is dropped; None for the module's own.
          return_state: whether to return the state; None for the module's own.

        Returns:
          ys (..., T, H) and the final state, or ys alone if not return_state. The state of an LSTM has the fields `h`
          and `c`.
        """
        stack = self.stack()
        params = _own_parameters(self, stack, xs)
        deterministic = self.deterministic if deterministic is None else deterministic
        if stack.drops:
            arguments.boolean(f"{title(self)}: deterministic", deterministic)
        key = self.make_rng("dropout") if stack.drops and not deterministic else None
        params, xs, h0, reset_state = promote(computation_dtype(self, self.dtype), params, xs, h0, reset_state)
        ys, state = unroll(
            stack,
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


class GRU(Recurrent):
    """Layers of GRUs.

    The equations, `reset`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.GRU`, the other
    attributes those of `Recurrent`.

    Example:
      >>> layer = GRU(128, num_layers=2, dropout=0.3)
      >>> variables = layer.init(jax.random.key(0), xs)
      >>> ys, state = layer.apply(variables, xs, rngs={"dropout": jax.random.key(1)})
      >>> ys, state = layer.apply(variables, xs, deterministic=True)
    """

    reset: str = "before"
    _: KW_ONLY
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.GRU(self.reset, self.W_init, self.U_init, self.b_init, self.longest_delay)


class LSTM(Recurrent):
    """Layers of LSTMs.

    The equations, `forget_bias`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.LSTM`, the
    other attributes those of `Recurrent`.

    Example:
      >>> (ys, ((state,),)), variables = LSTM(128).init_with_output(jax.random.key(0), xs)
      >>> h, c = state.h, state.c
    """

    forget_bias: float = 1.0
    _: KW_ONLY
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.LSTM(self.forget_bias, self.W_init, self.U_init, self.b_init, self.longest_delay)


class Elman(Recurrent):
    """Layers of Elman networks.

    The equations, `activation`, `W_init`, `U_init` and `b_init` are those of `gru_jax.Elman`, the other attributes
    those of `Recurrent`.
    """

    activation: str = "tanh"
    _: KW_ONLY
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.Elman(self.activation, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init)


class RecurrentCell(nn.RNNCellBase):
    """One step of a cell, for `flax.linen.RNN`; a subclass says which. The layers above are faster.

    The carry of an LSTM is an `LSTMState` of fields `h` and `c`. A plain tuple is taken as Flax orders it, (c, h), and
    the next carry is then such a tuple too.

    Attributes:
      features: H.
      matmul_dtype: see `gru_jax.unroll`.
      dtype: the dtype of the computation, hence of the state; None for what inputs and parameters promote to. A carry
        in float32 stays so beside 16 bits.
      param_dtype: the dtype of the parameters.
    """

    features: int
    _: KW_ONLY
    matmul_dtype: DType | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__init__ = explained(cls.__init__)

    @nn.nowrap
    def equations(self) -> Cell:
        """Returns the cell."""
        raise NotImplementedError

    @nn.nowrap
    def parameters(self, variables: Mapping[str, Any]) -> Params:
        """Returns the parameters within this module's variables, for `self.equations()` in `gru_jax.unroll`."""
        return _from_names(self.equations(), variables["params"], self.features)

    @nn.nowrap
    def to_variables(self, params: Params) -> dict[str, Any]:
        """Returns parameters for `self.equations()` as variables for `apply`."""
        self.equations().check(params)
        return {"params": _to_names(self.equations(), params)}

    @explained
    @nn.compact
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Maps the state and inputs (..., I) to the next state and its output (..., H)."""
        cell = self.equations()
        params, before = _own_parameters(self, cell, inputs), state_of_carry(cell, carry)
        params, inputs, before = promote(computation_dtype(self, self.dtype), params, inputs, before)
        state = streaming_step(cell, params, before, inputs, self.matmul_dtype, state_name="carry", input_name="inputs")
        return carry_like(state, carry), cell.output(state)

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> State:
        """Returns the state of zeros for inputs (..., I); rng is not used."""
        return self.equations().initial_state(self.features, input_shape[:-1], self.dtype or self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """One: the features."""
        return 1


class GRUCell(RecurrentCell):
    """A GRU cell; the equations, `reset`, `W_init`, `U_init`, `b_init` and `longest_delay` are those of `gru_jax.GRU`.

    Example:
      >>> rnn = nn.RNN(GRUCell(128))
      >>> variables = rnn.init(jax.random.key(0), xs)
      >>> ys = rnn.apply(variables, xs)
    """

    _: KW_ONLY
    reset: str = "before"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.GRU(self.reset, self.W_init, self.U_init, self.b_init, self.longest_delay)


class LSTMCell(RecurrentCell):
    """An LSTM cell; the equations and the attributes from `forget_bias` on are those of `gru_jax.LSTM`.

    The carry is an `LSTMState`, `state.h` and `state.c`; a plain tuple is Flax's (c, h).

    Example:
      >>> rnn = nn.RNN(LSTMCell(128), return_carry=True)
      >>> (state, ys), variables = rnn.init_with_output(jax.random.key(0), xs)
      >>> h, c = state.h, state.c
    """

    _: KW_ONLY
    forget_bias: float = 1.0
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.LSTM(self.forget_bias, self.W_init, self.U_init, self.b_init, self.longest_delay)


class ElmanCell(RecurrentCell):
    """An Elman cell; the equations, `activation`, `W_init`, `U_init` and `b_init` are those of `gru_jax.Elman`."""

    _: KW_ONLY
    activation: str = "tanh"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    @nn.nowrap
    def equations(self) -> Cell:
        return cells.Elman(self.activation, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init)


def _own_parameters(module: Recurrent | RecurrentCell, network: Cell | Stack, inputs: Array) -> Params:
    """Draws a bound module's parameters, or reads those that it was given."""
    name = "layers" if isinstance(network, Stack) else "weights"
    if module.has_variable("params", name) and isinstance(module.get_variable("params", name), tuple):
        return module.get_variable("params", name)  # as modules kept them before they had names

    def draw(key: Array) -> dict[str, Any]:
        return _to_names(network, network.init(key, inputs.shape[-1], module.features, module.param_dtype))[name]

    return _from_names(network, {name: module.param(name, draw)}, module.features)


def _to_names(network: Cell | Stack, params: Params) -> dict[str, Any]:
    """Names parameters: {"layers": {"0": {"forward": {"W": ...}}}} of a stack, {"weights": {"W": ...}} of a cell."""

    def fields(cell_params: Params) -> dict[str, Array]:
        return {field: array for field, array in cell_params._asdict().items() if array is not None}

    if not isinstance(network, Stack):
        return {"weights": fields(params)}
    return {
        "layers": {
            str(number): {name: fields(direction) for name, direction in zip(DIRECTIONS, layer, strict=False)}
            for number, layer in enumerate(params)
        }
    }


def _from_names(network: Cell | Stack, named: Mapping[str, Any], hidden_size: int) -> Params:
    """Undoes `_to_names`; raises where names are missing or too many."""
    cell = network.cell if isinstance(network, Stack) else network
    shaped = jax.eval_shape(lambda: cell.init(jax.random.key(0), hidden_size, hidden_size))
    expected = [field for field, leaf in shaped._asdict().items() if leaf is not None]

    def fields(path: str, given: Any) -> Params:
        arrays = {field: array for field, array in _children(path, given, expected).items() if array is not None}
        return shaped._replace(**arrays)

    if not isinstance(network, Stack):
        return fields("weights", _children("params", named, ["weights"])["weights"])
    layers = _children("params", named, ["layers"])["layers"]
    numbers = [str(number) for number in range(network.num_layers)]
    layers = _children("layers", layers, numbers)
    names = DIRECTIONS[: network.directions]
    pairs = [(f"layers/{number}", _children(f"layers/{number}", layers[number], names)) for number in numbers]
    return tuple(tuple(fields(f"{path}/{name}", layer[name]) for name in names) for path, layer in pairs)


def _children(path: str, node: Any, names: Any) -> Mapping[str, Any]:
    """Checks that a node of the parameters has these children, and no others but None."""
    if not isinstance(node, Mapping):
        raise TypeError(f"params: {path}: expected a dict of {', '.join(names)}, got {type(node).__name__}")
    given = [name for name, child in node.items() if child is not None]
    if sorted(given) != sorted(names):
        raise ValueError(f"params: {path}: expected {', '.join(names)}, got {', '.join(sorted(given)) or 'nothing'}")
    return node
