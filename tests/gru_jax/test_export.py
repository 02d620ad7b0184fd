"""Weights as safetensors files, and programs for a process that has only JAX."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file, save_file

import gru_jax
from gru_jax.export import load_weights, save_program, save_weights, step_program, unroll_program
from gru_jax.interop.onnx import PeepholeLSTM
from gru_jax.interop.torch import from_file
from tests.conformance.agreement import assert_same_bits

I, H = 3, 4
CELLS = {
    "gru": gru_jax.GRU(b_init="chrono", longest_delay=20),
    "gru_after": gru_jax.GRU(reset="after", W_init="uniform", U_init="uniform", b_init="uniform"),
    "lstm": gru_jax.LSTM(forget_bias=0.5),
    "elman": gru_jax.Elman(b_init="uniform"),
    "elman_relu": gru_jax.Elman(activation="relu"),
    "average": gru_jax.Stack(gru_jax.Elman("relu"), 2, bidirectional=True, merge="ave"),
    "product": gru_jax.Stack(gru_jax.GRU(), 2, bidirectional=True, merge="mul"),
    "peephole_lstm": PeepholeLSTM(),
    "stack": gru_jax.Stack(gru_jax.LSTM(), 2, bidirectional=True, merge="sum", dropout=0.25),
}


@pytest.fixture
def saved(tmp_path):
    """Returns a weights file of a GRU, its cell and its parameters."""
    cell = CELLS["gru_after"]
    params = cell.init(jax.random.key(0), I, H)
    save_weights(tmp_path / "gru.safetensors", cell, params)
    return tmp_path / "gru.safetensors", cell, params


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", CELLS)
def test_saved_weights_are_loaded_bit_for_bit(name, dtype, tmp_path):
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), I, H, dtype)
    save_weights(tmp_path / "weights.safetensors", cell, params)
    read, params_read = load_weights(tmp_path / "weights.safetensors")
    assert read == cell
    assert_same_bits(params_read, params)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_float64_weights_need_x64(tmp_path, x64):
    cell = gru_jax.GRU()
    params = cell.init(jax.random.key(0), I, H, jnp.float64)
    save_weights(tmp_path / "w.safetensors", cell, params)
    assert_same_bits(load_weights(tmp_path / "w.safetensors")[1], params)
    with jax.enable_x64(False), pytest.raises(TypeError, match=r"w\.safetensors: arrays: W: expected float32 while"):
        load_weights(tmp_path / "w.safetensors")


def test_error_for_a_shard_lists_the_other_shards(tmp_path):
    files = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    names = ["head.weight", "rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    for file, name in zip(files, names, strict=True):
        save_file({name: np.ones((12, 4), np.float32)}, tmp_path / file)
    (tmp_path / "other.index.json").write_text("[]", encoding="utf-8")
    index = {"metadata": {}, "weight_map": dict(zip(names, files, strict=True))}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    for file, line in (
        (files[0], "prefix: expected a prefix of a name in the state dict, got 'rnn.'"),
        (files[2], "state_dict['rnn.'...]: weight_ih_l0: expected an array (12, I), got none; there is weight_hh_l0"),
    ):
        others = ", ".join(other for other in files if other != file)
        expected = f"{tmp_path / file}: {line}; this file is one of 3 shards, see {others}"
        for read in (load_weights, from_file):
            with pytest.raises(ValueError, match=rf"^{re.escape(expected)}$"):
                read(tmp_path / file, prefix="rnn.")


def test_names_in_the_file_are_fixed(tmp_path):
    """They are part of the file format."""
    stack = gru_jax.Stack(gru_jax.GRU(reset="after"), 2, bidirectional=True)
    save_weights(tmp_path / "w.safetensors", stack, stack.init(jax.random.key(0), I, H))
    shapes = {name: array.shape for name, array in load_file(tmp_path / "w.safetensors").items()}
    expected = {}
    for layer, width in ((0, I), (1, 2 * H)):
        for direction in ("forward", "backward"):
            prefix = f"{layer}.{direction}."
            expected |= {prefix + "W": (width, 3 * H), prefix + "U": (H, 3 * H)}
            expected |= {prefix + "b": (3 * H,), prefix + "b_hn": (H,)}
    assert shapes == expected


def rewrite(path, change, metadata=None):
    arrays = load_file(path)
    arrays = change(arrays) or arrays
    description = {"kind": "GRU", "reset": "after"} if metadata is None else metadata
    save_file(arrays, path, metadata={"gru_jax": json.dumps(description)})


def refused(path, line, error=ValueError):
    with pytest.raises(error) as caught:
        load_weights(path)
    assert str(caught.value) == f"{path}: {line}"


def test_hyperparameters_may_be_numpy_scalars(tmp_path):
    cell = gru_jax.Stack(
        gru_jax.LSTM(forget_bias=np.float32(0.5)), np.int64(2), np.bool_(True), dropout=np.float32(0.25)
    )
    save_weights(tmp_path / "w.safetensors", cell, cell.init(jax.random.key(0), I, H))
    read, _ = load_weights(tmp_path / "w.safetensors")
    assert read == gru_jax.Stack(gru_jax.LSTM(forget_bias=0.5), 2, bidirectional=True, dropout=0.25)


def test_missing_folder_raises_an_os_error(tmp_path):
    cell = gru_jax.GRU()
    with pytest.raises(FileNotFoundError, match=r"none"):
        save_weights(tmp_path / "none" / "w.safetensors", cell, cell.init(jax.random.key(0), I, H))


def test_damaged_files_raise_one_line(saved):
    path, _, _ = saved
    whole = path.read_bytes()
    for contents in (b"", whole[:5], whole[:60], whole[:-1], b"\xff" * 100):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match=r"gru\.safetensors: expected a safetensors file, got [^\n]+$"):
            load_weights(path)


def test_wrong_arrays_raise_one_line(saved):
    path, _, _ = saved
    whole = path.read_bytes()
    some = "there is U, W, b_hn"
    for change, line in (
        (lambda a: a.pop("b") is None or a, f"arrays: b: expected an array, got none; {some}"),
        (lambda a: a | {"c": a["b"]}, "arrays: c: expected no such array beside U, W, b, b_hn, got one"),
        (lambda a: a | {"U": a["U"].T.copy()}, "params.U: expected shape (12, 36), got (12, 4)"),
        (lambda a: a | {"b_hn": a["b"]}, "params.b_hn: expected shape (4,), got (12,)"),
        (lambda a: a | {"W": a["W"][0]}, "params.W: expected shape (I, 12), got (12,)"),
    ):
        path.write_bytes(whole)
        rewrite(path, change)
        refused(path, line)
    path.write_bytes(whole)
    rewrite(path, lambda a: a | {"b": a["b"].astype(np.int32)})
    refused(path, "arrays: b: expected a floating-point dtype, got int32", TypeError)
    path.write_bytes(whole)
    rewrite(path, lambda a: a | {"b": a["b"].astype(np.float16)})
    refused(path, "arrays: b: expected dtype float32, as W, got float16", TypeError)


def test_wrong_metadata_raises_one_line(saved):
    path, _, _ = saved
    kinds = ", ".join([*(cell.__name__ for cell in gru_jax.CELLS.values()), "PeepholeLSTM", "Stack"])
    for metadata, reason in (
        ({"kind": "Transformer"}, f"expected an object whose kind is one of {kinds}"),
        ([1], f"expected an object whose kind is one of {kinds}"),
        ({"kind": "GRU", "reset": "never"}, "GRU: reset: expected one of 'before', 'after', got 'never'"),
        ({"kind": "GRU", "size": 3}, "GRU.__init__() got an unexpected keyword argument 'size'"),
        ({"kind": "Stack"}, f"expected an object whose kind is one of {kinds}"),
    ):
        rewrite(path, lambda a: None, metadata)
        text = json.dumps(metadata)
        refused(path, f"metadata: gru_jax: expected a cell as JSON, got {text!r}: {reason}")
    save_file(load_file(path), path, metadata={"format": "pt"})
    line = "state_dict: weight_hh_l0: expected an array (GH, H), got none; there is U, W, b, b_hn"
    refused(path, line)


def test_options_of_state_dicts_raise_for_files_of_gru_jax(saved):
    path, _, _ = saved
    for name, value in (("prefix", "rnn."), ("nonlinearity", "relu")):
        with pytest.raises(
            ValueError, match=rf"gru\.safetensors: {name}: expected none for a file of save_weights, got [^\n]+$"
        ):
            load_weights(path, **{name: value})


def test_file_without_an_activation_is_a_tanh_network(tmp_path):
    cell = gru_jax.Elman()
    params = cell.init(jax.random.key(0), I, H)
    save_weights(tmp_path / "w.safetensors", cell, params)
    rewrite(tmp_path / "w.safetensors", lambda a: None, {"kind": "Elman", "W_init": "uniform"})
    assert load_weights(tmp_path / "w.safetensors")[0] == gru_jax.Elman("tanh", W_init="uniform")


def test_nan_weights_are_a_warning(saved):
    path, cell, params = saved
    save_weights(path, cell, params._replace(b=params.b.at[2].set(jnp.nan)))
    with pytest.warns(UserWarning, match=r"^arrays: b: 1 of 12 weights are NaN or infinite$"):
        load_weights(path)


def test_other_cells_cannot_be_saved(tmp_path):
    cell = gru_jax.GRU()
    params = cell.init(jax.random.key(0), I, H)
    with pytest.raises(TypeError, match=r"^cell: expected one of GRU, .*, PeepholeLSTM, Stack, got 'GRU'$"):
        save_weights(tmp_path / "w", "GRU", params)
    with pytest.raises(ValueError, match=r"^params\.b_hn: expected an array"):
        save_weights(tmp_path / "w", gru_jax.GRU(reset="after"), params)
    assert not list(tmp_path.iterdir())


# A process without gru_jax: it reads a program and inputs, and writes the outputs.
ALONE = """
import sys
import numpy as np, jax
program = jax.export.deserialize(open(sys.argv[1], "rb").read())
arrays = np.load(sys.argv[2])
results = {}
for case in sorted({name.partition("/")[0] for name in arrays}):
    inputs = [arrays[name] for name in sorted(arrays) if name.startswith(case + "/")]
    args = jax.tree.unflatten(program.in_tree, inputs)
    for number, leaf in enumerate(jax.tree.leaves(program.call(*args[0], **args[1]))):
        results[f"{case}/{number}"] = leaf
