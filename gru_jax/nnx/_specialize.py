"""Modules of one kind of cell: `Recurrent` and `RecurrentCell` with the hyperparameters of the cell as arguments."""

import types
from typing import Any

from gru_jax._flax_conventions import describe, explain_keywords, signature_with_hyperparameters
from gru_jax.nnx._layers import Recurrent

LAYER = """
Example:
  >>> layer = {name}(64, 128, num_layers=2, bidirectional=True, rngs=nnx.Rngs(0))
  >>> ys, state = layer(jnp.ones((32, 10, 64)))  # ys (32, 10, 256)
"""
CELL = """
Example:
  >>> rnn = nnx.RNN({name}(64, 128, rngs=nnx.Rngs(0)))
  >>> ys = rnn(jnp.ones((32, 10, 64)))  # ys (32, 10, 128)
"""


def specialize(base: Any, kind: type[Any]) -> type[Any]:
    """Returns the subclass of `Recurrent` or `RecurrentCell` for a class of cells.

    Args:
      base: `Recurrent` or `RecurrentCell`.
      kind: a class of cells, e.g. `gru_jax.GRU`.

    Returns:
      A class with the name of the cell, followed by "Cell" for `RecurrentCell`. Its keywords are those of the cell.
    """
    name = kind.__name__ if base is Recurrent else f"{kind.__name__}Cell"
    signature = signature_with_hyperparameters(base.__init__, kind)

    def __init__(self: Any, *args: Any, **keywords: Any):
        arguments = signature.bind(self, *args, **keywords).arguments
        own = {key: arguments.pop(key) for key in kind.__dataclass_fields__ if key in arguments}
        base.__init__(cell=kind(**own), **arguments)

    __init__.__qualname__ = f"{name}.__init__"
    __init__.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    members = {
        "__init__": explain_keywords(__init__),
        "__module__": "gru_jax.nnx",
        "__doc__": describe(kind, base.__name__, "Args", LAYER if base is Recurrent else CELL).format(name=name),
    }
    return types.new_class(name, (base,), exec_body=lambda namespace: namespace.update(members))
