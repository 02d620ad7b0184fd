"""Every program of the suites computes the same as a plain scan, at tiny sizes; no test depends on timing."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import gru_jax
from experiments.benchmarks import cells, gpu, layer, long, streaming_step
from experiments.benchmarks.harness import check, distance
from experiments.benchmarks.libraries import MATMUL, TORCH_LSTM, installed
from experiments.benchmarks.settings import Settings, Sizes, make_problem
from experiments.schema import UserError
from gru_jax._unroll.tuning import Core

SIZES = Sizes(4, 5, 3, 6)


def settings(sizes, peers=(), devices=1):
    return Settings((sizes,), peers, seconds=0.0, min_rounds=1, devices=devices, resident=False, say=lambda line: None)


def test_layer_programs_agree_and_have_unique_names():
    problem = make_problem(SIZES, "after", "gradient")
    found = layer.candidates(problem, settings(SIZES, devices=2))
    names = [candidate.program.name for candidate in found]
    assert names == ["gru_jax float32", "gru_jax bfloat16", "gru_jax scan float32"] + [
        "gru_jax float32 x2",
        "gru_jax bfloat16 x2",
        "matmul float32",
        "matmul bfloat16",
    ]
    distances = {
        c.program.name: distance(c.program.outcome(), c.reference)[0] for c in found if c.program.library != MATMUL
    }
    assert max(d for name, d in distances.items() if "bfloat16" not in name) < 1e-5
    assert 1e-5 < distances["gru_jax bfloat16"] < 0.05
    assert all(c.program.compile_seconds > 0 for c in found)
    assert all(c.program.temp_bytes > 0 for c in found if c.program.library != MATMUL)


def test_layer_measures_the_chosen_backends(monkeypatch):
    monkeypatch.setattr("gru_jax._unroll.unroll._core", lambda dtype: Core(2**27, interpret=True))
    chosen = dataclasses.replace(settings(SIZES), backends=("fused", "pallas"))
    found = [
        c for c in layer.candidates(make_problem(SIZES, "after", "gradient"), chosen) if c.program.library != MATMUL
    ]
    names = [
        f"{library} {precision}" for library in ("gru_jax", "gru_jax pallas") for precision in ("float32", "bfloat16")
    ]
    assert [candidate.program.name for candidate in found] == names
    assert distance(found[2].program.outcome(), found[2].reference)[0] < 1e-5


@pytest.mark.parametrize("work", ["forward", "gradient"])
def test_torch_layer_computes_the_same(work):
    pytest.importorskip("torch")
    problem = make_problem(SIZES, "after", work)
    found = layer.candidates(problem, settings(SIZES, ("torch",)))
    lstm = [c.program for c in found if c.program.library == TORCH_LSTM]
    assert [(program.precision, program.calls) for program in lstm] == [("float32", 4 / 3), ("bfloat16", 4 / 3)]
    for candidate in (c for c in found if c.program.library == "torch"):
        bound = 1e-5 if candidate.program.precision == "float32" else 0.05
        assert distance(candidate.program.outcome(), candidate.reference)[0] < bound, candidate.program.name


def test_long_measures_every_memory_option_with_both_losses():
    rows = long.run(settings(SIZES))
    assert [(row.memory, row.loss) for row in rows] == [
        (memory, loss) for loss in long.LOSSES for memory in ("plain scan", *long.MEMORY)
    ]
    assert max(row.distance for row in rows) < 1e-5
    assert all(row.median_ms > 0 and row.rounds == 1 for row in rows)


def test_gpu_suite_counts_fewer_kernels_on_the_fast_path_than_in_a_plain_scan():
    problem = make_problem(SIZES, "after", "gradient")
    counts = {c.program.name: gpu.kernels_per_step(c.program) for c in layer.candidates(problem, settings(SIZES))}
    ours, scan = counts["gru_jax float32"], counts["gru_jax scan float32"]
    assert len(ours) == len(scan) == 2
    assert sum(ours) < sum(scan)


@pytest.mark.parametrize("work", cells.WORKS)
def test_programs_of_a_cell_agree(work):
    found = cells.candidates("GRU", gru_jax.GRU(), SIZES, work)
    assert [(c.program.library, c.option) for c in found] == [
        ("gru_jax scan", ""),
        ("gru_jax", ""),
        ("lax.scan of the step", ""),
        *(("gru_jax", option) for option in cells.OPTIONS),
    ]
    assert max(distance(c.program.outcome(), c.reference)[0] for c in found) < 1e-5


def test_every_cell_is_measured():
    assert {cell.__name__ for cell in gru_jax.CELLS.values()} == set(cells.all_cells())


def test_streaming_step_carries_the_state(monkeypatch):
    monkeypatch.setattr(streaming_step, "BURST", 6)
    monkeypatch.setattr(streaming_step, "PACKET", 3)
    rows = streaming_step.run(settings(Sizes(1, 1, 4, 6)))
    assert [(row.library, row.work) for row in rows] == [("gru_jax", "step"), ("gru_jax, 3 steps a call", "step")]
    assert max(row.distance for row in rows) < 1e-5


def test_block_diagonal_cells_are_compared_with_the_dense_one():
    one, eight = cells.block_candidates(Sizes(2, 3, 4, 16), "gradient")
    assert (one.option, eight.option) == ("1 blocks", "8 blocks")
    for candidate in (one, eight):
        assert check(candidate.program, candidate.reference) < 1e-5


def test_all_biases_of_a_problem_are_nonzero():
    params = make_problem(SIZES, "after", "forward").params
    assert all(np.abs(array).min() > 0 for array in (params.b, params.b_hn))


def test_unknown_peers_and_invalid_shapes_raise():
    with pytest.raises(UserError, match=r"--peers: expected any of torch, .* got 'tensorflow'"):
        installed(["tensorflow"])
    for text in ("1,2,3", "1,2,3,0", "a,b,c,d"):
        with pytest.raises(UserError, match="--shapes: expected B,T,I,H"):
            Sizes.parse(text)


def benchmark(*flags):
    command = [sys.executable, "-m", "experiments.benchmark", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_command_writes_json_and_plot(tmp_path):
    done = benchmark("--suite=streaming_step", "--quick", "--peers=", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "gru_jax float32" in done.stdout
    written = json.loads((tmp_path / "streaming_step.json").read_text())
    assert written["environment"]["versions"]["jax"]
    assert written["environment"]["cores"] >= 1
    assert [row["H"] for row in written["measurements"]] == [16, 16]  # single steps and packets
    assert (tmp_path / "streaming_step.png").exists()

    refused = benchmark("--suite=streaming_step", "--quick", "--record")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert refused.stderr.startswith("error: --record: expected a suite")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--suite=layer", "--backends=pallas"), "--backends: expected a TPU for \"pallas\", got the platform 'cpu'"),
        (("--suite=layer", "--backends=cuda"), "--backends: expected any of fused, scan, pallas, got 'cuda'"),
        (("--suite=long", "--backends=scan"), "--backends: expected --suite=layer, got --suite=long"),
    ],
)
def test_invalid_backends_are_one_line(flags, message):
    refused = benchmark(*flags)
    assert (refused.returncode, refused.stderr) == (1, f"error: {message}\n")
