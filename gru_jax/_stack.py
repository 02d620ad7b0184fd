"""Dropout, and stacks of recurrent layers in one or two directions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import register_static

from gru_jax import _arguments as arguments
from gru_jax._random import CHANCES, draw
from gru_jax._types import Array, DType, Params, State
from gru_jax.cells.base import Cell, LinearCell, check_cell


def dropout(x: Array, rate: float, key: Array | None) -> Array:
    """Sets random elements to zero and scales the others by `1 / (1 - rate)`.

    Args:
      x: an array of any shape.
      rate: the probability that an element is set to zero, in [0, 1), to within 2⁻¹⁷.
      key: a PRNG key, which is consumed. If None, x is returned.

    Returns:
      An array with the shape and dtype of x.

    Raises:
      ValueError, TypeError: if an argument is invalid.

    Reference: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """
    x = arguments.floating("dropout: x", x)
    arguments.fraction("dropout: rate", rate)
    if key is not None:
        arguments.prng_key("dropout: key", key)
    if key is None or rate == 0 or x.size == 0:
        return x
    chances = max(1, round((1 - rate) * CHANCES))
    return jnp.where(draw(key, chances, x.shape), x * (CHANCES / chances), 0)


MERGES: dict[str, Callable[[Array, Array], Array]] = {
    "concat": lambda forward, backward: jnp.concatenate([forward, backward], axis=-1),
    "sum": jnp.add,
    "ave": lambda forward, backward: (forward + backward) / 2,
    "mul": jnp.multiply,
}
"""How the outputs of two directions are merged, as Keras names it."""


@register_static
@dataclass(frozen=True)
class Stack:
    """Several layers of the same kind of cell. Each layer's inputs are the outputs of the layer below.

    `gru_jax.unroll` runs a stack like a cell. Parameters and states are tuples with an entry per layer, each a tuple
    `(forward,)` or `(forward, backward)`. Lengths, mask, resets, decay and zoneout apply to every layer and direction.
    A reset at step t separates steps t - 1 and t: the forward direction restarts at t, the backward direction at
    t - 1. So episodes packed into one sequence have the same outputs as each alone. For bfloat16 and float16
    parameters, activations between layers are kept in float32.

    Args:
      cell: a cell.
      num_layers: L, the number of layers.
      bidirectional: whether each layer also runs in reverse, with separate parameters.
      merge: how the outputs of two directions are merged: "concat" (2H, forward first), "sum", "ave" or "mul" (H).
      dropout: the rate of dropout between layers, applied if `unroll` gets a key.
      weight_dropout: the rate of dropout of the recurrent weights `U`, with the same mask for all steps of a call,
        applied if `unroll` gets a key.

    Example:
      >>> stack = Stack(GRU(), num_layers=2, bidirectional=True, dropout=0.3)
      >>> params = stack.init(jax.random.key(0), input_size=64, hidden_size=128)
      >>> ys, h_last = unroll(stack, params, jnp.ones((32, 100, 64)), key=jax.random.key(1))   # ys (32, 100, 256)

    References: Schuster and Paliwal, "Bidirectional Recurrent Neural Networks", 1997; Zaremba et al., "Recurrent
    Neural Network Regularization", 2014 (dropout between layers, not through time); Merity et al., "Regularizing and
    Optimizing LSTM Language Models", 2018 (dropout of recurrent weights).
    """

    cell: Cell
    num_layers: int = 1
    bidirectional: bool = False
    merge: str = "concat"
    dropout: float = 0.0
    weight_dropout: float = 0.0

    def __post_init__(self):
        check_cell("Stack: cell", self.cell)
        arguments.positive_int("Stack: num_layers", self.num_layers)
        arguments.boolean("Stack: bidirectional", self.bidirectional)
        check_merge("Stack: merge", self.merge)
        arguments.fraction("Stack: dropout", self.dropout)
        arguments.fraction("Stack: weight_dropout", self.weight_dropout)

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def linear(self) -> bool:
        """Whether the cell is linear in its state, see `gru_jax.LinearCell`."""
        return isinstance(self.cell, LinearCell) and self.cell.linear

    @property
    def drops(self) -> bool:
        """Whether a rate of dropout is above zero."""
        return self.dropout > 0 or self.weight_dropout > 0

    def output_size(self, hidden_size: int) -> int:
        """Returns the size of a layer's output: H, or 2H if two directions are concatenated."""
        return hidden_size * (self.directions if self.merge == "concat" else 1)

    def init(self, key: Array, input_size: int, hidden_size: int, dtype: DType = jnp.float32) -> Params:
        """Initializes the parameters of every layer and direction. The key is consumed."""
        arguments.prng_key("init: key", key)
        keys = iter(jax.random.split(key, self.num_layers * self.directions))
        arguments.positive_int("init: hidden_size", hidden_size)
        sizes = [input_size] + [self.output_size(hidden_size)] * (self.num_layers - 1)
        return tuple(
            tuple(self.cell.init(next(keys), size, hidden_size, dtype) for _ in range(self.directions))
            for size in sizes
        )

    def infer_sizes(self, params: Params) -> tuple[int, int, Any]:
        """Returns (I, H, dtype) of `params`; raises ValueError or TypeError if they do not match the stack."""
        if not isinstance(params, tuple) or hasattr(params, "_fields") or len(params) != self.num_layers:
            got = (
                f"{type(params).__name__} of {len(params)}"
                if isinstance(params, (tuple, list))
                else type(params).__name__
            )
            raise ValueError(f"params: expected a tuple of {self.num_layers} layers, got {got}")
        first: tuple[int, int, Any] | None = None
        for number, layer in enumerate(params):
            if not isinstance(layer, tuple) or hasattr(layer, "_fields") or len(layer) != self.directions:
                raise ValueError(
                    f"params[{number}]: expected a tuple of {self.directions} directions, got {type(layer).__name__}"
                    + (f" of {len(layer)}" if isinstance(layer, (tuple, list)) else "")
                )
            for direction, cell_params in enumerate(layer):
                if self.weight_dropout > 0 and not hasattr(cell_params, "U"):
                    raise ValueError(
                        f"params[{number}][{direction}]: expected a field U for weight_dropout to act on, "
                        f"got {type(cell_params).__name__}"
                    )
                try:
                    sizes = self.cell.infer_sizes(cell_params)
                except (TypeError, ValueError) as error:
                    raise type(error)(f"params[{number}][{direction}]: {error}") from None
                first = first or sizes
                expected = (first[0] if number == 0 else self.output_size(first[1]), *first[1:])
                if sizes != expected:
                    name = f"params[{number}][{direction}]"
                    raise ValueError(f"{name}: expected I, H and dtype {_sizes(expected)}, got {_sizes(sizes)}")
        assert first is not None
        return first

    def initial_state(self, hidden_size: int, batch_shape: tuple[int, ...] = (), dtype: DType = jnp.float32) -> State:
        """Returns the zero state of every layer and direction."""
        # Separate arrays: a state whose leaves share a buffer cannot be donated.
        return tuple(
            tuple(self.cell.initial_state(hidden_size, batch_shape, dtype) for _ in range(self.directions))
            for _ in range(self.num_layers)
        )

    def output(self, state: State) -> Array:
        """Returns the output (..., H) of a state, from its last layer. Stacks of two directions have none."""
        if self.bidirectional:
            raise ValueError("cell: expected a stack of one direction, got bidirectional=True")
        return self.cell.output(state[-1][0])

    def compose(
        self,
        run: Callable[..., Any],
        params: Params,
        xs: Array,
        *,
        reverse: bool,
        key: Array | None,
    ) -> tuple[Array, State]:
        """Runs the layers in turn, each by `run(cell, params, xs, at=(layer, direction), reverse=...)`.

        Args:
          run: runs one cell over time, or for one step, and returns its outputs and final state.
          params: the parameters of the stack.
          xs: (T, B, I), or (..., I) for one step.
          reverse: whether to run from the last step to the first.
          key: a PRNG key for dropout; None for no dropout. It is consumed.

        Returns:
          The outputs and the final states.
        """
        if key is not None and self.weight_dropout > 0:
            key, key_weights = jax.random.split(key)
            params = self._drop_weights(params, key_weights)
        final = []
        for number, layer_params in enumerate(params):
            if number > 0 and key is not None and self.dropout > 0:
                key, key_mask = jax.random.split(key)
                xs = dropout(xs, self.dropout, key_mask)
            outputs = [
                run(self.cell, cell_params, xs, at=(number, direction), reverse=reverse != bool(direction))
                for direction, cell_params in enumerate(layer_params)
            ]
            ys = [y for y, _ in outputs]
            final.append(tuple(state for _, state in outputs))
            xs = ys[0] if len(ys) == 1 else MERGES[self.merge](*ys)
        return xs, tuple(final)

    def _drop_weights(self, params: Params, key: Array) -> Params:
        """Drops entries of every recurrent matrix."""
        keys = iter(jax.random.split(key, self.num_layers * self.directions))
        return tuple(
            tuple(cell._replace(U=dropout(cell.U, self.weight_dropout, next(keys))) for cell in layer)
            for layer in params
        )


def check_merge(name: str, merge: Any) -> None:
    """Checks `merge`; for None, which other libraries use for separate outputs, the error names the alternative."""
    if merge is None:
        raise ValueError(
            f'{name}: expected one of {", ".join(map(repr, MERGES))}, got None: use "concat", and '
            "jnp.split(ys, 2, axis=-1) for the two directions apart"
        )
    arguments.one_of(name, merge, MERGES)


def _sizes(sizes: tuple[int, int, Any]) -> str:
    return f"{sizes[0]}, {sizes[1]}, {jnp.dtype(sizes[2])}"
