"""The gate layouts and networks of other libraries, and the table of converters in the docs."""

import importlib
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
import gru_jax.interop
from gru_jax._stack import MERGES
from gru_jax.interop import equinox, flax, haiku, keras, torch
from gru_jax.interop.onnx._node import read_node, write_weights

ROOT = Path(__file__).resolve().parents[3]
I, H = 2, 5
CELLS = {
    "before": gru_jax.GRU(),
    "after": gru_jax.GRU(reset="after"),
    "LSTM": gru_jax.LSTM(),
    "Elman": gru_jax.Elman(),
    "Elman (relu)": gru_jax.Elman(activation="relu"),
}
# All entries of W, U and b of a gate equal its position, from 1. b_hn is 9.
MARKS = {"before": "rzn", "after": "rzn", "LSTM": "ifgo", "Elman": "h", "Elman (relu)": "h"}
B_HN = 9
ELMAN = ("Elman", "Elman (relu)")


class Library(NamedTuple):
    """A library: the order of its gates, the layout of its matrices and biases, and its networks."""

    module: str
    function: str
    gru: str
    lstm: str
    z_weighs: str
    resets: tuple[str, ...]
    W: str
    biases: str
    elman: tuple[str, ...] = ("Elman", "Elman (relu)")
    stack: bool = True
    merges: tuple[str, ...] = tuple(MERGES)


BOTH, AFTER, BEFORE = ("before", "after"), ("after",), ("before",)
LIBRARIES = {
    "PyTorch": Library("torch", "to_state_dict", "rzn", "ifgo", "old", AFTER, "(G H, I)", "two", merges=("concat",)),
    "Keras": Library("keras", "to_weights", "zrn", "ifgo", "old", BOTH, "(I, G H)", 'two for reset="after"'),
    "linen": Library("flax", "to_linen", "rzn", "ifgo", "old", AFTER, "(I, H) a gate", "one and b_hn"),
    "nnx": Library("flax", "to_nnx", "rzn", "ifgo", "old", AFTER, "(I, G H)", "one"),
    "Haiku": Library(
        "haiku",
        "to_params",
        "zrn",
        "igfo",
        "new",
        BEFORE,
        "(I, G H)",
        "one, for f less 1",
        ("Elman (relu)",),
        merges=(),
    ),
    "Equinox": Library(
        "equinox", "to_cell", "rzn", "ifgo", "old", AFTER, "(G H, I)", "one and b_hn", (), stack=False, merges=()
    ),
    "ONNX": Library("onnx", "to_model", "zrn", "iofg", "old", BOTH, "(D, G H, I)", "two"),
}
TITLES = {"linen": "Flax Linen", "nnx": "Flax NNX"}


