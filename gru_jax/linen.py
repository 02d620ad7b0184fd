"""Flax Linen modules: layers around `gru_jax.unroll`, and cells for `flax.linen.RNN`.

Parameters are nested dicts of arrays: `layers/0/forward/W`, `layers/0/backward/U`, ... of a layer, `weights/W`, ... of
a cell. `parameters(variables)` returns them as arguments of `gru_jax.unroll`, `to_variables(params)` is the inverse.

Example: weight decay of the matrices only.
  >>> layer = GRU(128)
  >>> variables = layer.init(jax.random.key(0), xs)
  >>> decayed = traverse_util.path_aware_map(lambda path, _: path[-1] in ("W", "U", "kernel"), variables["params"])
  >>> optimizer = optax.adamw(1e-3, weight_decay=0.1, mask=decayed)
  >>> ys, h_last = unroll(layer.stack, layer.parameters(variables), xs)
"""

import dataclasses
import inspect
import types
from collections.abc import Mapping
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gru_jax import _arguments as arguments
from gru_jax import cells
from gru_jax._flax_conventions import (
    carry_to_state,
    check_dtype,
    check_options,
    class_name,
    describe,
    explain_keywords,
    init_with_metadata,
    promote,
    state_to_carry,
)
from gru_jax._stack import Stack
from gru_jax._types import Array, DType, Initializer, Params, PyTree, State
from gru_jax._unroll.unroll import unroll
from gru_jax._zoneout import check_zoneout
from gru_jax.cells import CELLS, Cell
from gru_jax.cells.base import check_cell, run_step

__all__ = ["GRU", "LSTM", "Elman", "ElmanCell", "GRUCell", "LSTMCell", "Recurrent", "RecurrentCell"]

DIRECTIONS = ("forward", "backward")


