"""The tables in the package's docstring say what the converters do: each line is read, and put to the test."""

import importlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
import gru_jax.interop
from gru_jax._stack import MERGES
from gru_jax.interop import equinox, flax, haiku, keras, torch
from gru_jax.interop.onnx._node import read_node, write_weights

I, H = 2, 5
CELLS = {
    "before": gru_jax.GRU(),
    "after": gru_jax.GRU(reset="after"),
    "LSTM": gru_jax.LSTM(),
    "Elman": gru_jax.Elman(),
    "Elman (relu)": gru_jax.Elman(activation="relu"),
}
# W, U and b of a gate are this number; b_hn is 9.
MARKS = {"before": "rzn", "after": "rzn", "LSTM": "ifgo", "Elman": "h", "Elman (relu)": "h"}
B_HN = 9


def table(heading):
    """The rows below the line that begins with `heading`, as dicts."""
    lines = iter(gru_jax.interop.__doc__.splitlines())
    names = next(re.split(r"\s{2,}", line.strip()) for line in lines if line.split()[:1] == [heading])
    rows = []
    for line in lines:
        if not line.strip():
            return [dict(zip(names, row, strict=True)) for row in rows]
        rows.append(re.split(r"\s{2,}", line.strip()))
    raise AssertionError("a table ends with an empty line")


FUNCTIONS, LAYOUTS = table("functions"), table("library")
LIBRARIES = ["torch", "keras", "flax.linen", "flax.nnx", "haiku", "equinox", "onnx"]


def test_there_is_a_line_for_each_converter():
    assert len(FUNCTIONS) == len(LAYOUTS) == len(LIBRARIES)
    for row in FUNCTIONS:
        module, names = row["functions"].split(".", 1)
        assert all(
            callable(vars(importlib.import_module(f"gru_jax.interop.{module}"))[name]) for name in names.split(", ")
        )


def marked(name, width=I, b_hn=B_HN):
    """Parameters that tell where their gates go."""
    marks = np.repeat(np.arange(1, len(MARKS[name]) + 1, dtype=np.float32), H)
    W, U, b = (jnp.asarray(np.tile(marks, (rows, 1))) for rows in (width, H, 1))
    fields = [W, U, b[0]] + ([jnp.full(H, b_hn, jnp.float32)] if name == "after" else [])
    kind = {"before": gru_jax.GRUParams, "after": gru_jax.GRUParams, "LSTM": gru_jax.LSTMParams}
    return kind.get(name, gru_jax.ElmanParams)(*fields)


def write(library, name, b_hn=B_HN):
    """Writes marked parameters: the library's own form, W and U as it has them, and the parts of its bias."""
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


@pytest.mark.parametrize("row", LAYOUTS, ids=[row["library"] for row in LAYOUTS])
@pytest.mark.parametrize("name", ["before", "after", "LSTM"])
def test_layout(row, name):
    library, b_hn = row["library"], 0 if row["library"] == "nnx" else B_HN
    if name != "LSTM" and name not in row["reset"].split(", "):
        if library == "Equinox":
            pytest.importorskip("equinox", reason="needs Equinox: make test-peers")
        with pytest.raises(
            ValueError, match=rf'^cell: expected reset="{row["reset"]}", as \w+ has it, got reset="{name}"$'
        ):
            write(library, name)
        return
    _, W, U, biases = write(library, name, b_hn)
    order = row["LSTM" if name == "LSTM" else "GRU"].split()
    signs = {"z": -1 if row["z weighs"] == "old" else 1}
    expected = np.array([signs.get(gate, 1) * (1 + MARKS[name].index(gate)) for gate in order], np.float32)
    for array, size in ((W, I), (U, H)):
        if row["W"] == "(I, H) a gate":
            wanted = np.broadcast_to(expected[:, None, None], (len(order), size, H))
        else:
            axes = {"(G H, I)": (-1, 1), "(I, G H)": (1, -1), "(D, G H, I)": (1, -1, 1)}[row["W"]]
            repeats = {"(G H, I)": (1, size), "(I, G H)": (size, 1), "(D, G H, I)": (1, 1, size)}[row["W"]]
            wanted = np.tile(np.repeat(expected, H).reshape(axes), repeats)
        np.testing.assert_array_equal(array, wanted)
    check_biases(row["biases"], name, order, expected, biases)


