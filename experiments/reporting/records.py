"""The records in experiments/results/*.jsonl, and groups of records that differ only in the seed."""

import dataclasses
import functools
import json
import pathlib
import statistics
from typing import Any

from experiments.runner import cli, environment
from experiments.runner.config import CONFIGS, ExperimentConfig, load, resolve
from experiments.schema import UserError

KEYS = {"task", "config", "overrides", "cell", "parameters", "seed", "split", "metric", "value", "steps", "minutes"} | {
    "machine",
    "versions",
    "commit",
}

STUDIES = {cell: "experiments.studies.forecast_baselines" for cell in ("naive", "linear")}
"""The programs that make the records of models without training."""

FOLDS = ("task.speaker",)
"""Overrides that select the data to leave out; runs that differ in them are in one group."""


@dataclasses.dataclass(frozen=True)
class Group:
    """The records of one config and metric, which differ in the seed and in the data left out.

    If all seeds left out the same parts of the data, the runs of a seed are averaged and count as one repetition.
    Otherwise, each run is a repetition.

    Attributes:
      task, metric, cell, config: see the records.
      overrides: the overrides of the command line, without the seed and `FOLDS`.
      records: one per seed and part, in this order; the newest if there are several.
    """

    task: str
    metric: str
    cell: str
    config: str
    overrides: tuple[str, ...]
    records: tuple[dict[str, Any], ...]

    @property
    def parameters(self) -> int:
        return self.records[-1]["parameters"]

    @property
    def setting(self) -> str:
        """The variant of the config without the cell: "jsb" for "configs/music.py:jsb-lstm"; empty for the default."""
        return self.config.partition(":")[2].partition("-")[0]

    @property
    def repetitions(self) -> dict[str, list[float]]:
        """The values of each repetition, by its seed or by the part that it left out."""
        seeds: dict[str, dict[tuple[str, ...], float]] = {}
        for record in self.records:
            seeds.setdefault(str(record["seed"]), {})[tuple(_fold(record).values())] = record["value"]
        parts = {frozenset(folds) for folds in seeds.values()}
        if len(parts) == 1 and len(next(iter(parts))) > 1:
            return {seed: list(folds.values()) for seed, folds in seeds.items()}
        return {" ".join([*_fold(record).values(), str(record["seed"])]): [record["value"]] for record in self.records}

    @property
    def values(self) -> list[float]:
        return [statistics.fmean(values) for values in self.repetitions.values()]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation over the repetitions; None if there is only one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def runs(self) -> list[str]:
        """The names of the repetitions, with the number of their runs if there are several: "0 (6)"."""
        return [f"{name} ({len(found)})" if len(found) > 1 else name for name, found in self.repetitions.items()]

    @property
    def minutes(self) -> float:
        """The mean duration of a run."""
        return statistics.fmean(record["minutes"] for record in self.records)

    @property
    def command(self) -> str:
        """The command that repeats the first run."""
        first = self.records[0]
        fold = [f"{key}={value}" for key, value in _fold(first).items()]
        words = [f"--config={self.config}", *(f"--config.{override}" for override in (*self.overrides, *fold))]
        if self.cell in STUDIES:
            return " ".join([f"python -m {STUDIES[self.cell]}", *words])
        if first["seed"] or len(self.distinct("seed")) > 1:
            words.append(f"--config.seed={first['seed']}")
        file, _, variant = self.config.partition(":")
        changes = [word.rpartition(".")[2].replace("=", "-") for word in (*self.overrides, *fold)]
        name = "_".join(filter(None, [pathlib.PurePath(file).stem, variant, *changes, str(first["seed"])]))
        return " ".join(["python -m experiments.train", *words, f"--workdir=runs/{name}"])

    def distinct(self, key: str) -> list[str]:
        """Returns the distinct values of a key of the records."""
        return list(dict.fromkeys(record[key] for record in self.records))


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads all records of a folder, file by file.

    Raises:
      UserError: if a line is not a valid record.
    """
    return [record for path in sorted(folder.glob("*.jsonl")) for record in read_file(path)]


def read_file(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads the records of a file; none if it does not exist.

    Raises:
      UserError: if a line is not a valid record.
    """
    records = []
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else (), 1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or KEYS - set(record):
            missing, text = KEYS - set(record if isinstance(record, dict) else ()), line[:60].decode(errors="replace")
            raise UserError(f"{path}:{number}: expected a record with {', '.join(sorted(missing))}, got {text}")
        if record["split"] != "test":
            raise UserError(f"{path}:{number}: split: expected 'test', got {record['split']!r}")
        if not environment.is_clean(record["commit"]):
            raise UserError(f"{path}:{number}: commit: expected a clean one, got {record['commit']!r}")
        records.append(record)
    return records


def grouped(records: list[dict[str, Any]]) -> list[Group]:
    """Groups records that differ only in the seed and in `FOLDS`; groups are ordered by their last record."""
    groups: dict[tuple[str, str, str, str, tuple[str, ...]], dict[tuple[tuple[str, ...], int], dict[str, Any]]] = {}
    for record in records:
        fold = _fold(record)
        overrides = tuple(sorted(word for word in record["overrides"] if word.partition("=")[0] not in {"seed", *fold}))
        key = (record["task"], record["metric"], record["cell"], record["config"], overrides)
        runs = groups.pop(key, {})
        groups[key] = runs | {(tuple(fold.values()), record["seed"]): record}
    return [Group(*key, tuple(runs[run] for run in sorted(runs))) for key, runs in groups.items()]


def of_configuration(records: list[dict[str, Any]], config: ExperimentConfig) -> list[dict[str, Any]]:
    """Returns the records of the runs that have a configuration, up to the seed; for each seed and metric the newest.

    A record has the configuration that its config file and overrides give today. Its number of parameters is not
    compared. Baselines, which a study recorded for a configuration, are left out.
    """
    wanted = {**config.to_dict(), "seed": None}
    found = {}
    for record in records:
        overrides = tuple(word for word in record["overrides"] if not word.startswith("seed="))
        values = None if record["cell"] in STUDIES else configuration(record["config"], overrides)
        if values is not None and {**values.to_dict(), "seed": None} == wanted:
            found.pop((record["seed"], record["metric"]), None)
            found[record["seed"], record["metric"]] = record
    return list(found.values())


@functools.cache
def configuration(config: str, overrides: tuple[str, ...] = ()) -> ExperimentConfig | None:
    """Returns the configuration of a config file, `configs/x.py:variant`, with overrides.

    None if the file or one of the keys no longer exists.
    """
    file, _, variant = config.partition(":")
    path = CONFIGS.parent / file
    if path.parent != CONFIGS or not path.is_file():
        return None
    try:
        values = load(path.stem).get_config(*filter(None, [variant]))
        return resolve(cli.with_overrides(values, dict(word.split("=", 1) for word in overrides)))
    except (UserError, ValueError):
        return None


def _fold(record: dict[str, Any]) -> dict[str, str]:
    """Returns the part of the data that a run left out, by override; empty if there is none."""
    pairs = (word.partition("=")[::2] for word in record["overrides"])
    return {key: value for key, value in pairs if key in FOLDS and value}
