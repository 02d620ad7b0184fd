"""Builds RESULTS.md, the pages of docs/results/ and the README's table from the records."""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Mapping, Sequence

from experiments.reporting import cells, plots, published, records, speed, tables
from experiments.reporting.cells import Comparison
from experiments.reporting.published import Published, Row
from experiments.reporting.records import Group
from experiments.schema import UserError

RESULTS = "experiments/results"
PAGES_FOLDER = "docs/results"
OVERVIEW, FORECASTS = f"{RESULTS}/overview.svg", f"{RESULTS}/forecasts.svg"
MARKS = ("<!-- results: made by python -m experiments.report -->\n\n", "\n\n<!-- end of results -->")
"""The text before and after the README's table."""
GENERATED = "<!-- Made by python -m experiments.report; notes are in experiments/results/notes/. -->"


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of docs/results/.

    Attributes:
      name: the name of the file and of its notes, and the `page` of its rows.
      title: the heading.
      about: one line for RESULTS.md.
      studies: the studies with Markdown on the page.
    """

    name: str
    title: str
    about: str
    studies: tuple[str, ...] = ()


PAGES = (
    Page("synthetic", "Adding and copying", "long delays in synthetic sequences"),
    Page("long_memory", "Long memory", "how far back each cell remembers", ("long_memory",)),
    Page("gradients", "Gradients", "where they vanish, where they explode, and what clipping does", ("gradient_flow",)),
    Page("efficiency", "Efficiency", "the cost of a GRU, an LSTM and an Elman network", ("efficiency",)),
    Page("cells", "What each change of the gates is worth", "every cell with as many parameters as the GRU"),
    Page("speed", "Speed and memory", "beside PyTorch, Flax, Haiku, Equinox, Keras and ONNX Runtime"),
    Page("images", "Images as sequences", "digits and MNIST, pixel by pixel"),
    Page("music", "Polyphonic music", "JSB Chorales, Nottingham, MuseData, Piano-midi.de"),
    Page("text", "Characters", "tiny Shakespeare and the Penn Treebank"),
    Page("speech", "Speech", "AN4, Free Spoken Digits, Japanese Vowels"),
    Page("translation", "Translation", "Multi30k in three directions, with and without attention", ("source_length",)),
    Page("forecasting", "Forecasting", "ETTh1 and exchange rates at every horizon"),
    Page("protocols", "Published figures", "every figure with its source and protocol"),
)
OTHER = Page("other", "Tasks without a row", "recorded runs of tasks that published.toml does not name")

INTRODUCTION = f"""\
# Results

`python -m experiments.report` makes this file from the records in `experiments/results/`, which have one line per
finished run. Published figures and their sources come from `experiments/results/published.toml`. Models are selected on
the validation split; the test split is evaluated once, at the end of a run.

## Overview

