"""The raw records of experiments/results/*.jsonl, and the groups of them that repeat one another."""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from experiments.schema import UserError

KEYS = {"task", "config", "overrides", "cell", "parameters", "seed", "split", "metric", "value", "steps", "minutes"} | {
    "machine",
    "versions",
    "commit",
}

STUDIES = {cell: "experiments.studies.forecast_baselines" for cell in ("naive", "linear")}
"""What makes the records of a model that `experiments.train` does not know."""

FOLDS = ("task.speaker",)
"""Overrides that say whose data are left out: such runs repeat one another, as those of several seeds do."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one configuration, each of its own seed or with its own part of the data left out, and one metric.

    Where every seed has left out the same parts, all runs of a seed are one repetition, and so is what they average;
    else each run is one.

    Attributes:
      task, metric, cell, config: as the records have them.
      overrides: those of the command line, without the seed and what `FOLDS` names.
      records: one for each seed and part, in their order; the newest where one was run twice.
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
        """The variant of the config but for its cell: "jsb" of "configs/music.py:jsb-lstm"; empty for the default."""
        return self.config.partition(":")[2].partition("-")[0]

    @property
    def repetitions(self) -> dict[str, list[float]]:
        """The values of each, by what tells it from the others: its seed, or the part that it left out."""
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
        """The standard deviation over the repetitions (of a sample); None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def runs(self) -> list[str]:
        """Names the repetitions, with the number of their runs where that is not one: "0 (6)"."""
        return [f"{name} ({len(found)})" if len(found) > 1 else name for name, found in self.repetitions.items()]

    @property
    def minutes(self) -> float:
        """Of one run, on average."""
        return statistics.fmean(record["minutes"] for record in self.records)

    @property
    def command(self) -> str:
        """What repeats the first of the runs."""
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

    @property
    def dirty(self) -> bool:
        """Whether the commit of any of the runs had uncommitted changes."""
        return any(record["commit"].endswith("-dirty") for record in self.records)

    def distinct(self, key: str) -> list[str]:
        """The values under a key of the records, each once."""
        return list(dict.fromkeys(record[key] for record in self.records))


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads every record, file by file, each file in its order.

    Raises:
      UserError: a line is no record; it is named.
    """
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or KEYS - set(record):
                missing, text = KEYS - set(record or ()), line[:60].decode(errors="replace")
                raise UserError(f"{path}:{number}: expected a record with {', '.join(sorted(missing))}, got {text}")
            if record["split"] != "test":
                raise UserError(f"{path}:{number}: split: expected 'test', got {record['split']!r}")
            records.append(record)
    return records


def grouped(records: list[dict[str, Any]]) -> list[Group]:
    """Groups records that differ in seed and fold alone, in the order of each group's last record."""
    groups: dict[tuple[str, str, str, str, tuple[str, ...]], dict[tuple[tuple[str, ...], int], dict[str, Any]]] = {}
    for record in records:
        fold = _fold(record)
        overrides = tuple(sorted(word for word in record["overrides"] if word.partition("=")[0] not in {"seed", *fold}))
        key = (record["task"], record["metric"], record["cell"], record["config"], overrides)
        runs = groups.pop(key, {})
        groups[key] = runs | {(tuple(fold.values()), record["seed"]): record}
    return [Group(*key, tuple(runs[run] for run in sorted(runs))) for key, runs in groups.items()]


def _fold(record: dict[str, Any]) -> dict[str, str]:
    """Which part of the data a run left out, if it was told to leave one out."""
    pairs = (word.partition("=")[::2] for word in record["overrides"])
    return {key: value for key, value in pairs if key in FOLDS and value}
