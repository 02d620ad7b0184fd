"""The grid: every combination of the values given for some keys, each with every seed."""

import copy
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.config import ExperimentConfig, resolve
from experiments.run_folder import RunFolder
from experiments.schema import ConfigError


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
      config: the whole experiment's.
      folder: the run's own, such as `train` makes; `evaluate` and `sample` take it too.
      overrides: what the sweep sets in the config file, as `train` would be told it.
    """

    config: ExperimentConfig
    folder: RunFolder
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.path.parent.name}, seed {self.config.seed}"


@dataclasses.dataclass(frozen=True)
class Point:
    """One combination of the grid's values: its name, such as "model.cell=gru,seed", and a member for each seed."""

    name: str
    members: tuple[Member, ...]


def points(
    values: Mapping[str, Any], grid: Sequence[str], seeds: int, workdir: pathlib.Path, overrides: Sequence[str] = ()
) -> list[Point]:
    """Lays the grid out, the last key changing fastest.

    Args:
      values: the experiment's, as plain nested dicts; `seed` is the first of the seeds.
      grid: "key=value,value" for each key.
      seeds: how many of them for each combination.
      workdir: the sweep's folder; runs have theirs in there.
      overrides: those of the command line, to be recorded beside the grid's.

    Raises:
      ConfigError: a key or a value that cannot be, before anything is run; one line.
    """
    axes = [parsed(entry) for entry in grid]
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1 or key == "seed":
            reason = "once" if keys.count(key) > 1 else "--seeds in its place"
            raise ConfigError(f"--grid: expected {key} {reason}, got {' '.join(grid)}")
    found = []
    for combination in itertools.product(*(texts for _, texts in axes)):
        settings = [f"{key}={text}" for key, text in zip(keys, combination, strict=True)]
        name = ",".join(settings).replace("/", "_") or "base"
        if any(name == point.name for point in found):
            raise ConfigError(f"--grid: expected values that differ in more than / and _, got {name!r} twice")
        base = copy.deepcopy(dict(values))
        for key, text in zip(keys, combination, strict=True):
            put(base, key, value_of(text))
        first = resolve(base).seed
        members = []
        for seed in range(first, first + seeds):
            folder = RunFolder(workdir / name / f"seed_{seed}")
            told = (*overrides, *settings, *([f"seed={seed}"] if seed != first else []))
            members.append(Member(resolve(base | {"seed": seed}), folder, told))
        found.append(Point(name, tuple(members)))
    return found


def parsed(entry: str) -> tuple[str, list[str]]:
    """Reads "key=value,value"; commas within brackets belong to a value."""
    key, equals, rest = entry.partition("=")
    texts, depth = [""], 0
    for character in rest:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            texts.append("")
        else:
            texts[-1] += character
    if not equals or not key or "" in texts or len(set(texts)) < len(texts):
        raise ConfigError(f"--grid: expected key=value,value with values that differ, got {entry!r}")
    return key, texts


def value_of(text: str) -> Any:
    """Reads a value: a number, true, false, a list as JSON has them, else the text itself."""
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


def put(values: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key of nested dicts; `resolve` says later whether there is such a key."""
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--grid: expected a key of the configuration, got {key!r}")
    values[last] = value
