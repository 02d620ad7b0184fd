"""The raw records of experiments/results/*.jsonl, and the groups of them that differ in their seed alone."""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from experiments.schema import ConfigError

KEYS = {"task", "config", "overrides", "cell", "parameters", "seed", "split", "metric", "value", "steps", "minutes"} | {
    "machine",
    "versions",
    "commit",
}

STUDIES = {cell: "experiments.studies.forecast_baselines" for cell in ("naive", "linear")}
"""What makes the records of a model that `experiments.train` does not know."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one configuration, a seed each, and one metric of theirs.

    Attributes:
      task, metric, cell, config: as the records have them.
      overrides: those of the command line, without the seed.
      records: one for each seed, in the order of the seeds; the newest where a seed was run twice.
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
    def values(self) -> list[float]:
        return [record["value"] for record in self.records]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The standard deviation over the seeds (of a sample); None for a single seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def minutes(self) -> float:
        """Of one run, on average."""
        return statistics.fmean(record["minutes"] for record in self.records)

    @property
    def command(self) -> str:
        """What repeats the first of the runs."""
        words = [f"--config={self.config}", *(f"--config.{override}" for override in self.overrides)]
        if self.cell in STUDIES:
            return " ".join([f"python -m {STUDIES[self.cell]}", *words])
        seed = self.records[0]["seed"]
        if seed or len(self.records) > 1:
            words.append(f"--config.seed={seed}")
        return " ".join(["python -m experiments.train", *words, f"--workdir=runs/{self.task}_{self.cell}_{seed}"])

    def distinct(self, key: str) -> list[str]:
        """The values under a key of the records, each once."""
        return list(dict.fromkeys(record[key] for record in self.records))


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Reads every record, file by file, each file in its order.

    Raises:
      ConfigError: a line is no record; it is named.
    """
    records = []
    for path in sorted(folder.glob("*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict) or KEYS - set(record):
                missing = KEYS - set(record or ())
                raise ConfigError(
                    f"{path}:{number}: expected a record with {', '.join(sorted(missing))}, got {line[:60]}"
                )
            if record["split"] != "test":
                raise ConfigError(f"{path}:{number}: split: expected 'test', got {record['split']!r}")
            records.append(record)
    return records


def grouped(records: list[dict[str, Any]]) -> list[Group]:
    """Groups records that differ in their seed alone, in the order of each group's last record: the newest is last."""
    groups: dict[tuple[str, str, str, str, tuple[str, ...]], dict[int, dict[str, Any]]] = {}
    for record in records:
        overrides = tuple(sorted(word for word in record["overrides"] if not word.startswith("seed=")))
        key = (record["task"], record["metric"], record["cell"], record["config"], overrides)
        seeds = groups.pop(key, {})
        groups[key] = seeds | {record["seed"]: record}
    return [Group(*key, tuple(seeds[seed] for seed in sorted(seeds))) for key, seeds in groups.items()]
