"""One suite's results as a file: the measurements, and what must be known to repeat them."""

import dataclasses
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from experiments import atomic
from experiments.benchmarks.measurement import Measurement
from experiments.benchmarks.problem import BenchmarkError
from experiments.training import environment
from experiments.training.devices import available_cores

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
    atomic.write_json(path(folder, results.name), value)
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
