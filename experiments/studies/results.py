"""What a study leaves for RESULTS.md: its numbers, and where they come from, beside a picture of them."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import flags

from experiments import atomic
from experiments.schema import ConfigError
from experiments.training import environment, summary


def define_folder() -> None:
    """Defines --folder, where `write` puts the results."""
    flags.DEFINE_string("folder", str(summary.RESULTS / "studies"), "Where the results go.")


def write(study: str, found: Mapping[str, Any], picture: bytes, options: str = "") -> None:
    """Writes <study>.json, with the command, machine and commit, and <study>.svg to --folder.

    Args:
      study: its name.
      found: what it measured.
      picture: an SVG.
      options: what the command cannot do without, such as "--workdir=runs/multi30k".
    """
    folder = pathlib.Path(flags.FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "command": f"python -m experiments.studies.{study} {options}".rstrip(),
        "machine": environment.machine(),
        "commit": environment.commit(),
    }
    atomic.write_json(folder / f"{study}.json", source | dict(found))
    atomic.write_bytes(folder / f"{study}.svg", picture)


def read(folder: pathlib.Path, study: str) -> dict[str, Any] | None:
    """Returns what `write` has put into the "studies" of a folder of results; None where the study was not run.

    Raises:
      ConfigError: the file is damaged.
    """
    path = folder / "studies" / f"{study}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except ValueError as error:
        raise ConfigError(f"{path} is damaged: {error}") from None
