"""Results are written, read, shown as a table and drawn."""

import dataclasses
import json

import pytest

from experiments.benchmarks import results
from experiments.benchmarks.harness import Measurement
from experiments.benchmarks.results import Results, draw, table
from experiments.runner.environment import is_clean
from experiments.schema import UserError

ROW = Measurement(
    32, 100, 64, 128, "gradient", "after", "gru_jax", "float32", 1, "auto", "mean(ys**2)",
    median_ms=10.0, minimum_ms=9.0, rounds=7, temp_bytes=20_500_000, resident_bytes=None, compile_seconds=0.3,
    distance=1e-7,
)  # fmt: skip
TORCH = dataclasses.replace(
    ROW, library="torch", median_ms=25.0, temp_bytes=None, resident_bytes=28_600_000, compile_seconds=None
)
ENVIRONMENT = {
    "machine": "a processor, 2 cores",
    "devices": 2,
    "versions": {"jax": "0.10.2"},
    "commit": "0123456789abcdef",
    "command": ["python", "-m", "experiments.benchmark", "--suite=layer"],
    "jax_backend": "cpu",
}


def test_results_are_read_as_they_were_written(tmp_path):
    found = Results("layer", ENVIRONMENT, (ROW, TORCH))
    path = results.write(tmp_path / "new", found)
    assert results.read(path.parent, "layer") == found
    assert results.read(path.parent, "long") is None
    assert [file.name for file in path.parent.iterdir()] == ["layer.json"]


def test_results_from_a_gpu_have_a_separate_file(tmp_path):
    of_gpu = Results("layer", ENVIRONMENT | {"jax_backend": "gpu"}, (ROW,))
    assert results.write(tmp_path, of_gpu).name == "layer_gpu.json"
    assert results.read(tmp_path, "layer_gpu") == of_gpu
    assert results.read(tmp_path, "layer") is None


@pytest.mark.parametrize("path", sorted(results.FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_recorded_results_are_read_under_the_name_of_their_file(path):
    found = results.read(path.parent, path.stem)
    assert found is not None
    assert found.name == path.stem
    assert found.command.startswith(f"python -m experiments.benchmark --suite={found.suite} ")


def test_error_names_a_damaged_file(tmp_path):
    (tmp_path / "layer.json").write_text(json.dumps({"suite": "layer", "measurements": [{}]}))
    with pytest.raises(UserError, match=r"layer\.json: expected the results of a benchmark"):
        results.read(tmp_path, "layer")


def test_table_has_ratios_to_every_peer_and_both_kinds_of_memory():
    lines = table([ROW, TORCH]).splitlines()
    assert lines[0] == "B=32 T=100 I=64 H=128, reset=after, gradient"
    assert lines[1].split() == ["program", "ms", "/", "torch", "temporary", "MB", "compile", "s"]
    assert lines[2].split() == ["gru_jax", "float32", "10", "0.40", "20.5", "0.30"]
    assert lines[3].split() == ["torch", "float32", "25", "1.00", "28.6", "(process)"]


def test_table_of_long_sequences_has_ratios_to_the_plain_scan_of_the_same_loss():
    rows = [
        dataclasses.replace(ROW, library=library, memory=memory, loss=loss, median_ms=ms)
        for library, memory, loss, ms in (
            ("gru_jax scan", "plain scan", "a", 10.0),
            ("gru_jax", "save", "a", 5.0),
            ("gru_jax scan", "plain scan", "b", 20.0),
            ("gru_jax", "save", "b", 5.0),
        )
    ]
    ratios = [line.split()[-3] for line in table(rows).splitlines()[2:]]
    assert ratios == ["1.00", "0.50", "1.00", "0.25"]


def test_table_without_peers_has_no_ratios():
    assert table([ROW]).splitlines()[2].split() == ["gru_jax", "float32", "10", "20.5", "0.30"]


@pytest.mark.parametrize("suite", ["layer", "long", "streaming_step"])
def test_plot_is_a_png_file(suite, tmp_path):
    rows = tuple(dataclasses.replace(row, T=T) for T in (10, 20) for row in (ROW, TORCH))
    draw(Results(suite, ENVIRONMENT, rows), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


def test_plot_of_cells_has_a_mark_for_each_cell_and_shape():
    from matplotlib.figure import Figure

    from experiments.benchmarks import results

    steps, figure = "lax.scan of the step", Figure()
    rows = [
        dataclasses.replace(ROW, cell=cell, work=work, library=library, H=H, median_ms=ms)
        for cell in ("GRU", "LSTM")
        for work in ("forward", "gradient")
        for H in (128, 256)
        for library, ms in (("gru_jax", 3.0), (steps, 4.0))
    ]
    results._ratios_of_cells(figure, [*rows, dataclasses.replace(ROW, cell="GRU", option="mask", median_ms=9.0)])
    for axes in figure.axes:
        lines = [line for line in axes.lines if line.get_label() in ("32, 100, 64, 128", "32, 100, 64, 256")]
        assert [list(line.get_xdata()) for line in lines] == [[0.75, 0.75], [0.75, 0.75]]


def rows_with_scan_and_limit(milliseconds):
    scan = dataclasses.replace(ROW, library="gru_jax scan", median_ms=4 * milliseconds)
    limit = dataclasses.replace(ROW, library="matmul", median_ms=milliseconds / 2)
    return (dataclasses.replace(ROW, median_ms=milliseconds), scan, limit, TORCH)


def test_history_has_ratios_to_the_best_peer_the_scan_and_the_limit(tmp_path):
    slower = dataclasses.replace(TORCH, library="keras", median_ms=50.0)
    results.append_to_history(tmp_path, Results("layer", ENVIRONMENT, (*rows_with_scan_and_limit(10.0), slower)))
    (line,) = results.read_history(tmp_path)
    (row,) = line["ratios"]
    assert (line["suite"], line["commit"], row["H"]) == ("layer", ENVIRONMENT["commit"], 128)
    assert (row["peer"], row["to_peer"], row["to_scan"], row["of_limit"]) == ("torch float32", 0.4, 0.25, 0.5)


def test_history_has_one_line_per_suite_commit_and_machine(tmp_path):
    for commit, milliseconds in (("a" * 16, 10.0), ("b" * 16, 8.0), ("a" * 16, 5.0)):
        found = Results("layer", ENVIRONMENT | {"commit": commit}, rows_with_scan_and_limit(milliseconds))
        results.append_to_history(tmp_path, found)
    assert [(line["commit"][0], line["ratios"][0]["to_peer"]) for line in results.read_history(tmp_path)] == [
        ("b", 0.32),
        ("a", 0.2),
    ]
    results.draw_history(tmp_path, tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG")


def test_recorded_results_are_of_commits():
    lines = [line["commit"] for line in results.read_history(results.FOLDER)]
    suites = [json.loads(path.read_text())["environment"]["commit"] for path in results.FOLDER.glob("*.json")]
    assert lines
    assert suites
    assert [commit for commit in lines + suites if not is_clean(commit)] == []


def test_recorded_history_holds_the_recorded_layer_suite():
    found = results.read(results.FOLDER, "layer")
    assert found is not None
    lines = [line for line in results.read_history(results.FOLDER) if line["suite"] == "layer"]
    assert lines[-1]["commit"] == found.environment["commit"]
    assert lines[-1]["ratios"] == results.ratios(found)
