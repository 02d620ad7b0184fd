"""What a study leaves in the folder of the results: its numbers as JSON, and a Markdown section and a picture of them.

The report puts the sections of all studies together and imports none of them. With --render, a study measures nothing
and writes section and picture anew from the recorded numbers.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments import files
from experiments.runner import environment, logging
from experiments.schema import UserError

flags.disclaim_key_flags()  # the flags belong to the study that defines them, so that its --help shows them


def define_flags() -> None:
    """Defines --folder and --render; studies that each define them can be imported side by side."""
    flags.DEFINE_string("folder", str(logging.RESULTS / "studies"), "Where the results go.", allow_override=True)
    flags.DEFINE_bool(
        "render",
        False,
        "Whether to measure nothing, and to write anew what follows from <study>.json.",
        allow_override=True,
    )


def measured(study: str, measure: Callable[[], Mapping[str, Any]], options: str = "") -> dict[str, Any]:
    """Returns what a study finds, and writes it to <study>.json; with --render, returns what was recorded.

    Args:
      study: its name.
      measure: does the work.
      options: what the command cannot do without, such as "--workdir=runs/multi30k".

    Returns:
      The measurements, with the "command", "machine" and "commit" that they come from.

    Raises:
      UserError: --render, and there is no such file, or it is damaged.
    """
    folder = pathlib.Path(flags.FLAGS.folder)
    if flags.FLAGS.render:
        return read(folder / f"{study}.json")
    folder.mkdir(parents=True, exist_ok=True)
    source = {
        "command": f"python -m experiments.studies.{study} {options}".rstrip(),
        "machine": environment.machine(),
        "commit": environment.commit(),
    }
    found = source | dict(measure())
    files.write_json(folder / f"{study}.json", found)
    return found


def publish(study: str, section: str, picture: bytes) -> None:
    """Writes <study>.md and <study>.svg to --folder.

    Args:
      study: its name.
      section: Markdown that begins with its heading; links are relative to the folder.
      picture: an SVG.
    """
    folder = pathlib.Path(flags.FLAGS.folder)
    files.write_bytes(folder / f"{study}.md", f"{section.strip()}\n".encode())
    files.write_bytes(folder / f"{study}.svg", picture)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns what `measured` has written.

    Raises:
      UserError: the file is not there or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: expected the results of a study, got no file") from None
    except ValueError as error:
        raise UserError(f"{path}: expected the results of a study, got damaged JSON: {error}") from None
