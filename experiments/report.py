"""Makes RESULTS.md, its picture and the README's table from the raw records; with --check, says whether they are up to
date.

python -m experiments.report
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import atomic, command_line
from experiments.reporting import document, plot, records
from experiments.reporting.goals import GOALS
from experiments.reporting.records import Group
from experiments.schema import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]

CHECK = flags.DEFINE_bool("check", False, "Whether to write nothing, and to fail where they are not up to date.")


def main(arguments: Sequence[str]) -> None:
    """Writes the files, or compares them with what would be written."""
    del arguments
    if CHECK.value:
        check(ROOT)
        print("RESULTS.md and README.md are up to date")
    else:
        for path in write(ROOT):
            print(f"wrote {path.relative_to(ROOT)}")


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Writes RESULTS.md, the picture and the README's table of a checkout; returns their paths."""
    picture = root / document.PICTURE
    groups = records.grouped(records.read(picture.parent))
    made = texts(root, groups)
    for path, text in made.items():
        atomic.write_bytes(path, text.encode())
    atomic.write_bytes(picture, plot.draw(plot.drawn(GOALS, groups)))
    return [*made, picture]


def texts(root: pathlib.Path, groups: Sequence[Group]) -> dict[pathlib.Path, str]:
    """Returns what RESULTS.md and README.md should be."""
    results, readme = root / "RESULTS.md", root / "README.md"
    own = document.text(groups, (root / document.PICTURE).parent)
    return {results: own, readme: document.readme(readme.read_text(encoding="utf-8"), groups)}


def check(root: pathlib.Path) -> None:
    """Compares a checkout's RESULTS.md, README.md and picture with its records.

    Raises:
      ConfigError: one of them is not what `write` would make; the line says where it differs.
    """
    picture = root / document.PICTURE
    groups = records.grouped(records.read(picture.parent))
    for path, text in texts(root, groups).items():
        expected, found = text.splitlines(), path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if found != expected:
            line = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False), 1) if one != other), 0)
            where = f"line {line or min(len(found), len(expected)) + 1}"
            raise ConfigError(
                f"{path.name} is not what the records say, from {where} on: run python -m experiments.report"
            )
    if plot.digest(plot.drawn(GOALS, groups)) not in (picture.read_text(encoding="utf-8") if picture.exists() else ""):
        raise ConfigError(f"{document.PICTURE} is not what the records say: run python -m experiments.report")


if __name__ == "__main__":
    command_line.run(main)
