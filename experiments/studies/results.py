"""The results of a study: measurements as JSON, and a Markdown section and a plot made from them.

The report includes the sections of all studies and imports none of the studies. With --render, a study makes the
section and the plot from the recorded measurements, without measuring again.
"""

import json
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments import files
from experiments.runner import environment, logging
from experiments.schema import UserError

FOLDER = flags.DEFINE_string("folder", str(logging.RESULTS / "studies"), "Folder for the results.")
RENDER = flags.DEFINE_bool("render", False, "Measure nothing; make the section and the plot from <study>.json.")
PLACES = ("folder", "data_dir")
"""Flags that say where files lie, not what is measured."""


def measured(study: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the measurements of a study and writes them to <study>.json; with --render, reads that file.

    Args:
      study: the name of the study.
      measure: makes the measurements.

    Returns:
      The measurements, with the "command", "machine" and "commit" that made them.

    Raises:
      UserError: if --render is given and the file is missing or damaged.
    """
    folder = pathlib.Path(FOLDER.value)
    if RENDER.value:
        return read(folder / f"{study}.json")
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "command": command(study),
        "machine": environment.machine(),
        "commit": environment.commit(),
    }
    found = source | dict(measure())
    files.write_json(folder / f"{study}.json", found)
    return found


def command(study: str) -> str:
    """Returns the command line of a study, with the flags that were given, but for places on this machine."""
    given = (flags.FLAGS[name] for name in sorted(flags.FLAGS) if name not in PLACES)
    options = [flag.serialize() for flag in given if flag.present]
    return shlex.join(["python", "-m", f"experiments.studies.{study}", *options])


def publish(study: str, section: str, plot: bytes) -> None:
    """Writes <study>.md and <study>.svg to --folder.

    Args:
      study: the name of the study.
      section: Markdown that begins with a heading; links are relative to the folder.
      plot: an SVG file.
    """
    folder = pathlib.Path(FOLDER.value)
    files.write_bytes(folder / f"{study}.md", f"{section.strip()}\n".encode())
    files.write_bytes(folder / f"{study}.svg", plot)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads the file that `measured` writes.

    Raises:
      UserError: if the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: expected the results of a study, got no file") from None
    except ValueError as error:
        raise UserError(f"{path}: expected the results of a study, got damaged JSON: {error}") from None
