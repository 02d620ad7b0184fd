"""Measures ours and every other library that is installed, side by side in one run.

python -m experiments.benchmark --suite=layer

Before a clock runs, all are checked to compute the same function on the same weights. Numbers mean something on an
otherwise idle machine only.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
from absl import flags

from experiments.benchmarks import layer, long, results, step, train, trainer
from experiments.benchmarks.harness import Measurement
from experiments.benchmarks.libraries import installed
from experiments.benchmarks.problem import BenchmarkError, Sizes
from experiments.benchmarks.results import draw, table
from experiments.benchmarks.settings import Settings
from experiments.runner import cli
from experiments.runner.devices import available_cores, request_cpu_devices


class Suite(NamedTuple):
    """A suite: what it measures, how long each group of programs is timed, and the sizes of a quick try."""

    run: Callable[[Settings], list[Measurement]]
    seconds: float
    quick: tuple[Sizes, ...]


SUITES: Mapping[str, Suite] = {
    "layer": Suite(layer.run, 8.0, (Sizes(4, 10, 8, 16),)),
    "long": Suite(long.run, 4.0, (Sizes(2, 32, 8, 16), Sizes(2, 64, 8, 16))),
    "train": Suite(train.run, 40.0, (Sizes(4, 8, 16, 16),)),
    "trainer": Suite(trainer.run, 40.0, (Sizes(4, 8, 16, 16),)),
    "step": Suite(step.run, 8.0, (Sizes(1, 1, 16, 16),)),
}

SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "What to measure.", required=True)
SHAPES = flags.DEFINE_multi_string("shapes", None, "B,T,I,H in the place of the suite's sizes; may be repeated.")
PEERS = flags.DEFINE_list("peers", None, "The libraries to measure against; else all that are installed.")
SECONDS = flags.DEFINE_float("seconds", None, "How long to time the programs of one problem.", lower_bound=0.0)
DEVICES = flags.DEFINE_integer(
    "devices", None, "Over how many devices to spread a batch; else one a core.", lower_bound=1
)
QUICK = flags.DEFINE_bool("quick", False, "Whether to try everything at seconds' size, where times mean nothing.")
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/benchmarks", "Where <suite>.json and <suite>.png are written, on a GPU <suite>_gpu."
)
RECORD = flags.DEFINE_bool("record", False, "Whether to write them to experiments/results/benchmarks instead.")


def main(arguments: Sequence[str]) -> int:
    """Reads the flags, measures, prints the table, writes the files."""
    del arguments
    suite = SUITES[SUITE.value]
    shapes = tuple(map(Sizes.parse, SHAPES.value)) if SHAPES.value else None
    if RECORD.value and (QUICK.value or shapes):
        raise BenchmarkError("--record: expected a whole suite at its own sizes, got --quick or --shapes")
    seconds = suite.seconds if SECONDS.value is None else SECONDS.value
    devices = DEVICES.value or available_cores()
    request_cpu_devices(devices, devices)
    settings = Settings(
        shapes=shapes or (suite.quick if QUICK.value else None),
        peers=installed(PEERS.value),
        seconds=0.05 if QUICK.value else seconds,
        least_rounds=2 if QUICK.value else 5,
        devices=min(devices, len(jax.devices())),
        resident=not QUICK.value and jax.default_backend() == "cpu",
        say=lambda line: print(line, flush=True),
    )
    environment = results.describe(settings.devices, settings.seconds)
    found = results.Results(SUITE.value, environment, tuple(suite.run(settings)))
    folder = results.FOLDER if RECORD.value else pathlib.Path(WORKDIR.value)
    print(f"\n{table(found.measurements)}\n\n{found.title()}")
    written = results.write(folder, found)
    draw(found, written.with_suffix(".png"))
    print(f"written: {written} and {written.with_suffix('.png')}")
    return 0


if __name__ == "__main__":
    cli.run(main)
