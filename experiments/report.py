"""Makes RESULTS.md, docs/results/, their plots and the README's table from the records in experiments/results/.

python -m experiments.report            # writes the files
python -m experiments.report --check    # fails if a file is not up to date
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from experiments import files
from experiments.reporting import cells, document, plots
from experiments.reporting.document import Report
from experiments.runner import cli
from experiments.schema import UserError

ROOT = pathlib.Path(__file__).resolve().parents[1]

CHECK = flags.DEFINE_bool("check", False, "Write nothing, and fail if a file is not up to date.")


def main(arguments: Sequence[str]) -> None:
    """Writes the files, or checks them with --check."""
    del arguments
    if CHECK.value:
        check(ROOT)
        print(f"RESULTS.md, {document.PAGES_FOLDER}/ and README.md are up to date")
    else:
        for path in write(ROOT):
            print(f"wrote {path.relative_to(ROOT)}")


def write(root: pathlib.Path) -> list[pathlib.Path]:
    """Writes the documents and plots of a checkout and returns their paths."""
    report = Report.read(root / document.RESULTS)
    contents = {path: text.encode() for path, text in documents(root, report).items()}
    known = report.rows, report.groups, report.scores
    contents[root / document.OVERVIEW] = plots.overview(*known)
    contents[root / document.FORECASTS] = plots.forecasts(*known)
    about = plots.digest(cells.picture_content(report.comparisons))
    contents[root / cells.PICTURE] = cells.picture(report.comparisons, about)
    for path, content in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, content)
    return list(contents)


def documents(root: pathlib.Path, report: Report) -> dict[pathlib.Path, str]:
    """Returns the text of each document."""
    pages = {root / document.PAGES_FOLDER / f"{page.name}.md": document.page(page, report) for page in report.pages}
    readme = root / "README.md"
    own = {root / "RESULTS.md": document.results(report)}
    return own | pages | {readme: document.readme(readme.read_text(encoding="utf-8"), report)}


def check(root: pathlib.Path) -> None:
    """Checks that the documents and plots of a checkout match its records.

    Raises:
      UserError: if one of them differs from what `write` makes; the message names the line.
    """
    report = Report.read(root / document.RESULTS)
    for path, text in documents(root, report).items():
        expected, found = text.splitlines(), path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if found != expected:
            line = next((n for n, (one, other) in enumerate(zip(found, expected, strict=False), 1) if one != other), 0)
            raise UserError(
                f"{path.relative_to(root)}: expected the text made from the records, got another line "
                f"{line or min(len(found), len(expected)) + 1}; run python -m experiments.report"
            )
    known = report.rows, report.groups, report.scores
    plotted = {
        document.OVERVIEW: plots.overview_content(*known),
        document.FORECASTS: plots.curves(*known),
        cells.PICTURE: cells.picture_content(report.comparisons),
    }
    for name, content in plotted.items():
        path = root / name
        if plots.digest(content) not in (path.read_text(encoding="utf-8") if path.exists() else ""):
            raise UserError(
                f"{name}: expected the plot made from the records, got another; run python -m experiments.report"
            )


if __name__ == "__main__":
    cli.run(main)
