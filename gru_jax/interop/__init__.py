"""Weights from other libraries and to them.

`from_*` gives `(cell, params)`, with a `Stack` where there are several layers or directions; `to_*` takes them and
gives the other library's own form. Where that is arrays and dicts, the library need not be installed.

    functions                                  form                            cells                    layers  merge
    torch.from_state_dict, to_state_dict       state dict; from_module; files  GRU, LSTM, Elman         yes     concat
    keras.from_weights, to_weights             get_weights(); from_layer       GRU, LSTM, Elman         yes     any
    flax.from_linen, to_linen                  params                          GRU, LSTM, Elman         yes     any
    flax.from_nnx, to_nnx                      module or state                 GRU, LSTM, Elman         yes     any
    haiku.from_params, to_params               params                          GRU, LSTM, Elman (relu)  yes     no
    equinox.from_cell, to_cell                 module                          GRU, LSTM                no      no
    onnx.from_model, to_model                  ModelProto, bytes; path: .onnx  GRU, LSTM, Elman         yes     any

A layer whose gates or new state take another function than ours is refused where the form says so. Where it does not,
that of an Elman network is asked for, "tanh" or "relu", and the gated cells are taken to have sigmoid and tanh.

Here `W (I, G H)` and `U (H, G H)` have gates `[r | z | n]` or `[i | f | g | o]`, z is the weight of the new candidate,
and there is one bias, with `b_hn` apart for reset="after". There, in the same letters:

    library  GRU    LSTM     z weighs  reset          W               biases
    PyTorch  r z n  i f g o  old       after          (G H, I)        two parts
    Keras    z r n  i f g o  old       before, after  (I, G H)        one; two parts for reset="after"
    linen    r z n  i f g o  old       after          (I, H) a gate   one; b_hn apart
    nnx      r z n  i f g o  old       after          (I, G H)        one; no b_hn, which is zeros
    Haiku    z r n  i g f o  new       before         (I, G H)        one; less 1 for f
    Equinox  r z n  i f g o  old       after          (G H, I)        one; b_hn apart
    ONNX     z r n  i o f g  old       before, after  (D, G H, I)     two parts

Where z weighs the old state its weights change their sign, which loses no bit. A reset that a library does not have is
refused on the way out. U lies as W does; Haiku's LSTM has W above U in one matrix (I + H, 4H); D counts directions. Two
parts of a bias are added up on the way in, each number rounded once, but for the second part's n with reset="after": it
is b_hn. On the way out the first part is b, the second b_hn and else zeros. `python -m gru_jax.interop` converts files.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gru_jax.interop import equinox, flax, haiku, keras, onnx, torch

__all__ = ["equinox", "flax", "haiku", "keras", "onnx", "torch"]


def __getattr__(name: str) -> ModuleType:
    """Imports a library's converters when they are first named."""
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
