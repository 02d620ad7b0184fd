"""The results of a study: measurements as JSON, and a Markdown section and a plot made from them.

They are written to runs/studies/, or with --record to experiments/results/studies/. The report includes the sections of
all recorded studies and imports none of them. With --render, a study makes the section and the plot from the
measurements that are there, without measuring again.
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

RECORDED = logging.RESULTS / "studies"
FOLDER = flags.DEFINE_string("folder", "runs/studies", "Folder for the results.")
RECORD = flags.DEFINE_bool(
    "record", False, "Whether to write the results to experiments/results/, from committed code.", allow_override=True
)
RENDER = flags.DEFINE_bool("render", False, "Measure nothing; make the section and the plot from <study>.json.")
PLACES = ("folder", "record", "data_dir")
"""Flags that say where files lie, not what is measured."""


def folder() -> pathlib.Path:
    """Returns the folder of the results that --folder and --record tell.

    Raises:
      UserError: both are given, or measurements would be recorded of uncommitted code.
    """
    if not RECORD.value:
        return pathlib.Path(FOLDER.value)
    if FOLDER.present:
        raise UserError("--record: expected no --folder beside it, got both")
    if not RENDER.value:
        environment.require_clean_commit("--record", environment.commit())
    return RECORDED


def measured(study: str, measure: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the measurements of a study and writes them to <study>.json; with --render, reads that file.

    Args:
      study: the name of the study.
      measure: makes the measurements.

    Returns:
      The measurements, with the "command", "machine" and "commit" that made them.

    Raises:
      UserError: if --render is given and the file is missing or damaged; see also `folder`.
    """
    path = folder() / f"{study}.json"
    if RENDER.value:
        return read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = {
        "command": command(study),
        "machine": environment.machine(),
        "commit": environment.commit(),
    }
    found = source | dict(measure())
    files.write_json(path, found)
    return found


def command(study: str) -> str:
    """Returns the command line of a study, with the flags that were given, but for places on this machine."""
    given = (flags.FLAGS[name] for name in sorted(flags.FLAGS) if name not in PLACES)
    options = [flag.serialize() for flag in given if flag.present]
    return shlex.join(["python", "-m", f"experiments.studies.{study}", *options])


def publish(study: str, section: str, plot: bytes) -> None:
    """Writes <study>.md and <study>.svg beside <study>.json.

    Args:
      study: the name of the study.
      section: Markdown that begins with a heading; links are relative to the folder.
      plot: an SVG file.
    """
    path = folder() / study
    files.write_bytes(path.with_suffix(".md"), f"{section.strip()}\n".encode())
    files.write_bytes(path.with_suffix(".svg"), plot)


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
