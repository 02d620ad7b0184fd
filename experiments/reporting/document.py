"""RESULTS.md, the pages of docs/results/ that it links to, and the README's table."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence

from experiments.reporting import picture, published, records, speed, tables
from experiments.reporting.published import Published, Row
from experiments.reporting.records import Group
from experiments.schema import UserError

RESULTS = "experiments/results"
PAGES_FOLDER = "docs/results"
OVERVIEW, FORECASTS = f"{RESULTS}/overview.svg", f"{RESULTS}/forecasts.svg"
MARKS = ("<!-- results: made by python -m experiments.report -->\n\n", "\n\n<!-- end of results -->")
"""What stands before and after the README's table."""
GENERATED = "<!-- Made by python -m experiments.report; notes are in experiments/results/notes/. -->"


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of docs/results/.

    Attributes:
      name: of its file, of its rows' `page`, and of its notes.
      title: its heading.
      about: a line for RESULTS.md.
      studies: whose fragments it takes in.
    """

    name: str
    title: str
    about: str
    studies: tuple[str, ...] = ()


PAGES = (
    Page("synthetic", "Adding and copying", "long delays in made-up sequences"),
    Page("long_memory", "Long memory", "how far back each cell remembers", ("long_memory",)),
    Page("gradients", "Gradients", "how they vanish, explode and are clipped", ("gradient_flow",)),
    Page("efficiency", "Efficiency", "what a GRU costs beside an LSTM and an Elman network", ("efficiency",)),
    Page("speed", "Speed and memory", "beside PyTorch, Flax, Haiku, Equinox, Keras and ONNX Runtime"),
    Page("images", "Images as sequences", "digits and MNIST, pixel by pixel"),
    Page("music", "Polyphonic music", "JSB Chorales, Nottingham, MuseData, Piano-midi.de"),
    Page("text", "Characters", "tiny Shakespeare and the Penn Treebank"),
    Page("speech", "Speech", "AN4, Free Spoken Digits, Japanese Vowels"),
    Page("translation", "Translation", "Multi30k in three directions, with and without attention", ("source_length",)),
    Page("forecasting", "Forecasting", "ETTh1 and exchange rates at every horizon"),
    Page("protocols", "Published figures", "every figure, its source, and what it was measured on"),
)
OTHER = Page("other", "Tasks without a row", "recorded runs of tasks that published.toml does not name")

INTRODUCTION = f"""\
# Results

Made by `python -m experiments.report` from the raw records in `experiments/results/`, one line for each finished run.
No number in a table is written by hand: published figures, with their sources, come from `published.toml`. Models are
selected on the validation split alone; the test split is scored once, at the end of a run.

## Overview

