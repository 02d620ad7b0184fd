"""Times our recurrent layers and the layers of all other installed libraries side by side.

python -m experiments.benchmark --suite=layer

All programs are first checked to compute the same function with the same weights. The numbers are meaningful only on an
otherwise idle machine.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
from absl import flags

from experiments.benchmarks import (
    cells,
    gpu,
    layer,
    libraries,
    long,
    loop_overhead,
    results,
    streaming_step,
    training_step,
)
from experiments.benchmarks.harness import Measurement
from experiments.benchmarks.libraries import installed
from experiments.benchmarks.settings import Settings, Sizes
from experiments.runner import cli, environment
from experiments.runner.devices import available_cores, request_cpu_devices
from experiments.schema import UserError


class Suite(NamedTuple):
    """A suite of the benchmark.

    Attributes:
      run: performs the measurements.
      seconds: how long each group of programs is timed.
      quick: the sizes with --quick.
    """

    run: Callable[[Settings], list[Measurement]]
    seconds: float
    quick: tuple[Sizes, ...]


SUITES: Mapping[str, Suite] = {
    "layer": Suite(layer.run, 8.0, (Sizes(4, 10, 8, 16),)),
    "cells": Suite(cells.run, 4.0, (Sizes(4, 10, 8, 16),)),
    "gpu": Suite(gpu.run, 1.5, (Sizes(4, 8, 16, 16),)),
    "long": Suite(long.run, 4.0, (Sizes(2, 32, 8, 16), Sizes(2, 64, 8, 16))),
    "streaming_step": Suite(streaming_step.run, 8.0, (Sizes(1, 1, 16, 16),)),
    "training_step": Suite(training_step.run, 40.0, (Sizes(4, 8, 16, 16),)),
    "loop_overhead": Suite(loop_overhead.run, 40.0, (Sizes(4, 8, 16, 16),)),
}

SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "What to measure.", required=True)
SHAPES = flags.DEFINE_multi_string("shapes", None, "Sizes B,T,I,H instead of the suite's own; may be repeated.")
PEERS = flags.DEFINE_list("peers", None, "Libraries to compare with; by default, all that are installed.")
BACKENDS = flags.DEFINE_list(
    "backends",
    None,
    'Backends of our layer, for the suite "layer": "fused", "scan", "pallas"; by default, the first two.',
)
SECONDS = flags.DEFINE_float("seconds", None, "How long to time the programs of one problem.", lower_bound=0.0)
DEVICES = flags.DEFINE_integer(
    "devices", None, "Number of devices to shard a batch over; by default, one per core.", lower_bound=1
)
QUICK = flags.DEFINE_bool("quick", False, "Run at tiny sizes to see that everything works; times mean nothing.")
WORKDIR = flags.DEFINE_string("workdir", "runs/benchmarks", "Folder for <suite>.json and <suite>.png.")
RECORD = flags.DEFINE_bool(
    "record", False, "Write them to experiments/results/benchmarks instead, and add the ratios to its history."
)


def main(arguments: Sequence[str]) -> int:
    """Runs the suite, prints a table and writes the files."""
    del arguments
    suite = SUITES[SUITE.value]
    shapes = tuple(map(Sizes.parse, SHAPES.value)) if SHAPES.value else None
    if RECORD.value and (QUICK.value or shapes):
        raise UserError("--record: expected a suite at its own sizes, got --quick or --shapes")
    if RECORD.value:
        environment.require_clean_commit("--record", environment.commit())
    usual_seconds = 0.05 if QUICK.value else suite.seconds
    devices = DEVICES.value or available_cores()
    request_cpu_devices(devices, devices)
    chosen = {"backends": _backends(SUITE.value, BACKENDS.value)} if BACKENDS.value else {}
    settings = Settings(
        shapes=shapes or (suite.quick if QUICK.value else None),
        peers=installed(PEERS.value),
        seconds=usual_seconds if SECONDS.value is None else SECONDS.value,
        min_rounds=2 if QUICK.value else 5,
        devices=min(devices, len(jax.devices())),
        **chosen,
        resident=not QUICK.value and jax.default_backend() == "cpu",
        say=lambda line: print(line, flush=True),
    )
    about = results.describe(settings.devices, settings.seconds)
    found = results.Results(SUITE.value, about, tuple(suite.run(settings)))
    folder = results.FOLDER if RECORD.value else pathlib.Path(WORKDIR.value)
    print(f"\n{results.table(found.measurements)}\n\n{found.title()}")
    path = results.write(folder, found)
    results.draw(found, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")
    if RECORD.value:
        print(f"added to {results.append_to_history(folder, found)}")
        results.draw_history(folder, folder / "history.png")
    return 0


def _backends(suite: str, names: Sequence[str]) -> tuple[str, ...]:
    """Checks --backends."""
    if suite != "layer":
        raise UserError(f"--backends: expected --suite=layer, got --suite={suite}")
    for name in names:
        if name not in libraries.BACKENDS:
            raise UserError(f"--backends: expected any of {', '.join(libraries.BACKENDS)}, got {name!r}")
    if "pallas" in names and jax.default_backend() != "tpu":
        raise UserError(f'--backends: expected a TPU for "pallas", got the platform {jax.default_backend()!r}')
    return tuple(names)


if __name__ == "__main__":
    cli.run(main)