class Recurrent(nn.Module):
    """Layers of any cell, in one or two directions.

    Dropout works as in `flax.linen.Dropout`, and so does zoneout: a call that is not deterministic draws from the rng
    `dropout`, and raises an error if `apply` has none.

    Attributes:
      cell: the cell, e.g. `gru_jax.GRU(reset="after")`.
      features: H, the number of hidden units of each direction.
      num_layers: this attribute and those below are described in `gru_jax.nnx.Recurrent`.

    Example:
      >>> layer = Recurrent(gru_jax.LSTM(), 128, bidirectional=True, merge="sum")
      >>> (ys, state), variables = layer.init_with_output(jax.random.key(0), xs)  # ys (..., T, 128)
    """

    cell: Cell
    features: int
    num_layers: int = 1
    bidirectional: bool = False
    merge: str = "concat"
    dropout: float = 0.0
    weight_dropout: float = 0.0
    _: KW_ONLY
    zoneout: Any = 0.0
    backend: str = "auto"
    matmul_dtype: DType | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32
    deterministic: bool | None = False
    return_state: bool = True

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__init__ = explain_keywords(cls.__init__)

    @property
    def stack(self) -> Stack:
        """The `Stack` of these parameters, an argument of `gru_jax.unroll`."""
        return Stack(self.cell, self.num_layers, self.bidirectional, self.merge, self.dropout, self.weight_dropout)

    @nn.nowrap
    def parameters(self, variables: Mapping[str, Any]) -> Params:
        """Returns the parameters of `self.stack` in the variables of this module."""
        return _from_names(self.stack, nn.unbox(_collection(variables)), self.features)

    @nn.nowrap
    def to_variables(self, params: Params) -> dict[str, Any]:
        """Returns parameters of `self.stack`, e.g. from `gru_jax.interop`, as variables for `apply`."""
        self.stack.infer_sizes(params)
        return {"params": _to_names(self.stack, params)}

    @nn.nowrap
    def initial_state(self, batch_shape: tuple[int, ...] = ()) -> State:
        """Returns zeros for the state: a tuple of layers of tuples of directions, with arrays (*batch_shape, H)."""
        return self.stack.initial_state(self.features, batch_shape, self.dtype or self.param_dtype)

    @explain_keywords
    @nn.compact
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
    ) -> Any:
        """Unrolls the layers.

        Args:
          xs: inputs (..., T, I), or (T, ..., I) if time_major.
          h0: the initial state. If None, zeros are used.
          lengths: (...,) integers, the number of steps of each sequence.
          mask: (..., T) booleans, False where the state and the output are held.
          resets: (..., T) booleans, True at the first step of an episode.
          reset_state: this argument and those below are described in the call of `gru_jax.nnx.Recurrent`.
          decay: factors of the state before each step.
          reverse: whether to run from the last step to the first.
          time_major: whether time is the first axis.
          memory: what is stored for the backward pass.
          block_length: the number of steps in a block of the fused backend.
          deterministic: overrides the attribute if not None.
          return_state: overrides the attribute if not None.

        Returns:
          ys (..., T, H), or (..., T, 2H) for merge="concat" of two directions, and the state after the last step of
          each sequence. Only ys if return_state is False.
        """
        check_cell(f"{class_name(self)}: cell", self.cell)
        check_options(self, {"features": self.features}, self.param_dtype, self.matmul_dtype, self.backend)
        stack, xs = self.stack, arguments.floating("xs", xs)
        params = _own_parameters(self, stack, xs, "(T, ..., I)" if time_major else "(..., T, I)")
        deterministic = self.deterministic if deterministic is None else deterministic
        rates = check_zoneout(f"{class_name(self)}: zoneout", self.zoneout)
        draws = any(rates.of_arrays(f"{class_name(self)}: zoneout", self.cell.initial_state(1))) or stack.drops
        if draws:
            arguments.boolean(f"{class_name(self)}: deterministic", deterministic)
        key = self.make_rng("dropout") if draws and not deterministic else None
        dtype = check_dtype(self, self.dtype)
        params, xs, h0, reset_state, decay = promote(dtype, params, xs, h0, reset_state, decay)
        ys, state = unroll(
            stack,
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


class GRU(Recurrent):
    """Layers of gated recurrent units.

    See `gru_jax.GRU` for the equations and `gru_jax.nnx.GRU` and `Recurrent` for the remaining attributes.

    Example:
      >>> layer = GRU(128, num_layers=2, dropout=0.3)
      >>> variables = layer.init(jax.random.key(0), xs)
      >>> ys, state = layer.apply(variables, xs, rngs={"dropout": jax.random.key(1)})
      >>> ys, state = layer.apply(variables, xs, deterministic=True)
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    reset: str = "before"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        cell = cells.GRU(
            self.reset, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init, longest_delay=self.longest_delay
        )
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


class LSTM(Recurrent):
    """Layers of long short-term memory cells.

    See `gru_jax.LSTM` for the equations and `gru_jax.nnx.LSTM` and `Recurrent` for the remaining attributes.

    Example:
      >>> (ys, ((state,),)), variables = LSTM(128).init_with_output(jax.random.key(0), xs)  # One layer, one direction.
      >>> h, c = state.h, state.c
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    forget_bias: float = 1.0
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        cell = cells.LSTM(
            self.forget_bias,
            W_init=self.W_init,
            U_init=self.U_init,
            b_init=self.b_init,
            longest_delay=self.longest_delay,
        )
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


class Elman(Recurrent):
    """Layers of Elman networks.

    See `gru_jax.Elman` for the equations and `gru_jax.nnx.Elman` and `Recurrent` for the remaining attributes.

    Example:
      >>> ys, variables = Elman(128, activation="relu", return_state=False).init_with_output(jax.random.key(0), xs)
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    activation: str = "tanh"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    def __post_init__(self):
        cell = cells.Elman(self.activation, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init)
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


class RecurrentCell(nn.RNNCellBase):
    """One step of any cell, for `flax.linen.RNN`. The layers are faster and have all options of `RNN`.

    The carry of an LSTM is `LSTMState(h, c)`. A plain tuple is read in the order of Flax, (c, h), and then the new
    carry is such a tuple, too.

    Attributes:
      cell: the cell, e.g. `gru_jax.GRU(reset="after")`.
      features: H, the number of hidden units.
      matmul_dtype: this attribute and those below are described in `gru_jax.nnx.RecurrentCell`.

    Example:
      >>> rnn = nn.RNN(RecurrentCell(gru_jax.Elman("relu"), 128))
      >>> ys, variables = rnn.init_with_output(jax.random.key(0), xs)  # ys (..., T, 128)
    """

    cell: Cell
    features: int
    _: KW_ONLY
    matmul_dtype: DType | None = None
    dtype: DType | None = None
    param_dtype: DType = jnp.float32

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        cls.__init__ = explain_keywords(cls.__init__)

    @nn.nowrap
    def parameters(self, variables: Mapping[str, Any]) -> Params:
        """Returns the parameters of `self.cell` in the variables of this module."""
        return _from_names(self.cell, nn.unbox(_collection(variables)), self.features)

    @nn.nowrap
    def to_variables(self, params: Params) -> dict[str, Any]:
        """Returns parameters of `self.cell` as variables for `apply`."""
        self.cell.infer_sizes(params)
        return {"params": _to_names(self.cell, params)}

    @explain_keywords
    @nn.compact
    def __call__(self, carry: State, inputs: Array) -> tuple[State, Array]:
        """Runs one step.

        Args:
          carry: the state, arrays (..., H).
          inputs: (..., I).

        Returns:
          The new carry and the output (..., H).
        """
        cell = self.cell
        check_cell(f"{class_name(self)}: cell", cell)
        check_options(self, {"features": self.features}, self.param_dtype, self.matmul_dtype)
        inputs = arguments.floating("inputs", inputs)
        params, before = _own_parameters(self, cell, inputs, "(..., I)"), carry_to_state(cell, carry)
        params, inputs, before = promote(check_dtype(self, self.dtype), params, inputs, before)
        names = {"state_name": "carry", "input_name": "inputs"}
        y, state = run_step(cell, params, before, inputs, self.matmul_dtype, **names)
        return state_to_carry(state, carry), y

    @nn.nowrap
    def initialize_carry(self, rng: Array, input_shape: tuple[int, ...]) -> State:
        """Returns zeros for the carry, arrays (..., H).

        Args:
          rng: not used.
          input_shape: the shape of the inputs, (..., I).
        """
        return self.cell.initial_state(self.features, input_shape[:-1], self.dtype or self.param_dtype)

    @property
    def num_feature_axes(self) -> int:
        """The number of feature axes of the inputs, 1."""
        return 1


class GRUCell(RecurrentCell):
    """A gated recurrent unit.

    See `gru_jax.GRU` for the equations and `GRU` and `RecurrentCell` for the remaining attributes.

    Example:
      >>> rnn = nn.RNN(GRUCell(128))
      >>> variables = rnn.init(jax.random.key(0), xs)
      >>> ys = rnn.apply(variables, xs)
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    reset: str = "before"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        cell = cells.GRU(
            self.reset, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init, longest_delay=self.longest_delay
        )
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


class LSTMCell(RecurrentCell):
    """A long short-term memory cell.

    See `gru_jax.LSTM` for the equations and `LSTM` and `RecurrentCell` for the remaining attributes.

    Example:
      >>> rnn = nn.RNN(LSTMCell(128), return_carry=True)
      >>> (state, ys), variables = rnn.init_with_output(jax.random.key(0), xs)
      >>> h, c = state.h, state.c
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    forget_bias: float = 1.0
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"
    longest_delay: int | None = None

    def __post_init__(self):
        cell = cells.LSTM(
            self.forget_bias,
            W_init=self.W_init,
            U_init=self.U_init,
            b_init=self.b_init,
            longest_delay=self.longest_delay,
        )
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


class ElmanCell(RecurrentCell):
    """An Elman cell.

    See `gru_jax.Elman` for the equations and `Elman` and `RecurrentCell` for the remaining attributes.

    Example:
      >>> rnn = nn.RNN(ElmanCell(128, activation="relu"))
      >>> ys, variables = rnn.init_with_output(jax.random.key(0), xs)
    """

    cell: Cell = field(init=False, repr=False, compare=False)
    _: KW_ONLY
    activation: str = "tanh"
    W_init: str | Initializer = "glorot"
    U_init: str | Initializer = "orthogonal"
    b_init: str | Initializer = "zeros"

    def __post_init__(self):
        cell = cells.Elman(self.activation, W_init=self.W_init, U_init=self.U_init, b_init=self.b_init)
        object.__setattr__(self, "cell", cell)
        super().__post_init__()


LAYER_EXAMPLE = """
Example:
  >>> layer = {name}(128, num_layers=2, bidirectional=True)
  >>> (ys, state), variables = layer.init_with_output(jax.random.key(0), xs)  # ys (..., T, 256)
"""
CELL_EXAMPLE = """
Example:
  >>> rnn = nn.RNN({name}(128))
  >>> ys, variables = rnn.init_with_output(jax.random.key(0), xs)  # ys (..., T, 128)
"""


def _specialize(base: Any, kind: type[Any]) -> type[Any]:
    """Returns the subclass of `Recurrent` or `RecurrentCell` for a class of cells, as `gru_jax.nnx` does."""
    name, example = (kind.__name__, LAYER_EXAMPLE) if base is Recurrent else (f"{kind.__name__}Cell", CELL_EXAMPLE)
    own = inspect.signature(kind).parameters

    def __post_init__(self: Any):
        object.__setattr__(self, "cell", kind(**{key: getattr(self, key) for key in own}))
        base.__post_init__(self)

    members = {key: p.default for key, p in own.items() if p.default is not p.empty} | {
        "__annotations__": {"cell": Cell, "_": KW_ONLY} | {key: p.annotation for key, p in own.items()},
        "__doc__": describe(kind, base.__name__, "Attributes", example).format(name=name),
        "__module__": __name__,
        "__post_init__": __post_init__,
        "cell": field(init=False, repr=False, compare=False),
    }
    return types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(members))


for _kind in CELLS.values():
    if _kind.__name__ not in __all__:
        for _module in (_specialize(Recurrent, _kind), _specialize(RecurrentCell, _kind)):
            globals()[_module.__name__] = _module
            __all__ += [_module.__name__]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...


def _collection(variables: Any) -> Any:
    """Returns the collection `params` of variables."""
    if not isinstance(variables, Mapping) or "params" not in variables:
        got = ", ".join(map(str, variables)) if isinstance(variables, Mapping) else type(variables).__name__
        raise TypeError(f"variables: expected a dict with the collection `params`, got {got or 'nothing'}")
    return variables["params"]


def _own_parameters(module: Recurrent | RecurrentCell, network: Cell | Stack, inputs: Array, layout: str) -> Params:
    """Returns the parameters of a bound module; initializes them in `init`.

    Args:
      module: the module.
      network: its cell or stack.
      inputs: arrays with the axes of `layout`.
      layout: the expected shape, for errors.

    Raises:
      ValueError, TypeError: the parameters are not those of the module.
    """
    name = "layers" if isinstance(network, Stack) else "weights"
    if inputs.ndim < layout.count(","):
        raise ValueError(f"{'xs' if name == 'layers' else 'inputs'}: expected shape {layout}, got {inputs.shape}")
    if module.has_variable("params", name):
        # `Module.param` would compare each shape with that of the initializer, in an error of its own.
        found = nn.unbox(module.get_variable("params", name))
        # Variables may have been saved as named tuples.
        params = found if isinstance(found, tuple) else _from_names(network, {name: found}, module.features)
        _, H, _ = network.infer_sizes(params)
        if module.features != H:
            raise ValueError(f"{class_name(module)}: features: expected {H}, as the parameters, got {module.features}")
        return params

    def draw(key: Array) -> dict[str, Any]:
        sizes = inputs.shape[-1], module.features
        params = init_with_metadata(network, key, *sizes, module.param_dtype, _unbox, _rebox)
        return _to_names(network, params)[name]

    return _from_names(network, {name: module.param(name, draw)}, module.features)


def _unbox(drawn: Any) -> Array:
    """Returns the array of a box with metadata, without the constraint on its sharding that `nn.unbox` applies."""
    return jax.tree.leaves(drawn)[0] if isinstance(drawn, nn.meta.AxisMetadata) else drawn


def _rebox(box: Any, array: Array) -> Any:
    return box.replace_boxed(array)


def _to_names(network: Cell | Stack, params: Params) -> dict[str, Any]:
    """Returns {"layers": {"0": {"forward": {"W": ...}}}} for a stack, {"weights": {"W": ...}} for a cell."""

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
    """The inverse of `_to_names`; raises ValueError or TypeError if the names are not those of the network."""
    cell = _without_initializers(network.cell if isinstance(network, Stack) else network)
    sizes = hidden_size, hidden_size  # Any I will do: only the names of the fields are used.
    shaped = jax.eval_shape(lambda key: init_with_metadata(cell, key, *sizes, jnp.float32, _unbox), jax.random.key(0))
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


def _without_initializers(cell: Cell) -> Cell:
    """Returns the cell with zeros for the user's initializers, which may accept one shape only."""
    if not dataclasses.is_dataclass(cell):
        return cell
    names = [f.name for f in dataclasses.fields(cell) if f.init and f.name.endswith("_init")]
    own = {name: jax.nn.initializers.zeros for name in names if callable(getattr(cell, name))}
    return dataclasses.replace(cell, **own)


def _children(path: str, node: Any, names: Any) -> Mapping[str, Any]:
    """Returns a node of the parameters; raises unless its children that are not None have these names."""
    if not isinstance(node, Mapping):
        raise TypeError(f"params: {path}: expected a dict of {', '.join(names)}, got {type(node).__name__}")
    given = [name for name, child in node.items() if child is not None]
    if sorted(given) != sorted(names):
        raise ValueError(f"params: {path}: expected {', '.join(names)}, got {', '.join(sorted(given)) or 'nothing'}")
    return node
