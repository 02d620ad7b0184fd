"""One suite's results as a file: the measurements, and what must be known to repeat them.

Results as a table of text: milliseconds, ratios to every peer, memory, seconds to compile.

A suite's results as a picture.
"""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from experiments import files
from experiments.benchmarks.harness import Measurement
from experiments.benchmarks.libraries import OURS, SCAN
from experiments.benchmarks.problem import BenchmarkError
from experiments.figures import png
from experiments.runner import environment
from experiments.runner.devices import available_cores

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "results" / "benchmarks"
"""Where the results lie that the project quotes."""

DISTRIBUTIONS = ("torch", "flax", "dm-haiku", "equinox", "keras", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class Results:
    """What one run of a suite found.

    Attributes:
      suite: its name.
      environment: commit, machine, cores, devices, versions, dtypes, variables.
      measurements: in the order in which they were made.
    """

    suite: str
    environment: dict[str, Any]
    measurements: tuple[Measurement, ...]

    @property
    def name(self) -> str:
        """What its files are called: "layer", of a GPU "layer_gpu"."""
        backend = self.environment["jax_backend"]
        return self.suite if backend == "cpu" else f"{self.suite}_{backend}"

    def title(self) -> str:
        """One line on where the numbers come from."""
        found = self.environment
        versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
        return f"{found['machine']}, {found['devices']} JAX devices; {versions}; commit {found['commit'][:12]}"


def describe(devices: int, seconds: float) -> dict[str, Any]:
    """Returns this run's environment, as plain data.

    Args:
      devices: how many JAX devices there are.
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


def path(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where results lie in a folder."""
    return folder / f"{name}.json"


def write(folder: pathlib.Path, results: Results) -> pathlib.Path:
    """Writes a suite's results into a folder, which is made; returns the file."""
    os.makedirs(folder, exist_ok=True)
    value = {
        "suite": results.suite,
        "environment": results.environment,
        "measurements": [dataclasses.asdict(row) for row in results.measurements],
    }
    files.write_json(path(folder, results.name), value)
    return path(folder, results.name)


def read(folder: pathlib.Path, name: str) -> Results | None:
    """Reads results by their name; None where there are none.

    Raises:
      BenchmarkError: the file is not what `write` writes.
    """
    file = path(folder, name)
    if not file.exists():
        return None
    try:
        value = json.loads(file.read_bytes())
        rows = tuple(Measurement(**row) for row in value["measurements"])
        return Results(value["suite"], value["environment"], rows)
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"{file}: expected the results of a benchmark, got {error!r}") from error


def groups(measurements: Sequence[Measurement]) -> list[list[Measurement]]:
    """Cuts measurements into those that were timed side by side: of one size, kind of work and reset."""
    found: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in measurements:
        found.setdefault((row.sizes, row.work, row.reset), []).append(row)
    return list(found.values())


def table(measurements: Sequence[Measurement]) -> str:
    """Lays results out: a part for each group of programs that were timed side by side."""
    return "\n\n".join(_part(group) for group in groups(measurements))


def peers_of(group: Sequence[Measurement]) -> list[Measurement]:
    """Those of a group that are not ours."""
    return [row for row in group if row.library not in (OURS, SCAN)]