Our values are means over seeds with the sample standard deviation; a single number is a single run. The LSTM and the
Elman network have as many parameters as the GRU unless a page says otherwise. Arrows point to better values. Published
figures are those known to us, not a survey; they have their number of parameters and their source. A budget is
comparable if it has at most about 1.6 times the parameters of our GRU, or if its size is unknown. A figure that beats
our GRU is marked {tables.BETTER}; "{tables.EQUAL}" means that all digits shown are the same. Figures with another
protocol are on the [pages](#pages) and are not compared. The pages also have the commands. For all seven series of
ETTh1, ours are forecasts of a network and a linear map.

{tables.LEGEND}"""
README_LEGEND = (
    "Mean ± standard deviation over seeds; arrows point to better values. "
    f"{tables.LEGEND} For ETTh1, ours is a GRU and a linear map. "
    "Sizes, [sources](RESULTS.md#sources) and commands: [RESULTS.md](RESULTS.md)."
)
COMPARED = f"""\
Every cell has about as many parameters as the GRU of the task, readout included; its width follows from that. Data,
optimizer, learning rate, steps and dropout are those of the task's own configuration. They were chosen for the GRU, and
nothing was tuned for another cell. IndRNN, MinGRU, MinLSTM and LRU have two layers, since their units are mixed by the
next layer; dropout also acts between them. Recurrent dropout needs a matrix U, so LEM and these four have none. Cells
with layer normalization have random biases (`b_init="uniform"`). [Cells](../cells.md) has the equations, the reason for
these biases, and when to choose a cell.

Values are means over seeds with the sample standard deviation; a single number is a single run, and a dash means not
trained. A difference from the GRU is called clear if it exceeds the sum of the two standard deviations, which is not a
test of significance: {cells.BETTER} clearly better, {cells.WORSE} clearly worse. Cells are ordered by their mean rank.
Minutes are those of cores that other runs shared."""
PICTURED = "A circle is the mean of a cell, a tick is a run, and the line is the GRU."
BUDGETS = """\
The recorded runs with as many parameters and training steps as the GRU. Minutes are given if both were trained on the
same kind of machine, which was not always equally busy."""
PROTOCOLS = f"""\
All published figures to which the results are compared. "Compared: no" means that the protocol or the kind of model
differs too much. {tables.REPORTED}: reported, not checked against the source: quoted by another paper or page, or from
memory. An empty protocol means that no difference from ours is known."""


@dataclasses.dataclass(frozen=True)
class Report:
    """The data of the documents.

    Attributes:
      published: the rows of published.toml, and a bare row for each recorded metric without a row there.
      groups: from `records.grouped`, without those of `cells.CONFIG`.
      scores: the scores of the trivial baselines, by name.
      folder: experiments/results.
      comparisons: from `cells.read`.
    """

    published: Published
    groups: Sequence[Group]
    scores: Mapping[str, float]
    folder: pathlib.Path
    comparisons: Sequence[Comparison] = ()

    @classmethod
    def read(cls, folder: pathlib.Path) -> "Report":
        """Reads all files in the folder of the results.

        Raises:
          UserError: if a file is invalid.
        """
        lines = records.read(folder)
        groups = [group for group in records.grouped(lines) if not cells.is_comparison(group)]
        found = published.read(folder)
        for name, row in found.rows.items():
            known = [page.name for page in PAGES]
            if row.page not in known:
                expected = ", ".join(known)
                raise UserError(f"published.toml: [rows.{name}] page: expected one of {expected}, got {row.page!r}")
        scores = _trivial_scores(folder / "studies" / "trivial_baselines.json")
        rows = {**found.rows, **_rows_without_figures(groups, found)}
        return cls(Published(rows, found.sources), groups, scores, folder, cells.read(lines, found.rows))

    @property
    def rows(self) -> list[Row]:
        return list(self.published.rows.values())

    @functools.cached_property
    def finished(self) -> list[Row]:
        """The rows that have a finished run."""
        return [row for row in self.rows if any(g.cell in tables.CELLS for g in tables.groups_of(row, self.groups))]

    @property
    def pages(self) -> list[Page]:
        return [*PAGES, *([OTHER] if any(row.page == OTHER.name for row in self.rows) else [])]


def results(report: Report) -> str:
    """Returns RESULTS.md."""
    headlines = [row for row in report.finished if row.headline]
    missing = dict.fromkeys(row.title for row in report.rows if row.headline and row not in report.finished)
    shown = [row for row, *_ in plots.overview_rows(report.rows, report.groups, report.scores)]
    left_out = dict.fromkeys(row.title for row in headlines if row not in shown and row.horizon is None)
    parts = [INTRODUCTION, tables.overview(headlines, report.groups, report.scores)]
    if missing:
        parts.append(f"Not yet run: {'; '.join(missing)}.")
    parts += [
        f"![Our results, published figures and trivial baselines of every task on one scale]({OVERVIEW})",
        "The scale is the logarithm of the error, from the simplest trivial baseline to the best published figure of "
        f"any kind. Tasks without a comparable figure are not shown: {'; '.join(left_out)}. The exchange rates are not "
        "shown because no published figure beats the trivial baseline.",
        f"![Errors of forecasts over the horizon]({FORECASTS})",
        "The best published figures of neighboring horizons come from different papers. For the exchange rates, no "
        "model beats the last value.",
        "## Speed and memory",
        f"[{PAGES_FOLDER}/speed.md]({PAGES_FOLDER}/speed.md) has the ratios to PyTorch, Flax, Haiku, Equinox, Keras "
        "and ONNX Runtime, long sequences, streaming steps and the training loop, and marks every missed target.",
        "## Studies",
    ]
    headings = [
        (page, fragment.partition("\n")[0].lstrip("# "))
        for page in report.pages
        for fragment in fragments(page, report.folder)
    ]
    parts.append("\n".join(f"- [{text}]({PAGES_FOLDER}/{page.name}.md#{anchor(text)})" for page, text in headings))
    links = (f"- [{page.title}]({PAGES_FOLDER}/{page.name}.md): {page.about}" for page in report.pages)
    parts += ["## Pages", "\n".join(links), "## Sources", cited(headlines, report.published)]
    return "\n\n".join(parts) + "\n"


def page(found: Page, report: Report) -> str:
    """Returns a page of docs/results/."""
    rows = {name: row for name, row in report.published.rows.items() if row.page == found.name}
    finished = [row for row in rows.values() if row in report.finished]
    parts = [f"# {found.title}", GENERATED, f"[All results](../../RESULTS.md): {found.about}."]
    if finished:
        parts += [tables.overview(finished, report.groups, report.scores), tables.LEGEND]
    if found.name == "forecasting":
        parts.append(relinked(f"![Errors of forecasts over the horizon]({pathlib.PurePath(FORECASTS).name})"))
    if found.name == "cells":
        parts.append(COMPARED)
    notes = report.folder / "notes" / f"{found.name}.md"
    if notes.exists():
        parts.append(relinked(notes.read_text(encoding="utf-8").strip(), "notes"))
    parts += [relinked(fragment, "studies") for fragment in fragments(found, report.folder)]
    if found.name == "cells" and report.comparisons:
        picture = relinked(f"![The error of every cell on every task]({pathlib.PurePath(cells.PICTURE).name})")
        parts += [cells.overview(report.comparisons), picture, PICTURED]
        parts += [cells.section(comparison) for comparison in report.comparisons]
    if found.name == "speed":
        parts.append(relinked(speed.section(report.folder, published.read_speed_targets(report.folder))))
    if found.name == "efficiency" and (reached := tables.budgets(report.groups)):
        parts += ["## Scores with as many parameters", BUDGETS, reached]
    if found.name == "protocols":
        parts += [PROTOCOLS, tables.protocols(report.rows), "## Sources", cited(report.rows, report.published)]
    titles = {(row.title, row.task): name for name, row in reversed(rows.items())}
    if titles:
        parts.append("## All runs")
    for name in reversed(titles.values()):
        parts.append(tables.details(name, report.published, report.groups, report.scores))
    return "\n\n".join(filter(None, parts)) + "\n"


def readme(before: str, report: Report) -> str:
    """Returns the README with its table replaced.

    Args:
      before: the text of the README.
      report: the data.

    Raises:
      UserError: if the README does not have the two `MARKS` exactly once.
    """
    begin, end = MARKS
    if before.count(begin) != 1 or before.partition(begin)[2].count(end) != 1:
        raise UserError(f"README.md: expected one {begin.strip()}, and then one {end.strip()}, around its table")
    head, _, rest = before.partition(begin)
    rows = [row for row in report.finished if row.readme]
    table = tables.readme(rows, report.groups, report.scores, PAGES_FOLDER)
    return f"{head}{begin}{table}\n\n{README_LEGEND}{end}{rest.partition(end)[2]}"


def fragments(found: Page, folder: pathlib.Path) -> list[str]:
    """Returns the Markdown of a page's studies; each begins with its heading."""
    files = (folder / "studies" / f"{study}.md" for study in found.studies)
    return [file.read_text(encoding="utf-8").strip() for file in files if file.exists()]


def relinked(text: str, folder: str = "") -> str:
    """Makes links that are relative to a folder of the results relative to docs/results/."""
    prefix = "/".join(filter(None, ["../..", RESULTS, folder]))
    return re.sub(r"\]\((?!\w+:|[#/]|\.\./)", f"]({prefix}/", text)


def anchor(heading: str) -> str:
    """Returns the anchor of a Markdown heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def cited(rows: Sequence[Row], found: Published) -> str:
    """Returns a list of the sources of the rows' figures."""
    names = dict.fromkeys(figure.source for row in rows for figure in row.figures)
    of = found.sources
    return "\n".join(f"- [{name}] {of[name].text}." for name in sorted(names))


def _trivial_scores(file: pathlib.Path) -> dict[str, float]:
    """Returns the scores recorded by `experiments.studies.trivial_baselines`; none if the file does not exist."""
    if not file.exists():
        return {}
    try:
        return {
            str(name): float(score) for name, score in json.loads(file.read_text(encoding="utf-8"))["scores"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file}: expected the scores of trivial baselines, got {error!r}") from None


def _rows_without_figures(groups: Sequence[Group], found: Published) -> dict[str, Row]:
    """Returns a bare row for each recorded metric without a row, so that every record is shown."""
    known = {(row.task, row.metric) for row in found.rows.values()}
    missing = dict.fromkeys((g.task, g.metric) for g in groups if (g.task, g.metric) not in known)
    return {
        f"{task}_{metric}": Row(task, metric, task, f"test {metric}", ".4g", "less", OTHER.name, headline=True)
        for task, metric in missing
    }
