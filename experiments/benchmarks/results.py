"""The results of a suite: its JSON file, a table for the terminal, and a plot."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from tabulate import tabulate

from experiments import files
from experiments.benchmarks.harness import Measurement
from experiments.benchmarks.libraries import MATMUL, OURS, PALLAS, SCAN, STEPS
from experiments.figures import png
from experiments.runner import environment
from experiments.runner.devices import available_cores
from experiments.schema import UserError

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "results" / "benchmarks"
"""The folder of the recorded results, from which docs/results/speed.md is made."""

DISTRIBUTIONS = ("torch", "flax", "dm-haiku", "equinox", "keras", "onnxruntime")
RENAMED = {"step": "streaming_step", "train": "training_step", "trainer": "loop_overhead"}
"""Suites that had another name when some of the records were made."""


@dataclasses.dataclass(frozen=True)
class Results:
    """The results of one run of a suite.

    Attributes:
      suite: the name of the suite.
      environment: command, commit, machine, cores, devices, versions, dtypes and variables.
      measurements: in the order in which they were made.
    """

    suite: str
    environment: dict[str, Any]
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        """The name of its files without the suffix: "layer", or "layer_gpu" for results from a GPU."""
        backend = self.environment["jax_backend"]
        return self.suite if backend == "cpu" else f"{self.suite}_{backend}"

    @property
    def command(self) -> str:
        """The command that repeats the run."""
        words = self.environment["command"]
        return " ".join(f"--suite={self.suite}" if word.startswith("--suite=") else word for word in words)

    def title(self) -> str:
        """Returns machine, versions and commit in one line."""
        found = self.environment
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        return f"{found['machine']}, {found['devices']} JAX devices; {versions}; commit {found['commit'][:12]}"


def describe(devices: int, seconds: float) -> dict[str, Any]:
    """Returns the environment of this run as plain data.

    Args:
      devices: the number of JAX devices.
      seconds: how long the programs of one problem were timed.
    """
    described = environment.describe(devices)
    described["command"] = ["python", "-m", "experiments.benchmark", *described["command"][2:]]
    described["versions"] |= {name: version for name in DISTRIBUTIONS if (version := installed_version(name))}
    return described | {
        "cores": available_cores(),
        "seconds": seconds,
        "dtypes": "state, gates and sums float32; a program's precision is that of its matrix products' operands",
        "jax_backend": jax.default_backend(),
    }


def installed_version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def write(folder: pathlib.Path, results: Results) -> pathlib.Path:
    """Writes results to a folder, which is created if it does not exist, and returns the path of the file."""
    os.makedirs(folder, exist_ok=True)
    path = folder / f"{results.name}.json"
    value = {
        "suite": results.suite,
        "environment": results.environment,
        "measurements": [dataclasses.asdict(row) for row in results.measurements],
    }
    files.write_json(path, value)
    return path


def read(folder: pathlib.Path, name: str) -> Results | None:
    """Reads results by name: "layer", "layer_gpu". Returns None if there is no such file.

    Raises:
      UserError: if the file does not have the format that `write` produces.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        value: Any = json.loads(path.read_bytes())
        rows = tuple(Measurement(**_lists_to_tuples(row)) for row in value["measurements"])
        suite: str = value["suite"]
        return Results(RENAMED.get(suite, suite), value["environment"], rows)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected the results of a benchmark, got {error!r}") from error


def ratios(results: Results) -> list[dict[str, Any]]:
    """Returns what stays comparable from one machine to the next: a row for each of our programs.

    Returns:
      Plain data: sizes, work, reset, cell, precision and devices of the program, and the ratios of its time to the best
      peer at its precision ("peer", "to_peer") and to the plain scan ("to_scan"), and the fraction of the machine's
      matmul limit that it reaches ("of_limit"). A ratio is None if its base was not measured.
    """
    rows = []
    for group in groups(results.measurements):
        for row in group:
            if row.library != OURS or row.option:
                continue
            alike = [peer for peer in peers_of(group) if peer.precision == row.precision]
            best = min(alike, key=lambda peer: peer.median_ms, default=None)
            scan = next((other for other in group if other.library == SCAN and other.loss == row.loss), None)
            limit = limit_of(group, row.precision)
            named = {key: getattr(row, key) for key in ("B", "T", "I", "H", "work", "reset", "cell", "precision")}
            rows.append(
                named
                | {"devices": row.devices, "memory": row.memory, "loss": row.loss}
                | {"peer": best and best.name, "to_peer": _rounded(row, best), "to_scan": _rounded(row, scan)}
                | {"of_limit": limit and round(limit.median_ms / row.median_ms, 3)}
            )
    return rows