def check_biases(text, name, order, expected, biases):
    b, n = np.repeat(expected, H), np.repeat([gate == "n" for gate in order], H)
    if "less 1 for f" in text and name == "LSTM":
        b = b - np.repeat([float(gate == "f") for gate in order], H).astype(np.float32)
    np.testing.assert_array_equal(biases[0], b)
    second = np.where(n, B_HN, 0) if name == "after" else np.zeros_like(b)
    if text == "two parts" or (name == "after" and 'two parts for reset="after"' in text):
        assert len(biases) == 2
        np.testing.assert_array_equal(biases[1], second)
    elif "b_hn apart" in text and name == "after":
        np.testing.assert_array_equal(biases[1], np.full(H, B_HN))
    else:
        assert text.startswith("one")
        assert len(biases) == 1


def test_nnx_takes_no_other_b_hn():
    with pytest.raises(
        ValueError, match=r"^params\.b_hn: expected zeros, for nnx's GRUCell has no such bias, got up to 9"
    ):
        write("nnx", "after")


IN_TWO_PARTS = [("PyTorch", name) for name in ("after", "LSTM", "Elman")] + [("Keras", "after")]
IN_TWO_PARTS += [("ONNX", name) for name in CELLS]


@pytest.mark.parametrize(("library", "name"), IN_TWO_PARTS)
def test_two_parts_are_added_but_for_b_hn(library, name):
    """Every part of a bias gets numbers of its own; those of the second part's n are b_hn with reset="after"."""
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


def to_form(library, cell, params):
    """Calls the library's own `to_*`."""
    package = library.partition(".")[0]
    if package in ("equinox", "onnx"):
        pytest.importorskip(package, reason=f"needs {package}: make test-peers")
    (row,) = (row for row, name in zip(FUNCTIONS, LIBRARIES, strict=True) if name == library)
    function = row["functions"].rpartition(", ")[2]
    return vars(importlib.import_module(f"gru_jax.interop.{package}"))[function](cell, params)


@pytest.mark.parametrize(("library", "row"), list(zip(LIBRARIES, FUNCTIONS, strict=True)), ids=LIBRARIES)
def test_what_a_library_has(library, row):
    """Cells, layers and directions: those in the table are written, the others are refused in one line."""
    after = "after" in LAYOUTS[LIBRARIES.index(library)]["reset"]
    kinds = {"GRU": "after" if after else "before"} | {kind: kind for kind in ("LSTM", "Elman", "Elman (relu)")}
    cells = row["cells"].split(", ")
    known = {kind: kind in cells or (kind == "Elman (relu)" and "Elman" in cells) for kind in kinds}
    networks = [(CELLS[kinds[kind]], kinds[kind], known[kind]) for kind in kinds]
    name = kinds["GRU"]
    networks.append((gru_jax.Stack(CELLS[name], 2), name, row["layers"] == "yes"))
    for merge in MERGES:
        stack = gru_jax.Stack(CELLS[name], bidirectional=True, merge=merge)
        networks.append((stack, name, row["merge"] in ("any", merge)))
    for cell, name, expected in networks:
        params = marked(name, b_hn=0)
        if isinstance(cell, gru_jax.Stack):
            params = tuple((marked(name, H if layer else I, 0),) * cell.directions for layer in range(cell.num_layers))
        if expected:
            assert to_form(library, cell, params) is not None
        else:
            with pytest.raises(ValueError, match=r"^cell: [^\n]+$"):
                to_form(library, cell, params)
