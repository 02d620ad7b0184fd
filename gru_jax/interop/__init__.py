"""Converts weights between this library and others.

Each `from_*` returns `(cell, params)`, with a `Stack` as cell if there are several layers or directions. Each `to_*`
takes them and returns the form of the other library. `python -m gru_jax.interop` converts files. A library need not be
installed if its form is arrays and dicts.

    torch.from_state_dict, to_state_dict    state dicts; from_module; from_file, to_file
    keras.from_weights, to_weights          lists of get_weights(); from_layer
    flax.from_linen, to_linen               dicts of parameters
    flax.from_nnx, to_nnx                   modules; from_nnx also reads states
    haiku.from_params, to_params            dicts of parameters
    equinox.from_cell, to_cell              modules
    onnx.from_model, to_model               ModelProto; from_model also reads bytes and files; to_file

All convert the GRU and the LSTM, all but Equinox the Elman network (Haiku with relu only) and stacks. A layer with
another activation raises ValueError if its form tells the activation. Otherwise gates are taken to have a sigmoid and
new states a tanh, and the activation of an Elman network, "tanh" or "relu", is an argument.

This library has `W (I, G H)` and `U (H, G H)` with gates `[r | z | n]` or `[i | f | g | o]`, where z weights the new
candidate, one bias `b (G H,)`, and `b_hn (H,)` for reset="after". The others, in the same letters:

    library  GRU    LSTM     z weights reset          W               biases
    PyTorch  r z n  i f g o  old       after          (G H, I)        two
    Keras    z r n  i f g o  old       before, after  (I, G H)        one; two for reset="after"
    linen    r z n  i f g o  old       after          (I, H) a gate   one; b_hn by itself
    nnx      r z n  i f g o  old       after          (I, G H)        one; b_hn is zeros
    Haiku    z r n  i g f o  new       before         (I, G H)        one; for f less 1
    Equinox  r z n  i f g o  old       after          (G H, I)        one; b_hn by itself
    ONNX     z r n  i o f g  old       before, after  (D, G H, I)     two

If z weights the old state, its weights change sign, which is exact. U has the layout of W. D is the number of
directions. The LSTM of Haiku has W above U in one matrix (I + H, 4H). Two biases are added on reading, rounded once;
for reset="after" the n of the second is b_hn instead. On writing, the first is b, the second b_hn and else zeros.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gru_jax.interop import equinox, flax, haiku, keras, onnx, torch

__all__ = ["equinox", "flax", "haiku", "keras", "onnx", "torch"]


def __getattr__(name: str) -> ModuleType:
    """Imports a module of converters on first access."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
