"""Makes RESULTS.md, docs/results/, their pictures and the README's table from the raw records.

python -m experiments.report            # writes them
python -m experiments.report --check    # fails if one of them is not up to date
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import files
from experiments.reporting import document, picture
from experiments.reporting.document import Report
from experiments.runner import cli
from experiments.schema import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]

CHECK = flags.DEFINE_bool("check", False, "Whether to write nothing, and to fail if a file is not up to date.")


def main(arguments: Sequence[str]) -> None:
    """Writes the files, or compares them with what would be written."""
    del arguments
    if CHECK.value:
        check(ROOT)
        print(f"RESULTS.md, {document.PAGES_FOLDER}/ and README.md are up to date")
    else:
        for path in write(ROOT):
            print(f"wrote {path.relative_to(ROOT)}")


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Writes the documents and pictures of a checkout; returns their paths."""
    report = Report.read(root / document.RESULTS)
    made = {path: text.encode() for path, text in texts(root, report).items()}
    known = report.rows, report.groups, report.scores
    made[root / document.OVERVIEW] = picture.overview(*known)
    made[root / document.FORECASTS] = picture.forecasts(*known)
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, content)
    return list(made)


def texts(root: pathlib.Path, report: Report) -> dict[pathlib.Path, str]:
    """Returns what each document should be."""
    pages = {root / document.PAGES_FOLDER / f"{page.name}.md": document.page(page, report) for page in report.pages}
    readme = root / "README.md"
    own = {root / "RESULTS.md": document.results(report)}
    return own | pages | {readme: document.readme(readme.read_text(encoding="utf-8"), report)}


def check(root: pathlib.Path) -> None:
    """Compares the documents and pictures of a checkout with its records.

    Raises:
      UserError: one of them is not what `write` would make; the line says where it differs.
    """
    report = Report.read(root / document.RESULTS)
    for path, text in texts(root, report).items():
        expected, found = text.splitlines(), path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if found != expected:
            line = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False), 1) if one != other), 0)
            raise UserError(
                f"{path.relative_to(root)}: expected what the records say, got another line "
                f"{line or min(len(found), len(expected)) + 1}; run python -m experiments.report"
            )
    known = report.rows, report.groups, report.scores
    drawn = {document.OVERVIEW: picture.content(*known), document.FORECASTS: picture.curves(*known)}
    for name, content in drawn.items():
        path = root / name
        if picture.digest(content) not in (path.read_text(encoding="utf-8") if path.exists() else ""):
            raise UserError(
                f"{name}: expected what the records say, got another picture; run python -m experiments.report"
            )


if __name__ == "__main__":
    cli.run(main)
