"""The command `python -m gru_jax.interop` converts files. Its errors are one line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gru_jax
from gru_jax.export import load_weights, save_weights
from gru_jax.interop.__main__ import main
from tests.conformance.agreement import assert_same_bits, draw_params

ROOT = Path(__file__).resolve().parents[3]
I, H = 3, 4
CELLS = {
    "gru": gru_jax.GRU(reset="after"),
    "stack": gru_jax.Stack(gru_jax.LSTM(), 2, bidirectional=True),
    "relu": gru_jax.Elman(activation="relu"),
}


def save(path, name="gru", dtype=jnp.float32):
    cell = CELLS[name]
    params = draw_params(cell, I, H, dtype)
    save_weights(path, cell, params)
    return cell, params


def convert(source, target, *options):
    return main(["--from", str(source), "--to", str(target), *options])


def assert_same(path, cell, params):
    read, params_read = load_weights(path)
    assert read == cell
    assert_same_bits(params_read, params)


@pytest.mark.parametrize("ending", ["onnx", "pt", "pth"])
@pytest.mark.parametrize("name", CELLS)
def test_round_trip_is_exact(name, ending, tmp_path, capsys):
    package = {"onnx": "onnx"}.get(ending, "torch")
    pytest.importorskip(package, reason=f"needs {package}: make test-peers")
    cell, params = save(tmp_path / "a.safetensors", name)
    assert convert(tmp_path / "a.safetensors", tmp_path / f"b.{ending}") == 0
    told = ["--nonlinearity=relu"] if name == "relu" and ending != "onnx" else []
    assert convert(tmp_path / f"b.{ending}", tmp_path / "c.safetensors", *told) == 0
    assert_same(tmp_path / "c.safetensors", cell, params)
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        f"{tmp_path / file}: {cell}, I = 3, H = 4, float32" for file in (f"b.{ending}", "c.safetensors")
    ]
    assert not printed.err


def test_float64_weights_are_kept(tmp_path):
    pytest.importorskip("onnx", reason="needs ONNX: make test-peers")
    with jax.enable_x64(True):
        cell, params = save(tmp_path / "a.safetensors", dtype=jnp.float64)
    assert convert(tmp_path / "a.safetensors", tmp_path / "b.onnx") == 0
    assert convert(tmp_path / "b.onnx", tmp_path / "c.safetensors") == 0
    with jax.enable_x64(True):
        assert_same(tmp_path / "c.safetensors", cell, params)


def test_options_are_passed_to_the_converters(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    onnx = pytest.importorskip("onnx", reason="needs ONNX: make test-peers")
    model = torch.nn.ModuleDict({"rnn": torch.nn.GRU(I, H), "head": torch.nn.Linear(H, 2)})
    torch.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "checkpoint.pt")
    options = ("--prefix=model.rnn.", "--lengths", "--h0", "--time_major")
    assert convert(tmp_path / "checkpoint.pt", tmp_path / "gru.onnx", *options) == 0
    graph = onnx.load(tmp_path / "gru.onnx").graph
    assert [value.name for value in graph.input] == ["xs", "lengths", "h0"]
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == ["T", "B", ""]
    assert convert(tmp_path / "gru.onnx", tmp_path / "gru.safetensors", "--merge=sum") == 0
    W_r = load_weights(tmp_path / "gru.safetensors")[1].W[:, :H]
    np.testing.assert_array_equal(W_r, model["rnn"].weight_ih_l0[:H].detach().numpy().T)


def test_errors_are_one_line(tmp_path, capsys):
    save(tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:100])
    (tmp_path / "folder.safetensors").mkdir()
    for source, target, options, line in (
        ("none.safetensors", "b.safetensors", (), r"{}/none\.safetensors: No such file or directory"),
        ("folder.safetensors", "b.safetensors", (), r"{}/folder\.safetensors: Is a directory"),
        ("cut.safetensors", "b.safetensors", (), r"{}/cut\.safetensors: expected a safetensors file, got [^\n]*"),
        (
            "a.h5",
            "b.safetensors",
            (),
            r"{}/a\.h5: expected a file that ends in \.safetensors, \.onnx, \.pt, \.pth, got \.h5",
        ),
        ("a.safetensors", "b", (), r"{}/b: expected a file that ends in [^\n]*, got no ending"),
        ("a.safetensors", "none/b.pt", (), r"{}/none/b\.pt: No such file or directory"),
        ("a.safetensors", "none/b.onnx", (), r"{}/none/b\.onnx: No such file or directory"),
        ("a.safetensors", "folder.safetensors", (), r"{}/folder\.safetensors: Is a directory"),
        ("a.safetensors", "b.pt", ("--h0",), r"--h0: expected only with a file that ends in \.onnx, got {}/b\.pt"),
        (
            "a.safetensors",
            "b.pt",
            ("--merge=sum",),
            r"--merge: expected only with a file that ends in \.onnx, got [^\n]*",
        ),
        (
            "a.safetensors",
            "b.pt",
            ("--prefix=x",),
            r"{}/a\.safetensors: prefix: expected none for a file of save_weights, got [^\n]*",
        ),
    ):
        assert convert(tmp_path / source, tmp_path / target, *options) == 1
        printed = capsys.readouterr()
        assert not printed.out
        assert re.fullmatch(rf"error: {line.format(str(tmp_path))}\n", printed.err), printed.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors",
        "cut.safetensors",
        "folder.safetensors",
    ]
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["--from", "a.safetensors"])


def test_nan_weights_are_a_warning(tmp_path, capsys):
    cell, params = save(tmp_path / "a.safetensors")
    save_weights(tmp_path / "a.safetensors", cell, params._replace(b_hn=params.b_hn.at[0].set(jnp.nan)))
    assert convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors") == 0
    assert capsys.readouterr().err == "warning: arrays: b_hn: 1 of 4 weights are NaN or infinite\n"


@pytest.mark.parametrize(("package", "file"), [("torch", "a.pt"), ("onnx", "a.onnx"), ("safetensors", "b.safetensors")])
def test_missing_package_is_named(package, file, tmp_path, capsys, monkeypatch):
    save(tmp_path / "a.safetensors")
    monkeypatch.setitem(sys.modules, package, None)
    assert convert(tmp_path / file, tmp_path / "c.safetensors") == 1
    printed = capsys.readouterr().err
    assert re.fullmatch(
        rf"error: {package}: expected this package to read [^\n]+, got none installed: pip install {package}\n", printed
    )


def test_command_runs_as_a_process(tmp_path):
    cell, params = save(tmp_path / "a.safetensors", "stack")
    command = [sys.executable, "-m", "gru_jax.interop", "--from=a.safetensors", "--to=b.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"b.safetensors: {cell}, I = 3, H = 4, float32\n"
    assert_same(tmp_path / "b.safetensors", cell, params)


def test_closed_pipe_and_ascii_output_do_not_fail(tmp_path):
    cell, params = save(tmp_path / "a.safetensors")
    target = tmp_path / "Größe.safetensors"
    command = [sys.executable, "-m", "gru_jax.interop", "--from", str(tmp_path / "a.safetensors"), "--to", str(target)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, env=environment, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    assert_same(target, cell, params)
    done = subprocess.run(command, env=environment | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"Gr\xf6\xdfe.safetensors: GRU(" in done.stdout


def test_safetensors_of_a_pytorch_state_dict_are_converted(tmp_path, capsys):
    torch = pytest.importorskip("torch", reason="needs PyTorch: make test-peers")
    save_file = pytest.importorskip("safetensors.torch").save_file
    model = torch.nn.ModuleDict({"rnn": torch.nn.RNN(I, H, nonlinearity="relu"), "head": torch.nn.Linear(H, 2)})
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert convert(tmp_path / "model.safetensors", tmp_path / "rnn.onnx") == 1
    assert capsys.readouterr().err.endswith("; choose prefix='rnn.'\n")
    assert convert(tmp_path / "model.safetensors", tmp_path / "rnn.onnx", "--prefix=rnn.") == 1
    assert capsys.readouterr().err.endswith("does not tell, got None\n")
    assert convert(tmp_path / "model.safetensors", tmp_path / "rnn.pt", "--prefix=rnn.", "--nonlinearity=relu") == 0
    assert convert(tmp_path / "rnn.pt", tmp_path / "rnn.safetensors", "--nonlinearity=relu") == 0
    cell, params = load_weights(tmp_path / "rnn.safetensors")
    assert cell == gru_jax.Elman("relu")
    np.testing.assert_array_equal(params.W, model["rnn"].weight_ih_l0.detach().numpy().T)