def test_table_in_the_docs_is_correct():
    """The functions in the table are public. The resets, cells, layers and merges are those tested here."""
    lines = (ROOT / "docs/guides/migrating.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    documented = {row[0]: row[1:] for row in rows if len(row) == 8}
    for name, library in LIBRARIES.items():
        functions, _, resets, lstm, elman, layers, merges = documented[TITLES.get(name, name)]
        module = importlib.import_module(f"gru_jax.interop.{library.module}")
        first, *others = functions.replace("`", "").split(", ")
        assert first.startswith(f"{library.module}.")
        names = [first.partition(".")[2], *others]
        assert library.function in names
        assert all(callable(vars(module)[function]) for function in names)
        assert tuple(reset for reset in resets.split(", ") if reset in BOTH) == library.resets
        assert lstm == "yes"
        assert (", ".join(kind.partition("(")[2].strip(")") or "tanh" for kind in library.elman) or "no") == elman
        assert (layers == "yes") == library.stack
        assert (", ".join(library.merges) or "no") == merges


def marked(name, width=I, b_hn=B_HN):
    """Returns parameters in which every gate has a different number."""
    marks = np.repeat(np.arange(1, len(MARKS[name]) + 1, dtype=np.float32), H)
    W, U, b = (jnp.asarray(np.tile(marks, (rows, 1))) for rows in (width, H, 1))
    fields = [W, U, b[0]] + ([jnp.full(H, b_hn, jnp.float32)] if name == "after" else [])
    kind = {"before": gru_jax.GRUParams, "after": gru_jax.GRUParams, "LSTM": gru_jax.LSTMParams}
    return kind.get(name, gru_jax.ElmanParams)(*fields)


def write(library, name, b_hn=B_HN):
    """Returns marked parameters in the format of the library, and their W, U and biases."""
    cell, params = CELLS[name], marked(name, b_hn=b_hn)
    if library == "PyTorch":
        form = torch.to_state_dict(cell, params)
        W, U, *biases = (form[f"{kind}_l0"] for kind in torch.KINDS)
    elif library == "Keras":
        W, U, bias = form = keras.to_weights(cell, params)
        biases = list(np.atleast_2d(bias))
    elif library == "linen":
        form = flax.to_linen(cell, params)
        gates = "rzn" if name == "after" else "ifgo"
        W, U = (np.stack([form[f"{side}{gate}"]["kernel"] for gate in gates]) for side in "ih")
        side = "i" if name == "after" else "h"
        biases = [np.concatenate([form[f"{side}{gate}"]["bias"] for gate in gates])]
        biases += [form["hn"]["bias"]] if name == "after" else []
    elif library == "nnx":
        form = flax.to_nnx(cell, params)
        W, U = form.dense_i.kernel[...], form.dense_h.kernel[...]
        biases = [(form.dense_h if name == "LSTM" else form.dense_i).bias[...]]
    elif library == "Haiku":
        form = haiku.to_params(cell, params)
        (arrays,) = form.values()
        W, U = np.split(arrays["w"], [I]) if name == "LSTM" else (arrays["w_i"], arrays["w_h"])
        biases = [arrays["b"]]
    elif library == "Equinox":
        pytest.importorskip("equinox", reason="needs Equinox: make test-peers")
        form = equinox.to_cell(cell, params)
        W, U = form.weight_ih, form.weight_hh
        biases = [form.bias] + ([form.bias_n] if name == "after" else [])
    else:
        form = write_weights(cell, (params,))
        W, U, bias = form["W"], form["R"], form["B"]
        biases = np.split(bias[0], 2)
    return form, np.asarray(W), np.asarray(U), [np.asarray(bias) for bias in biases]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ["before", "after", "LSTM"])
def test_gates_have_the_order_and_sign_of_the_library(library, name):
    layout, b_hn = LIBRARIES[library], 0 if library == "nnx" else B_HN
    if name != "LSTM" and name not in layout.resets:
        if library == "Equinox":
            pytest.importorskip("equinox", reason="needs Equinox: make test-peers")
        (reset,) = layout.resets
        with pytest.raises(ValueError, match=rf'^cell: expected reset="{reset}", as \w+ has it, got reset="{name}"$'):
            write(library, name)
        return
    _, W, U, biases = write(library, name, b_hn)
    order = layout.lstm if name == "LSTM" else layout.gru
    signs = {"z": -1 if layout.z_weighs == "old" else 1}
    expected = np.array([signs.get(gate, 1) * (1 + MARKS[name].index(gate)) for gate in order], np.float32)
    for array, size in ((W, I), (U, H)):
        if layout.W == "(I, H) a gate":
            wanted = np.broadcast_to(expected[:, None, None], (len(order), size, H))
        else:
            axes = {"(G H, I)": (-1, 1), "(I, G H)": (1, -1), "(D, G H, I)": (1, -1, 1)}[layout.W]
            repeats = {"(G H, I)": (1, size), "(I, G H)": (size, 1), "(D, G H, I)": (1, 1, size)}[layout.W]
            wanted = np.tile(np.repeat(expected, H).reshape(axes), repeats)
        np.testing.assert_array_equal(array, wanted)
    check_biases(layout.biases, name, order, expected, biases)