Values of ours are means over seeds, with the standard deviation of a sample; one number is one run. "LSTM" and "Elman"
have as many parameters as the GRU, except where a page says otherwise. Arrows say which way is better. Published
figures stand with their number of parameters and source; a size that is not known to us counts as comparable. What
beats our GRU is marked {tables.WORSE}; what has the same digits, as level with ours. Figures measured under another
protocol are on the [pages](#pages), and are not compared. {tables.LEGEND}"""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the documents are made from.

    Attributes:
      published: rows, with those of recorded metrics that have none.
      groups: from `records.grouped`.
      scores: of the trivial baselines, by name.
      folder: of the results.
    """

    published: Published
    groups: Sequence[Group]
    scores: Mapping[str, float]
    folder: pathlib.Path

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Report":
        """Reads everything from the folder of the results.

        Raises:
          UserError: a file is not what it should be; one line.
        """
        groups = records.grouped(records.read(folder))
        found = published.read(folder)
        for name, row in found.rows.items():
            known = [page.name for page in PAGES]
            if row.page not in known:
                expected = ", ".join(known)
                raise UserError(f"published.toml: [rows.{name}] page: expected one of {expected}, got {row.page!r}")
        scores = _trivial_scores(folder / "studies" / "trivial_baselines.json")
        return cls(
            Published({**found.rows, **_rows_without_figures(groups, found)}, found.sources), groups, scores, folder
        )

    @property
    def rows(self) -> list[Row]:
        return list(self.published.rows.values())

    @functools.cached_property
    def begun(self) -> list[Row]:
        """The rows that have a run of ours."""
        return [row for row in self.rows if any(g.cell in tables.CELLS for g in tables.of(row, self.groups))]

    @property
    def pages(self) -> list[Page]:
        return [*PAGES, *([OTHER] if any(row.page == OTHER.name for row in self.rows) else [])]


def results(report: Report) -> str:
    """Returns RESULTS.md."""
    headlines = [row for row in report.begun if row.headline]
    waiting = dict.fromkeys(row.title for row in report.rows if row.headline and row not in report.begun)
    shown = [row for row, *_ in picture.overview_rows(report.rows, report.groups, report.scores)]
    left_out = dict.fromkeys(row.title for row in headlines if row not in shown and row.horizon is None)
    parts = [INTRODUCTION, tables.overview(headlines, report.groups, report.scores)]
    if waiting:
        parts.append(f"Not yet run: {'; '.join(waiting)}.")
    parts += [
        f"![Every task: ours, published figures and trivial baselines on one scale]({OVERVIEW})",
        "The scale is the logarithm of the error: 0 is the simplest trivial baseline, 1 the best published figure of "
        "any kind. A mark to the left of 1 is worse than that figure. Not shown, since no comparable figure is known: "
        f"{'; '.join(left_out)}. Nor are the exchange rates, since no published figure beats the trivial baseline.",
        f"![Errors of forecasts over the horizon]({FORECASTS})",
        "For the exchange rates no model, ours or published, does better than the last value.",
        "## Speed and memory",
        "Ratios to PyTorch, Flax, Haiku, Equinox, Keras and ONNX Runtime, long sequences, streaming steps and the "
        f"training loop are in [{PAGES_FOLDER}/speed.md]({PAGES_FOLDER}/speed.md), with every target that is missed.",
        "## Studies",
    ]
    for page in report.pages:
        for fragment in fragments(page, report.folder):
            heading = fragment.partition("\n")[0].lstrip("# ")
            parts += [
                f"### {heading}",
                f"[{PAGES_FOLDER}/{page.name}.md]({PAGES_FOLDER}/{page.name}.md#{anchor(heading)})",
            ]
    links = (f"- [{page.title}]({PAGES_FOLDER}/{page.name}.md): {page.about}" for page in report.pages)
    parts += ["## Pages", "\n".join(links), "## Sources", cited(headlines, report.published)]
    return "\n\n".join(parts) + "\n"


def page(found: Page, report: Report) -> str:
    """Returns a page of docs/results/."""
    rows = {name: row for name, row in report.published.rows.items() if row.page == found.name}
    begun = [row for row in rows.values() if row in report.begun]
    parts = [f"# {found.title}", GENERATED, f"[All results](../../RESULTS.md): {found.about}."]
    if begun:
        parts += [tables.overview(begun, report.groups, report.scores), tables.LEGEND]
    if found.name == "forecasting":
        parts.append(relinked(f"![Errors of forecasts over the horizon]({pathlib.PurePath(FORECASTS).name})"))
    notes = report.folder / "notes" / f"{found.name}.md"
    if notes.exists():
        parts.append(relinked(notes.read_text(encoding="utf-8").strip(), "notes"))
    parts += [relinked(fragment, "studies") for fragment in fragments(found, report.folder)]
    if found.name == "speed":
        parts.append(relinked(speed.section(report.folder, published.read_speed_targets(report.folder))))
    if found.name == "efficiency" and (reached := tables.budgets(report.groups)):
        parts += ["## What was reached with as many parameters", BUDGETS, reached]
    if found.name == "protocols":
        parts += [PROTOCOLS, tables.protocols(report.rows), "## Sources", cited(report.rows, report.published)]
    titles = {(row.title, row.task): name for name, row in reversed(rows.items())}
    if titles:
        parts.append("## Every run")
    for name in reversed(titles.values()):
        parts.append(tables.details(name, report.published, report.groups, report.scores))
    return "\n\n".join(filter(None, parts)) + "\n"


BUDGETS = """\
For as many parameters and as many training steps, in the recorded runs; minutes where both were trained on one kind of
machine, which was not always equally busy:"""
PROTOCOLS = f"""\
Every published figure that the results are held against. "Compared: no" means that the protocol or the kind of model
differs so much that the figure is only quoted. {tables.REPORTED}: quoted at second hand, not read in the source
itself. Where no protocol is given, no difference from ours is known."""


def readme(before: str, report: Report) -> str:
    """Returns the README with its table as the records have it.

    Args:
      before: the whole README.
      report: what the table is made from.

    Raises:
      UserError: the README does not have exactly one place for the table.
    """
    begin, end = MARKS
    if before.count(begin) != 1 or before.partition(begin)[2].count(end) != 1:
        raise UserError(f"README.md: expected one {begin.strip()}, and then one {end.strip()}, around its table")
    head, _, rest = before.partition(begin)
    rows = [row for row in report.begun if row.readme]
    made = f"{tables.overview(rows, report.groups, report.scores, commands=True)}\n\n{tables.LEGEND}"
    return f"{head}{begin}{made}{end}{rest.partition(end)[2]}"


def fragments(found: Page, folder: pathlib.Path) -> list[str]:
    """Returns the Markdown that a page's studies have left; each begins with its heading."""
    files = (folder / "studies" / f"{study}.md" for study in found.studies)
    return [file.read_text(encoding="utf-8").strip() for file in files if file.exists()]


def relinked(text: str, folder: str = "") -> str:
    """Turns links relative to a folder of the results into links relative to docs/results/."""
    prefix = "/".join(filter(None, ["../..", RESULTS, folder]))
    return re.sub(r"\]\((?!\w+:|[#/]|\.\./)", f"]({prefix}/", text)


def anchor(heading: str) -> str:
    """Returns the anchor that Markdown gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def cited(rows: Sequence[Row], found: Published) -> str:
    """Lists the sources of the rows' figures."""
    names = dict.fromkeys(figure.source for row in rows for figure in row.figures)
    of = found.sources
    return "\n".join(f"- [{name}] {of[name].text}." for name in sorted(names))


def _trivial_scores(file: pathlib.Path) -> dict[str, float]:
    """Returns what `experiments.studies.trivial_baselines` has recorded; nothing if it was not run."""
    if not file.exists():
        return {}
    try:
        return {
            str(name): float(score) for name, score in json.loads(file.read_text(encoding="utf-8"))["scores"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: expected the scores of trivial baselines, got {error!r}") from None


def _rows_without_figures(groups: Sequence[Group], found: Published) -> dict[str, Row]:
    """Makes a bare row for each recorded metric that has none, so that no record is left out."""
    known = {(row.task, row.metric) for row in found.rows.values()}
    missing = dict.fromkeys((g.task, g.metric) for g in groups if (g.task, g.metric) not in known)
    return {
        f"{task}_{metric}": Row(task, metric, task, f"test {metric}", ".4g", "less", OTHER.name, headline=True)
        for task, metric in missing
    }