def _rounded(row: Measurement, base: Measurement | None) -> float | None:
    return base and round(row.median_ms / base.median_ms, 3)


HISTORY = "history.jsonl"
"""The file of ratios over commits, beside the results: one line per suite, commit and machine."""


def append_to_history(folder: pathlib.Path, results: Results) -> pathlib.Path:
    """Adds the ratios of a run to the history; a line of the same suite, commit and machine is replaced.

    Args:
      folder: the folder of the recorded results.
      results: a run of a suite.

    Returns:
      The path of the history.
    """
    found = results.environment
    entry = {"suite": results.name, "commit": found["commit"], "machine": found["machine"]}
    kept = [line for line in read_history(folder) if {key: line[key] for key in entry} != entry]
    entry |= {"versions": found["versions"], "ratios": ratios(results)}
    path = folder / HISTORY
    files.write_bytes(path, "".join(json.dumps(line) + "\n" for line in (*kept, entry)).encode())
    return path


def read_history(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of the history, oldest first; an empty list if there is no such file."""
    path = folder / HISTORY
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def draw_history(folder: pathlib.Path, path: pathlib.Path) -> None:
    """Draws the gradient of the suite "layer" over commits to a PNG file: float32, one device, reset="after"."""
    files.write_bytes(path, png((11, 4), lambda figure: _history(figure, read_history(folder)), dpi=110))


def _history(figure: Any, history: Sequence[dict[str, Any]]) -> None:
    lines = [line for line in history if line["suite"] == "layer"]
    names = [f"{line['commit'][:7]}\n{line['machine'].split(' Processor')[0].split(',')[0]}" for line in lines]
    titles = {"to_peer": "time / best peer", "to_scan": "time / plain scan", "of_limit": "fraction of the matmul limit"}
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, (key, title) in zip(panels, titles.items(), strict=True):
        points: dict[str, dict[int, float]] = {}
        for number, line in enumerate(lines):
            for row in line["ratios"]:
                alike = (row["work"], row["reset"], row["precision"], row["devices"])
                if alike == ("gradient", "after", "float32", 1) and row[key] is not None:
                    label = ", ".join(str(row[name]) for name in ("B", "T", "I", "H"))
                    points.setdefault(label, {})[number] = row[key]
        for label, values in points.items():
            axes.plot(list(values), list(values.values()), "o-", label=label)
        axes.set_title(title)
        axes.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    panels[0].legend(title="B, T, I, H", fontsize=7)


def _lists_to_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def groups(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Groups measurements that were timed side by side, with the same sizes, work, reset and cell."""
    found: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in measurements:
        found.setdefault((row.sizes, row.work, row.reset, row.cell), []).append(row)
    return list(found.values())


def peers_of(group: Sequence[Measurement]) -> list[Measurement]:
    """Returns the measurements of other libraries."""
    return [row for row in group if row.library not in (OURS, SCAN, PALLAS, STEPS, MATMUL)]


def limit_of(group: Sequence[Measurement], precision: str) -> Measurement | None:
    """Returns the measurement of the matrix products alone at a precision; None in older results."""
    return next((row for row in group if (row.library, row.precision) == (MATMUL, precision)), None)


def table(measurements: Sequence[Measurement]) -> str:
    """Returns a text table for each group: milliseconds, ratios to every peer, memory and compile time."""
    return "\n\n".join(_group_table(group) for group in groups(measurements))


def _group_table(group: Sequence[Measurement]) -> str:
    first, peers, losses = group[0], peers_of(group), {row.loss for row in group}
    ratios = [f"/ {_column_name(peer)}" for peer in peers]
    if not peers and any(row.library == SCAN for row in group):  # The suite "long" has no peers.
        ratios = [f"/ {SCAN}"]
    rows = []
    for row in group:
        name = row.name if row.memory in ("auto", "plain scan") else f"{row.name} {row.memory}"
        bases = peers or [base for base in group if base.library == SCAN and base.loss == row.loss]
        rows.append(
            [
                f"{name}, {row.loss}" if len(losses) > 1 else name,
                f"{row.median_ms:.4g}",
                *(f"{row.median_ms / base.median_ms:.2f}" for base in bases),
                _memory(row),
                "" if row.compile_seconds is None else f"{row.compile_seconds:.2f}",
            ]
        )
    header = ["program", "ms", *ratios, "temporary MB", "compile s"]
    if any(row.kernels for row in group):
        header.append("kernels per step")
        for line, row in zip(rows, group, strict=True):
            line.append(", ".join(map(str, row.kernels or ())))
    align = ["left", *["right"] * (len(header) - 1)]
    text = tabulate(rows, header, tablefmt="plain", disable_numparse=True, colalign=align)
    title = f"B={first.B} T={first.T} I={first.I} H={first.H}, reset={first.reset}, {first.work}"
    return f"{title}\n{text}"


def _column_name(peer: Measurement) -> str:
    """Returns the name of a peer; only PyTorch has two precisions."""
    return "torch bf16" if peer.name == "torch bfloat16" else peer.library


def _memory(row: Measurement) -> str:
    """Returns temporary memory, or the marked growth of the process if the compiler does not report it."""
    if row.temp_bytes is not None:
        return f"{row.temp_bytes / 1e6:.1f}"
    return "" if row.resident_bytes is None else f"{row.resident_bytes / 1e6:.1f} (process)"


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws results to a PNG file: lines over T or H, ratios of the cells, or bars of times."""
    drawings = {"cells": _ratios_of_cells, "long": _lines_over_time, "streaming_step": _lines_over_width}
    draw_suite = drawings.get(results.suite, _bars)
    files.write_bytes(path, png(None, lambda figure: draw_suite(figure, results.measurements), dpi=110))


def _bars(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draws a panel with milliseconds for each group; ours are orange."""
    found = groups(measurements)
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    longest = max(len(group) for group in found)
    figure.set_size_inches(6 * columns, rows * (0.8 + 0.22 * longest))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, group in zip(panels, found, strict=False):
        ordered = sorted(group, key=lambda row: -row.median_ms)
        colors = ["tab:orange" if row.library == OURS else "tab:gray" for row in ordered]
        bars = axes.barh([row.name for row in ordered], [row.median_ms for row in ordered], color=colors)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.margins(x=0.12)
        axes.set_title(f"{group[0].sizes}, {group[0].work}, reset={group[0].reset}: ms", fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in panels:
        axes.set_axis_off()


def _ratios_of_cells(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draws the ratio of our time to that of a plain scan of the step: a panel for each work, a mark for each shape."""
    works = list(dict.fromkeys(row.work for row in measurements))
    cells = sorted({row.cell for row in measurements}, reverse=True)
    figure.set_size_inches(10, 1.2 + 0.28 * len(cells))
    panels = figure.subplots(1, len(works), squeeze=False, sharex=True, sharey=True)[0]
    for axes, work in zip(panels, works, strict=True):
        times = {(r.cell, r.sizes, r.library): r.median_ms for r in measurements if r.work == work and not r.option}
        for sizes, marker in zip(dict.fromkeys(sizes for _, sizes, _ in times), "osD^v", strict=False):
            measured = [cell for cell in cells if (cell, sizes, STEPS) in times]
            ratios = [times[cell, sizes, OURS] / times[cell, sizes, STEPS] for cell in measured]
            axes.plot(ratios, measured, marker, label=str(sizes))
        axes.axvline(1, color="tab:gray", linewidth=1)
        axes.grid(axis="y", alpha=0.3)
        axes.set(title=work, xlabel="time / lax.scan of the step", xlim=(0, None))
    panels[0].legend(title="B, T, I, H", fontsize=8)


def _lines_over_time(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draws time and memory per step over T, with a line for each memory option."""
    losses = sorted({row.loss for row in measurements}, reverse=True)
    figure.set_size_inches(10, 3.6 * len(losses))
    panels = figure.subplots(len(losses), 2, squeeze=False)
    for (left, right), loss in zip(panels, losses, strict=True):
        for memory in dict.fromkeys(row.memory for row in measurements):
            rows = sorted((row for row in measurements if (row.loss, row.memory) == (loss, memory)), key=lambda r: r.T)
            left.plot([r.T for r in rows], [1e3 * r.median_ms / r.T for r in rows], marker=".", label=memory)
            known = [(r.T, r.temp_bytes / r.T) for r in rows if r.temp_bytes is not None]
            right.plot(*zip(*known, strict=True), marker=".", label=memory)
        left.set(xscale="log", xlabel="T", ylabel="microseconds per step", title=f"gradient of {loss}", ylim=(0, None))
        right.set(xscale="log", yscale="log", xlabel="T", ylabel="temporary bytes per step")
        left.legend()


def _lines_over_width(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Draws the latency of a step over H, with a line for each library."""
    figure.set_size_inches(6, 3.6)
    axes = figure.subplots()
    for name in dict.fromkeys(row.name for row in measurements):
        rows = sorted((row for row in measurements if row.name == name), key=lambda row: row.H)
        axes.plot([row.H for row in rows], [1e3 * row.median_ms for row in rows], marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="H", ylabel="microseconds per step", title="one streaming step, B=1")
    axes.legend()
