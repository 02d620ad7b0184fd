"""The page on speed shows the measured ratios and their targets."""

import dataclasses
import pathlib

import pytest

from experiments.benchmarks import results
from experiments.benchmarks.results import Results
from experiments.reporting import published
from experiments.reporting.speed import section, verdict
from tests.experiments.benchmarks.test_results import ENVIRONMENT, ROW

TARGETS = published.read_speed_targets(pathlib.Path(__file__).parents[3] / "experiments" / "results")


@pytest.mark.parametrize(
    ("ratio", "target", "said"),
    [
        (0.43, 0.46, "0.43 (≤ 0.46)"),
        (0.464, 0.46, "0.46 (≤ 0.46)"),
        (0.47, 0.46, "**0.47 (> 0.46)**"),
        (0.5, None, "0.50"),
    ],
)
def test_ratio_is_shown_with_its_target(ratio, target, said):
    assert verdict(ratio, target) == said


def test_section_is_empty_without_results(tmp_path):
    assert section(tmp_path, TARGETS) == ""


def layer_rows():
    """Yields times in ms: ours 10 in float32 and 5 in bfloat16, torch 20, linen 16."""
    for reset in ("after", "before"):
        peers = (("torch", 20.0), ("linen", 16.0)) if reset == "after" else (("haiku", 40.0), ("keras", 12.5))
        for work in ("forward", "gradient"):
            ours = (
                ("gru_jax", "float32", 1, 10.0),
                ("gru_jax", "bfloat16", 1, 5.0),
                ("gru_jax scan", "float32", 1, 15.0),
            )
            both = (("gru_jax", "float32", 2, 8.0), ("gru_jax", "bfloat16", 2, 4.0))
            others = tuple((name, "float32", 1, ms) for name, ms in peers) + (("torch", "bfloat16", 1, 10.0),)
            for library, precision, devices, ms in ours + both + others:
                yield dataclasses.replace(
                    ROW, work=work, reset=reset, library=library, precision=precision, devices=devices, median_ms=ms
                )


def test_layer_table_has_ratios_to_peers(tmp_path):
    results.write(tmp_path / "benchmarks", Results("layer", ENVIRONMENT, tuple(layer_rows())))
    text = section(tmp_path, TARGETS)
    assert text.startswith("Median milliseconds")
    assert (
        "| 32, 100, 64, 128 | 0.50 (≤ 0.65) | 0.25 (≤ 0.38) | **0.50 (> 0.46)** | 0.25 (≤ 0.28) | 0.62 (≤ 0.65) "
        "| **0.40 (> 0.33)** | 0.20 (≤ 0.21) |"
    ) in text
    assert "| 32, 100, 64, 128 | 0.80 (≤ 0.85) | **0.80 (> 0.75)** |" in text
    best = text.split("Ratio to the *best* peer")[1].split("With reset")[0]
    assert "| 32, 100, 64, 128 | 0.50 linen, 2 devices | 0.40 torch, 2 devices | 0.50 linen, 2 devices |" in best
    assert "matmul limit" not in text
    assert "python -m experiments.benchmark --suite=layer" in text
    assert "![layer](benchmarks/layer.png)" in text


def test_layer_table_has_the_fraction_of_the_matmul_limit(tmp_path):
    limits = [
        dataclasses.replace(ROW, work=work, library="matmul", precision=precision, median_ms=ms)
        for work in ("forward", "gradient")
        for precision, ms in (("float32", 8.0), ("bfloat16", 1.5))
    ]
    results.write(tmp_path / "benchmarks", Results("layer", ENVIRONMENT, (*layer_rows(), *limits)))
    assert "| 32, 100, 64, 128 | 80% (≥ 75%) | 30% | 80% (≥ 75%) | 30% |" in section(tmp_path, TARGETS)
    stricter = dataclasses.replace(TARGETS, limit_float32=0.9)
    assert "| 32, 100, 64, 128 | **80% (< 90%)** | 30% |" in section(tmp_path, stricter)


def cell_rows():
    """Yields times in ms of two cells at one shape: the default 6, both scans 10 and 12, a mask 8, associative 3."""
    for cell in ("GRU", "MinGRU"):
        for work in ("forward", "gradient"):
            times = {"gru_jax": 6.0, "gru_jax scan": 10.0, "lax.scan of the step": 12.0}
            times |= {"gru_jax associative": 3.0} if cell == "MinGRU" else {}
            for library, ms in times.items():
                yield dataclasses.replace(ROW, work=work, reset="", cell=cell, library=library, median_ms=ms)
            if cell == "GRU":
                yield dataclasses.replace(ROW, work=work, reset="", cell=cell, option="mask", median_ms=8.0)
    for work, dense in (("forward", 9.0), ("gradient", 12.0)):
        wide = dataclasses.replace(ROW, B=16, T=64, I=1024, H=4096, work=work, reset="", cell="BlockGRU")
        yield dataclasses.replace(wide, option="1 blocks", median_ms=dense)
        yield dataclasses.replace(wide, option="8 blocks", median_ms=3.0)


def test_table_of_cells_has_ratios_to_both_scans_and_the_cost_of_options(tmp_path):
    results.write(tmp_path / "benchmarks", Results("cells", ENVIRONMENT, tuple(cell_rows())))
    text = section(tmp_path, TARGETS)
    assert "| GRU | 0.60 (≤ 0.75) | 0.60 (≤ 0.75) | 0.50 | 0.50 | – | – |" in text
    assert "| MinGRU | 0.60 (≤ 0.75) | 0.60 (≤ 0.75) | 0.50 | 0.50 | 0.50 | 0.50 |" in text
    assert "| mask | 32, 100, 64, 128 | **1.33 (> 1.15)** | **1.33 (> 1.15)** |" in text
    assert "8 blocks at 16, 64, 1024, 4096 is 3.00 times as fast" in text
    assert "forward pass and 4.00 times in forward+backward; it has 3.33 times fewer operations." in text
    assert "blocks |" not in text  # They are no option of a run.


def test_long_table_has_ratios_of_time_and_memory(tmp_path):
    def rows():
        for T in (1024, 65536):
            for loss, (save, recompute, checkpoint) in (
                ("mean(ys**2)", (60, 30, 20)),
                ("mean(h_last**2)", (40, 10, 1)),
            ):
                for memory, numbers in (("save", save), ("recompute", recompute), ("checkpoint", checkpoint)):
                    ms = T / 1000 * (1.2 if memory == "checkpoint" and T > 1024 else 1.0)
                    yield dataclasses.replace(ROW, T=T, memory=memory, loss=loss, temp_bytes=T * numbers, median_ms=ms)

    results.write(tmp_path / "benchmarks", Results("long", ENVIRONMENT, tuple(rows())))
    text = section(tmp_path, TARGETS)
    assert 'mean(ys**2): "recompute" 0.50 (≤ 0.55), "checkpoint" **0.33 (> 0.15)**' in text
    assert 'mean(h_last**2): "recompute" 0.25 (≤ 0.55), "checkpoint" 0.03 (≤ 0.15)' in text
    assert "1.00 (≤ 1.15)" in text
    assert "**1.20 (> 1.15)**" in text


def test_notes_follow_the_results(tmp_path):
    results.write(
        tmp_path / "benchmarks", Results("streaming_step", ENVIRONMENT, (dataclasses.replace(ROW, work="step"),))
    )
    (tmp_path / "benchmarks" / "tried.md").write_text("### What was tried\n\nMuch.\n")
    assert section(tmp_path, TARGETS).endswith("### What was tried\n\nMuch.")
