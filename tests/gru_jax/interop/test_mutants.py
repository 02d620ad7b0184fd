"""Damaged files and arrays are read, or raise one line that names the file."""

import io
import json
import re
import warnings
import zipfile

import flax.linen as nn
import pytest

import gru_jax
from gru_jax.export import load_weights, save_weights
from gru_jax.interop import flax, haiku, keras, onnx, torch
from tests.conformance.agreement import draw_params
from tests.gru_jax.interop.mutants import json_mutants, message_mutants, mutants, tree_mutants

COUNT = 150
"""The number of damaged files of each kind."""
I, H = 1, 2  # The weights are small, so that most changes are in the headers.
STACK = gru_jax.Stack(gru_jax.GRU(reset="after"), 2, bidirectional=True)


def safetensors(path):
    save_weights(path, STACK, draw_params(STACK, I, H))
    return load_weights


def onnx_model(path):
    pytest.importorskip("onnx", reason="needs ONNX: make test-peers")
    onnx.to_file(path, STACK, draw_params(STACK, I, H), lengths=True, h0=True)
    return onnx.from_model


def torch_zip(path):
    pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    torch.to_file(path, STACK, draw_params(STACK, I, H))
    return torch.from_file


def torch_pickle(path):
    """Writes the old format: pickles without a zip file."""
    module = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    arrays = torch.to_state_dict(STACK, draw_params(STACK, I, H))
    tensors = {name: module.from_numpy(array) for name, array in arrays.items()}
    module.save(tensors, path, _use_new_zipfile_serialization=False)
    return torch.from_file


def try_to_read(load, path):
    """Returns whether a file is read; otherwise it raises one line. NaN warnings are allowed."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".* weights are NaN or infinite$", UserWarning)
        try:
            load(path)
        except (TypeError, ValueError) as caught:
            error = caught
        else:
            return True
    assert type(error) in (TypeError, ValueError)
    assert str(error).startswith(f"{path}: ")
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    return False


@pytest.mark.parametrize("save", [safetensors, onnx_model, torch_zip, torch_pickle])
def test_damaged_files_raise_one_line_or_are_read(save, tmp_path):
    path = tmp_path / "weights"
    load = save(path)
    whole = path.read_bytes()
    assert try_to_read(load, path)
    read = 0
    for mutant in mutants(whole, COUNT):
        path.write_bytes(mutant)
        read += try_to_read(load, path)
    assert read < COUNT / 2


def test_damaged_pickles_in_a_zip_file_raise_one_line_or_are_read(tmp_path):
    path = tmp_path / "weights.pt"
    load = torch_zip(path)
    with zipfile.ZipFile(path) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    (name,) = (name for name in parts if name.endswith("data.pkl"))
    for mutant in [parts[name], *mutants(parts[name], COUNT)]:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for part, contents in (parts | {name: mutant}).items():
                file.writestr(part, contents)
        path.write_bytes(buffer.getvalue())
        assert try_to_read(load, path) or mutant != parts[name]


def test_onnx_models_with_wrong_fields_raise_one_line_or_are_read(tmp_path):
    path = tmp_path / "weights.onnx"
    load = onnx_model(path)
    model = pytest.importorskip("onnx").load(path)
    refused = 0
    for mutant in message_mutants(model, COUNT):
        path.write_bytes(mutant)
        refused += not try_to_read(load, path)
    assert COUNT / 4 < refused < COUNT


def test_wrong_safetensors_headers_raise_one_line_or_are_read(tmp_path):
    """The header of a safetensors file and the cell in its metadata are JSON."""
    path = tmp_path / "weights.safetensors"
    load = safetensors(path)
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    cell = json.loads(header["__metadata__"]["gru_jax"])
    headers = list(json_mutants(header, COUNT))
    for mutant in json_mutants(cell, COUNT):
        headers.append(header | {"__metadata__": {"gru_jax": json.dumps(mutant)}})
    refused = 0
    for mutant in headers:
        text = json.dumps(mutant).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + whole[end:])
        refused += not try_to_read(load, path)
    assert COUNT < refused < len(headers)


AFTER, LSTM, ELMAN = gru_jax.GRU(reset="after"), gru_jax.LSTM(), gru_jax.Elman()
RELU = gru_jax.Elman(activation="relu")
# Functions, cells, and the arguments that the weights of an Elman network do not determine.
TREES = {
    "torch": (torch.from_state_dict, torch.to_state_dict, (AFTER, LSTM, ELMAN, STACK), {"nonlinearity": "tanh"}),
    "keras": (keras.from_weights, keras.to_weights, (AFTER, gru_jax.GRU(), LSTM, ELMAN), {"activation": "tanh"}),
    "linen": (flax.from_linen, flax.to_linen, (AFTER, LSTM, ELMAN, STACK), {"module": nn.SimpleCell(H)}),
    "haiku": (haiku.from_params, haiku.to_params, (gru_jax.GRU(), gru_jax.Stack(LSTM, 2), RELU), {}),
}


@pytest.mark.parametrize("library", TREES)
def test_damaged_arrays_raise_one_line_or_are_read(library):
    read, write, cells, told = TREES[library]
    refused = 0
    for cell in cells:
        for mutant in tree_mutants(write(cell, draw_params(cell, I, H)), COUNT // len(cells)):
            try:
                read(mutant, **(told if cell == ELMAN else {}))
            except (TypeError, ValueError) as caught:
                refused += 1
                line = str(caught)
            else:
                continue
            names = r"state_dict|params(\[\d\])*|weights|reset|layer \d|module|nonlinearity|activation"
            assert re.match(rf"({names}): [^\n]*expected [^\n]+$", line), line
    assert refused > COUNT / 2