def check_biases(text, name, order, expected, biases):
    b, n = np.repeat(expected, H), np.repeat([gate == "n" for gate in order], H)
    if "for f less 1" in text and name == "LSTM":
        b = b - np.repeat([float(gate == "f") for gate in order], H).astype(np.float32)
    np.testing.assert_array_equal(biases[0], b)
    second = np.where(n, B_HN, 0) if name == "after" else np.zeros_like(b)
    if text == "two" or (name == "after" and text == 'two for reset="after"'):
        assert len(biases) == 2
        np.testing.assert_array_equal(biases[1], second)
    elif "and b_hn" in text and name == "after":
        np.testing.assert_array_equal(biases[1], np.full(H, B_HN))
    else:
        assert len(biases) == 1


def test_nnx_needs_a_b_hn_of_zeros():
    with pytest.raises(
        ValueError, match=r"^params\.b_hn: expected zeros, since the GRUCell of nnx has no such bias, got up to 9"
    ):
        write("nnx", "after")


TWO_BIASES = [("PyTorch", name) for name in ("after", "LSTM", "Elman")] + [("Keras", "after")]
TWO_BIASES += [("ONNX", name) for name in CELLS]


@pytest.mark.parametrize(("library", "name"), TWO_BIASES)
def test_two_biases_are_added_except_for_b_hn(library, name):
    """For reset="after", the second bias of n is b_hn."""
    params = marked(name)
    form, _, _, biases = write(library, name)
    first, second = (
        np.arange(bias.size, dtype=np.float32) + start for start, bias in zip((0.5, 100.25), biases, strict=True)
    )
    if library == "PyTorch":
        read = torch.from_state_dict(
            form | {"bias_ih_l0": first, "bias_hh_l0": second}, nonlinearity="tanh" if name == "Elman" else None
        )[1]
    elif library == "Keras":
        read = keras.from_weights([*form[:2], np.stack([first, second])])[1]
    else:
        helper = pytest.importorskip("onnx", reason="needs ONNX: make test-peers").helper
        operator = {"before": "GRU", "after": "GRU", "LSTM": "LSTM"}.get(name, "RNN")
        options = {"linear_before_reset": int(name == "after")} if operator == "GRU" else {}
        node = helper.make_node(operator, ["X", "W", "R", "B"], ["Y"], **options)
        read = read_node(node, form | {"B": np.concatenate([first, second])[None]}).params
    order = {"PyTorch": MARKS[name], "Keras": "zrn"}.get(library) or {
        "LSTM": "iofg",
        "Elman": "h",
        "Elman (relu)": "h",
    }.get(name, "zrn")
    gates = {gate: slice(k * H, (k + 1) * H) for k, gate in enumerate(order)}
    for k, gate in enumerate(MARKS[name]):
        total = first[gates[gate]] + (0 if (gate, name) == ("n", "after") else second[gates[gate]])
        np.testing.assert_array_equal(read.b[k * H : (k + 1) * H], -total if gate == "z" else total)
    if name == "after":
        np.testing.assert_array_equal(read.b_hn, second[gates["n"]])
    np.testing.assert_array_equal(read.W, params.W)


@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_are_written_if_the_library_supports_them(name):
    """Cells, layers and merges that the library does not have raise an error of one line."""
    library = LIBRARIES[name]
    if name in ("Equinox", "ONNX"):
        pytest.importorskip(library.module, reason=f"needs {name}: make test-peers")
    to_form = vars(importlib.import_module(f"gru_jax.interop.{library.module}"))[library.function]
    reset = library.resets[-1]
    networks = [(CELLS[kind], kind, kind in (reset, "LSTM", *library.elman)) for kind in (reset, "LSTM", *ELMAN)]
    networks.append((gru_jax.Stack(CELLS[reset], 2), reset, library.stack))
    for merge in MERGES:
        networks.append((gru_jax.Stack(CELLS[reset], bidirectional=True, merge=merge), reset, merge in library.merges))
    for cell, kind, expected in networks:
        params = marked(kind, b_hn=0)
        if isinstance(cell, gru_jax.Stack):
            params = tuple((marked(kind, H if layer else I, 0),) * cell.directions for layer in range(cell.num_layers))
        if expected:
            assert to_form(cell, params) is not None
        else:
            with pytest.raises(ValueError, match=r"^cell: [^\n]+$"):
                to_form(cell, params)