np.savez(sys.argv[3], **results)
assert not {"gru_jax", "flax"} & set(sys.modules), "a program needs JAX alone"
"""


def run_alone(tmp_path, program, cases):
    """Runs a program on lists of arguments in a process without gru_jax; returns lists of leaves."""
    save_program(tmp_path / "program", program)
    inputs = {
        f"{case}/{number:03}": leaf
        for case, args in enumerate(cases)
        for number, leaf in enumerate(jax.tree.leaves(args))
    }
    np.savez(tmp_path / "inputs.npz", **inputs)
    files = [str(tmp_path / name) for name in ("program", "inputs.npz", "outputs.npz")]
    done = subprocess.run([sys.executable, "-I", "-c", ALONE, *files], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(files[2]) as outputs:
        return [
            [outputs[f"{case}/{number}"] for number in range(sum(n.startswith(f"{case}/") for n in outputs))]
            for case in range(len(cases))
        ]


def assert_all_close(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["gru", "stack"])
def test_unroll_program_runs_without_gru_jax(name, tmp_path):
    """One program runs with several batch sizes and numbers of steps, with lengths and initial states."""
    cell = CELLS[name]
    params = cell.init(jax.random.key(0), I, H)
    rng = np.random.default_rng(0)
    cases, expected = [], []
    for B, T in ((2, 5), (1, 8)):
        xs = jnp.asarray(rng.normal(size=(B, T, I)), jnp.float32)
        h0 = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), cell.initial_state(H, (B,)))
        lengths = jnp.arange(T, T - B, -1, dtype=jnp.int32)
        cases.append((xs, lengths, h0))
        expected.append(gru_jax.unroll(cell, params, xs, h0, lengths=lengths))
    program = unroll_program(cell, params, lengths=True, h0=True)
    for ours, theirs in zip(expected, run_alone(tmp_path, program, cases), strict=True):
        assert_all_close(ours, theirs)


def test_step_program_runs_without_gru_jax(tmp_path):
    """Steps equal unroll."""
    stack = gru_jax.Stack(gru_jax.LSTM(), 2)
    params = stack.init(jax.random.key(0), I, H)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, I)), jnp.float32)
    ys, _ = gru_jax.unroll(stack, params, xs)
    program = step_program(stack, params)
    state = jax.tree.map(lambda aval: jnp.zeros((3, *aval.shape[1:]), aval.dtype), program.in_avals[:-1])
    state = jax.tree.unflatten(program.in_tree, [*state, xs[:, 0]])[0][0]
    for t in range(4):
        before = state
        state, y = program.call(state, xs[:, t])
        np.testing.assert_allclose(y, ys[:, t], rtol=1e-6, atol=1e-6)
    ((*last, y_alone),) = run_alone(tmp_path, program, [(before, xs[:, 3])])
    assert_all_close((state, y), [*last, y_alone])


def test_options_of_programs_are_passed_to_unroll():
    cell = gru_jax.GRU()
    params = cell.init(jax.random.key(0), I, H)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, I)), jnp.float32)
    program = unroll_program(cell, params, reverse=True, time_major=True, platforms=("cpu", "cuda", "tpu"))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert step_program(cell, params, platforms=("cpu", "tpu")).platforms == ("cpu", "tpu")
    again = export.deserialize(program.serialize())
    expected = gru_jax.unroll(cell, params, xs, reverse=True, time_major=True)
    assert_all_close(expected, jax.tree.leaves(again.call(xs)))


def test_programs_use_the_expectation_of_zoneout():
    cell, rates = gru_jax.LSTM(), (0.2, 0.4)
    params = cell.init(jax.random.key(0), I, H)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, I)), jnp.float32)
    ys, last = gru_jax.unroll(cell, params, xs, zoneout=rates)
    assert np.abs(ys - gru_jax.unroll(cell, params, xs)[0]).max() > 0.01
    assert_all_close((ys, last), jax.tree.leaves(unroll_program(cell, params, zoneout=rates).call(xs)))
    program, state = step_program(cell, params, zoneout=rates), (jnp.zeros((2, H)),) * 2
    for t in range(6):
        state, y = program.call(state, xs[:, t])
        np.testing.assert_allclose(y, ys[:, t], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("program", [unroll_program, step_program])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"platforms": "cpu"}, "platforms: expected a sequence of cpu, cuda, rocm, tpu, got 'cpu'"),
        ({"platforms": ["gpu"]}, "platforms: expected one of 'cpu', 'cuda', 'rocm', 'tpu', got 'gpu'"),
        ({"platforms": []}, "platforms: expected one or more of cpu, cuda, rocm, tpu, each once, got []"),
        (
            {"platforms": ("cpu", "cpu")},
            "platforms: expected one or more of cpu, cuda, rocm, tpu, each once, got ('cpu', 'cpu')",
        ),
        ({"platforms": 3}, "platforms: expected a sequence of cpu, cuda, rocm, tpu, got 3"),
        ({"cell": gru_jax.GRU}, "cell: expected a cell such as gru_jax.GRU(), got the class GRU"),
        ({"cell": "gru"}, "cell: expected a cell such as gru_jax.GRU(), got str"),
    ],
)
def test_programs_name_a_wrong_argument(program, change, message):
    given = {"cell": gru_jax.GRU(), "params": gru_jax.GRU().init(jax.random.key(0), 2, 3)} | change
    with pytest.raises((TypeError, ValueError)) as raised:
        program(**given)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "write", [unroll_program, step_program, lambda *given: save_weights("gru.safetensors", *given)]
)
@pytest.mark.parametrize(
    ("cell", "name"), [(gru_jax.GRU(), "params.W"), (gru_jax.Stack(gru_jax.GRU(), 2), "params[0][0].W")]
)
def test_traced_parameters_raise_one_line(write, cell, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = cell.init(jax.random.key(0), I, H)
    line = f"^{re.escape(name)}: expected a concrete array, got a tracer inside a JAX transformation"
    with pytest.raises(TypeError, match=line):
        jax.eval_shape(lambda params: write(cell, params), params)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["", ".", "folder"])
def test_weights_are_not_written_over_a_folder(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match=rf"Is a directory: '{path or '.'}'$"):
        save_weights(path, gru_jax.GRU(), gru_jax.GRU().init(jax.random.key(0), I, H))
    assert [path.name for path in tmp_path.rglob("*")] == ["folder"]


def test_something_else_than_a_program_is_not_saved(tmp_path):
    with pytest.raises(TypeError, match=r"^program: expected a jax.export.Exported, got int$"):
        save_program(tmp_path / "gru.jax", 1)
    assert not list(tmp_path.iterdir())


def test_programs_use_matmul_dtype():
    cell = gru_jax.GRU()
    params = cell.init(jax.random.key(0), I, H)
    xs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, I)), jnp.float32)
    expected, last = gru_jax.unroll(cell, params, xs, matmul_dtype=jnp.bfloat16)
    assert np.abs(expected - gru_jax.unroll(cell, params, xs)[0]).max() > 1e-4
    assert_all_close((expected, last), unroll_program(cell, params, matmul_dtype=jnp.bfloat16).call(xs))
    step, state = step_program(cell, params, matmul_dtype=jnp.bfloat16), jnp.zeros((2, H))
    for t in range(6):
        state, y = step.call(state, xs[:, t])
        np.testing.assert_allclose(y, expected[:, t], rtol=1e-6, atol=1e-6)


def test_step_program_needs_one_direction():
    stack = gru_jax.Stack(gru_jax.GRU(), bidirectional=True)
    with pytest.raises(ValueError, match=r"^cell: expected a stack of one direction, got"):
        step_program(stack, stack.init(jax.random.key(0), I, H))


def test_initializers_that_are_functions_are_not_saved(tmp_path):
    """The file has the weights but not the functions that initialized them."""
    cell = gru_jax.LSTM(0.5, W_init=jax.nn.initializers.lecun_normal(), b_init=jax.nn.initializers.constant(0.1))
    params = cell.init(jax.random.key(0), 3, 4)
    save_weights(tmp_path / "lstm.safetensors", cell, params)
    read, params_read = load_weights(tmp_path / "lstm.safetensors")
    assert read == gru_jax.LSTM(0.5)
    assert_same_bits(params_read, params)


SERIALIZED = """
import sys
import jax
import numpy as np
import gru_jax
from gru_jax.interop.onnx import PeepholeLSTMParams

