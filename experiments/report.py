"""Makes RESULTS.md and its picture from the raw records; with --check, says whether they are up to date.

python -m experiments.report
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import atomic, command_line
from experiments.reporting import document, plot, records
from experiments.reporting.goals import GOALS
from experiments.schema import ConfigError

ROOT = pathlib.Path(__file__).resolve().parents[1]

CHECK = flags.DEFINE_bool("check", False, "Whether to write nothing, and to fail where RESULTS.md is not up to date.")


def main(arguments: Sequence[str]) -> None:
    """Writes both files, or compares them with what would be written."""
    del arguments
    if CHECK.value:
        check(ROOT)
        print("RESULTS.md is up to date")
    else:
        for path in write(ROOT):
            print(f"wrote {path.relative_to(ROOT)}")


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Writes RESULTS.md and the picture of a checkout; returns their paths."""
    results, picture = root / "RESULTS.md", root / document.PICTURE
    groups = records.grouped(records.read(picture.parent))
    atomic.write_bytes(results, document.text(groups, picture.parent).encode())
    atomic.write_bytes(picture, plot.draw(plot.drawn(GOALS, groups)))
    return [results, picture]


def check(root: pathlib.Path) -> None:
    """Compares a checkout's RESULTS.md and picture with its records.

    Raises:
      ConfigError: one of them is not what `write` would make; the line says where it differs.
    """
    results, picture = root / "RESULTS.md", root / document.PICTURE
    groups = records.grouped(records.read(picture.parent))
    expected = document.text(groups, picture.parent).splitlines()
    found = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    if found != expected:
        line = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False), 1) if one != other), 0)
        where = f"line {line or min(len(found), len(expected)) + 1}"
        raise ConfigError(f"RESULTS.md is not what the records say, from {where} on: run python -m experiments.report")
    if plot.digest(plot.drawn(GOALS, groups)) not in (picture.read_text(encoding="utf-8") if picture.exists() else ""):
        raise ConfigError(f"{document.PICTURE} is not what the records say: run python -m experiments.report")


if __name__ == "__main__":
    command_line.run(main)