def _part(group: Sequence[Measurement]) -> str:
    first, peers, several = group[0], peers_of(group), len({row.loss for row in group}) > 1
    header = ["program", "ms", *(f"/ {_short(peer)}" for peer in peers), "temporary MB", "compile s"]
    if not peers and any(row.library == SCAN for row in group):  # As a long sequence has it.
        header.insert(2, f"/ {SCAN}")
    lines = [header]
    for row in group:
        name = row.name if row.memory in ("auto", "plain scan") else f"{row.name} {row.memory}"
        bases = peers or [base for base in group if base.library == SCAN and base.loss == row.loss]
        lines.append(
            [
                f"{name}, {row.loss}" if several else name,
                f"{row.median_ms:.4g}",
                *(f"{row.median_ms / base.median_ms:.2f}" for base in bases),
                _memory(row),
                "" if row.compile_seconds is None else f"{row.compile_seconds:.2f}",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    title = f"B={first.B} T={first.T} I={first.I} H={first.H}, reset={first.reset}, {first.work}"
    return "\n".join([title, *(_line(line, widths) for line in lines)])


def _short(peer: Measurement) -> str:
    """A peer's name at the head of a column: its precision is said only where it has several."""
    return "torch bf16" if peer.name == "torch bfloat16" else peer.library


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell.rjust(width) if column else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(["  " + first, *rest]).rstrip()


def _memory(row: Measurement) -> str:
    """Temporary bytes where the compiler tells, else what the process grew by, marked."""
    if row.temp_bytes is not None:
        return f"{row.temp_bytes / 1e6:.1f}"
    return "" if row.resident_bytes is None else f"{row.resident_bytes / 1e6:.1f} (process)"


def draw(results: Results, path: pathlib.Path) -> None:
    """Draws a suite's results into a PNG file: lines along T or H where that varies, else bars."""
    paint = {"long": _lines_over_time, "step": _lines_over_width}.get(results.suite, _bars)
    files.write_bytes(path, png(None, lambda figure: paint(figure, results.measurements), dpi=110))


def _bars(figure: Any, measurements: Sequence[Measurement]) -> None:
    """One panel a group, milliseconds, ours in colour."""
    found = groups(measurements)
    columns = min(2, len(found))
    rows = -(-len(found) // columns)
    most = max(len(group) for group in found)
    figure.set_size_inches(6 * columns, rows * (0.8 + 0.22 * most))
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes, group in zip(panels, found, strict=False):
        ordered = sorted(group, key=lambda row: -row.median_ms)
        colours = ["tab:orange" if row.library == OURS else "tab:gray" for row in ordered]
        bars = axes.barh([row.name for row in ordered], [row.median_ms for row in ordered], color=colours)
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=7)
        axes.margins(x=0.12)
        axes.set_title(f"{group[0].sizes}, {group[0].work}, reset={group[0].reset}: ms", fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in panels:
        axes.set_axis_off()


def _lines_over_time(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Time and memory a step over the number of steps, a line for each way of keeping memory."""
    losses = sorted({row.loss for row in measurements}, reverse=True)
    figure.set_size_inches(10, 3.6 * len(losses))
    panels = figure.subplots(len(losses), 2, squeeze=False)
    for (left, right), loss in zip(panels, losses, strict=True):
        for memory in dict.fromkeys(row.memory for row in measurements):
            rows = sorted((row for row in measurements if (row.loss, row.memory) == (loss, memory)), key=lambda r: r.T)
            left.plot([r.T for r in rows], [1e3 * r.median_ms / r.T for r in rows], marker=".", label=memory)
            known = [(r.T, r.temp_bytes / r.T) for r in rows if r.temp_bytes is not None]
            right.plot(*zip(*known, strict=True), marker=".", label=memory)
        left.set(xscale="log", xlabel="T", ylabel="microseconds a step", title=f"gradient of {loss}", ylim=(0, None))
        right.set(xscale="log", yscale="log", xlabel="T", ylabel="temporary bytes a step")
        left.legend()


def _lines_over_width(figure: Any, measurements: Sequence[Measurement]) -> None:
    """Latency of a step over the hidden size, a line for each library."""
    figure.set_size_inches(6, 3.6)
    axes = figure.subplots()
    for name in dict.fromkeys(row.name for row in measurements):
        rows = sorted((row for row in measurements if row.name == name), key=lambda row: row.H)
        axes.plot([row.H for row in rows], [1e3 * row.median_ms for row in rows], marker=".", label=name)
    axes.set(xscale="log", yscale="log", xlabel="H", ylabel="microseconds a step", title="one streaming step, B=1")
    axes.legend()