program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
ones = jax.tree.map(lambda a: np.ones(a.shape, a.dtype), program.in_avals)
(gru, lstm, elman, peephole, xs), _ = jax.tree.unflatten(program.in_tree, ones)
assert [type(a) for a in (gru, lstm, elman)] == [gru_jax.GRUParams, gru_jax.LSTMParams, gru_jax.ElmanParams]
assert type(peephole) is PeepholeLSTMParams
state = program.call(gru, lstm, elman, peephole, xs)
assert type(state) is gru_jax.LSTMState, type(state)
np.savez(sys.argv[2], h=state.h, c=state.c)
"""


def test_programs_of_named_tuples_are_serialized(tmp_path):
    """A program with parameters as arguments and a state as result runs in another process."""
    cells = [CELLS[name] for name in ("gru_after", "lstm", "elman", "peephole_lstm")]

    def state(*arguments):
        *params, xs = arguments
        h = sum(gru_jax.unroll(cell, p, xs)[0].mean(1) for cell, p in zip(cells, params, strict=True))
        return gru_jax.unroll(cells[1], params[1], xs, gru_jax.LSTMState(h=h, c=2 * h))[1]

    arguments = *(cell.init(jax.random.key(0), I, H) for cell in cells), jnp.ones((2, 5, I))
    arguments = jax.tree.map(jnp.ones_like, arguments)
    (tmp_path / "program").write_bytes(export.export(jax.jit(state))(*arguments).serialize())
    command = [sys.executable, "-c", SERIALIZED, str(tmp_path / "program"), str(tmp_path / "state.npz")]
    subprocess.run(command, check=True)
    found = np.load(tmp_path / "state.npz")
    expected = state(*arguments)
    np.testing.assert_allclose(found["h"], expected.h, rtol=1e-5)
    np.testing.assert_allclose(found["c"], expected.c, rtol=1e-5)
