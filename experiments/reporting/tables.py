"""Markdown tables: the results of each row with published figures, and all records of a row."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gru_jax
from experiments.reporting.published import Figure, Published, Row, Trivial
from experiments.reporting.records import Group
from experiments.runner.config import with_variant

CELLS = ("gru", "lstm", "elman")
"""The cells with a column of their own."""
ARROWS = {"less": "↓", "more": "↑"}
NAMES = {name: cell.__name__ for name, cell in gru_jax.CELLS.items()}
"""The names of all cells."""
REPORTED = "†"
"""The mark of a figure that was not checked against its source."""
BETTER, EQUAL = "**better than ours**", "equal to ours"
LEGEND = f"{REPORTED}: reported, not checked against the source."
PUBLISHED_COLUMNS = ("best published recurrent, comparable budget", "best published of any kind", "trivial baseline")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def overview(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float]) -> str:
    """Returns a table of the results of all cells, the best published figures and the best trivial baseline.

    Args:
      rows: one line each, in their order.
      groups: from `records.grouped`.
      scores: the scores of the trivial baselines, by name.
    """
    lines = []
    for row in rows:
        mine = groups_of(row, groups)
        found = {cell: representative(row, mine, cell) for cell in CELLS}
        lines.append(
            [
                f"{row.title} (trained on validation data too)" if row.trained_on_validation else row.title,
                measure(row),
                *(score(row, group) for group in found.values()),
                recurrent(row, found["gru"]),
                any_kind(row, found["gru"]),
                baseline(row, mine, scores),
            ]
        )
    return table(["task", "metric", *(NAMES[cell] for cell in CELLS), *PUBLISHED_COLUMNS], lines)


def readme(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float], pages: str) -> str:
    """Returns a narrower table for the README: only the GRU, and figures without their sizes.

    Args:
      rows: one line each, in their order.
      groups: from `records.grouped`.
      scores: the scores of the trivial baselines, by name.
      pages: the folder of the pages to which the tasks link.
    """
    lines = []
    for row in rows:
        mine = groups_of(row, groups)
        ours = representative(row, mine, "gru")
        best, larger, any_best = row.best_comparable, row.best_larger, row.best_of_any_kind
        same = any_best is not None and any_best in (best, larger if best is None else None)
        lines.append(
            [
                f"[{row.title}]({pages}/{row.page}.md)",
                measure(row),
                score(row, ours),
                f"larger: {_brief(row, larger, ours)}" if best is None and larger else _brief(row, best, ours),
                "the same" if same else _brief(row, any_best, ours),
                baseline(row, mine, scores),
            ]
        )
    return table(["task", "metric", "GRU (ours)", *PUBLISHED_COLUMNS], lines)


def measure(row: Row) -> str:
    """Returns the metric, with an arrow that points to better values."""
    return f"{row.measure} {ARROWS[row.better]}"


def recurrent(row: Row, ours: Group | None) -> str:
    """Returns the best recurrent figure at a comparable budget, and the best larger GRU or LSTM if it is better."""
    larger = row.best_larger
    parts = [quoted(row, row.best_comparable, ours)]
    if larger is not None:
        parts.append(f"larger: {quoted(row, larger, ours)}")
    return "; ".join(filter(None, parts)) or _none(row)


def any_kind(row: Row, ours: Group | None) -> str:
    """Returns the best figure of any kind, or "the same" if it is in the column of recurrent figures."""
    best = row.best_of_any_kind
    if best is None:
        return _none(row)
    return "the same" if best in (row.best_comparable, row.best_larger) else quoted(row, best, ours)


def quoted(row: Row, figure: Figure | None, ours: Group | None) -> str:
    """Returns a figure with its size and source, and a mark if it beats ours."""
    if figure is None:
        return ""
    text = f"{_value(figure)} ({figure.size or 'size unknown'}) [{figure.source}]"
    return " ".join(filter(None, [text, verdict(row, figure.value, ours)]))


def _brief(row: Row, figure: Figure | None, ours: Group | None) -> str:
    """Returns a figure with its source, and a mark if it beats ours."""
    if figure is None:
        return _none(row)
    return " ".join(filter(None, [f"{_value(figure)} [{figure.source}]", verdict(row, figure.value, ours)]))


def _value(figure: Figure) -> str:
    return f"{figure.model} {figure.value:g}{REPORTED if figure.reported else ''}"


def verdict(row: Row, value: float, ours: Group | None) -> str:
    """Returns a mark if a value beats the mean of our runs, or equals it at the digits of the row."""
    if ours is None:
        return ""
    if f"{value:{row.digits}}" == f"{ours.mean:{row.digits}}":
        return EQUAL
    return BETTER if row.beats(value, ours.mean) else ""


def baselines(row: Row, mine: Sequence[Group], scores: Mapping[str, float]) -> list[tuple[Trivial, float]]:
    """Returns the trivial baselines of a row that have a score, each with its score.

    Args:
      row: has the baselines.
      mine: its groups, including groups of baselines that are recorded as runs.
      scores: the scores of the other baselines, by name.
    """
    found = []
    for trivial in row.trivial:
        if trivial.value is not None:
            found.append((trivial, trivial.value))
        elif trivial.study in scores:
            found.append((trivial, scores[trivial.study]))
        elif (group := representative(row, mine, trivial.cell)) is not None:
            found.append((trivial, group.mean))
    return found


def baseline(row: Row, mine: Sequence[Group], scores: Mapping[str, float]) -> str:
    """Returns the best trivial baseline, and a mark if it beats our GRU."""
    found = baselines(row, mine, scores)
    if not found:
        return ""
    choose = min if row.better == "less" else max
    trivial, value = choose(found, key=lambda pair: pair[1])
    text = f"{value:{row.digits}} ({trivial.name})"
    return " ".join(filter(None, [text, verdict(row, value, representative(row, mine, "gru"))]))


def details(name: str, published: Published, groups: Sequence[Group], scores: Mapping[str, float]) -> str:
    """Returns the section of a task: for each metric, published figures and all groups of runs; then the commands.

    Args:
      name: the name of the first row with the task and title.
      published: has the rows.
      groups: from `records.grouped`.
      scores: the scores of the trivial baselines, by name.
    """
    title, task = published.rows[name].title, published.rows[name].task
    rows = [row for row in published.rows.values() if (row.task, row.title) == (task, title)]
    parts = [f"### {title}", *dict.fromkeys(row.note for row in rows if row.note)]
    commands: dict[str, None] = {}
    for row in rows:
        mine = sorted(groups_of(row, groups), key=lambda group: _rank(group.cell))
        if row.figures:
            parts.append(f"Published {row.measure}: {'; '.join(sources(row, published))}.")
        known = baselines(row, mine, scores)
        if known:
            texts = (f"{trivial.name} {value:{row.digits}} ({trivial.how})" for trivial, value in known)
            parts.append(f"Trivial baselines: {'; '.join(texts)}.")
        if row.target is not None:
            parts.append(f"The project's target: {wanted(row)}{_limit(row)}.")
        if mine:
            reached = [f"reaches {wanted(row)}"] if row.target is not None else []
            header = (
                "cell",
                "parameters",
                row.measure,
                "runs",
                *reached,
                "minutes",
                "machine",
                "commit",
                "configuration",
            )
            parts.append(table(header, (_record(row, group) for group in mine)))
        commands |= {group.command: None for group in mine}
    if commands:
        parts.append("\n".join(["```", *commands, "```"]))
    return "\n\n".join(parts)


def groups_of(row: Row, groups: Sequence[Group]) -> list[Group]:
    """Returns the groups of a row's task and metric, with the overrides of the row, but for variants of another row."""
    alike = [g for g in groups if (g.task, g.metric) == (row.task, row.metric) and g.setting not in row.elsewhere]
    if row.overrides:
        return [group for group in alike if group.overrides == row.overrides]
    return [group for group in alike if not set(group.overrides) & set(row.without)]


def representative(row: Row, groups: Sequence[Group], cell: str) -> Group | None:
    """Returns the group that represents a cell in the tables; None if it has no runs.

    It has the row's setting, no overrides if there is such a group, and is the newest; scores are not considered.
    """
    found = [g for g in groups if g.cell == cell and (not row.setting or g.setting in ("", row.setting))]
    return max(found, key=lambda group: (not group.overrides, found.index(group)), default=None)


def score(row: Row, group: Group | None) -> str:
    """Returns mean and standard deviation of a group."""
    return "–" if group is None else spread(group.mean, group.deviation, row.digits)


def spread(mean: float, deviation: float | None, digits: str) -> str:
    """Formats a mean and its standard deviation with the same digits: "95.8 ± 1.0", "1.70e-05 ± 0.11e-05".

    `digits` gives the number of decimals. There are fewer if they would be below the second digit of the deviation, and
    more if the deviation would be rounded to 0.

    Args:
      mean: any number.
      deviation: the standard deviation; None for a single run.
      digits: a format specification, ".3f" or ".2g".
    """
    if not deviation:
        return f"{mean:{digits}}"
    exponent = math.floor(math.log10(abs(mean))) if mean else 0
    unit, suffix = (10.0**exponent, f"e{exponent:+03d}") if digits.endswith("g") and exponent < -4 else (1.0, "")
    asked = int(digits[1:-1])
    if digits.endswith("g"):
        asked = max(0, asked - 1 - (0 if suffix else exponent))
    first = -math.floor(math.log10(deviation / unit))
    decimals = max(0, min(first + 1, max(asked, first)))
    return f"{mean / unit:.{decimals}f}{suffix} ± {deviation / unit:.{decimals}f}{suffix}"


def wanted(row: Row) -> str:
    """Returns the target as text: "≤ 8.43"."""
    if row.target is None:
        return ""
    signs = {"less": "<", "more": ">"} if row.target.strict else {"less": "≤", "more": "≥"}
    return f"{signs[row.better]} {row.target.value:g}"


def sources(row: Row, published: Published) -> list[str]:
    """Returns figures grouped by source, size and protocol: "GRU 8.43, LSTM 8.45 [Bai 2018, Table 1; 300K]"."""
    alike: dict[str, list[str]] = {}
    for figure in row.figures:
        words = [
            f"{figure.source}, {published.sources[figure.source].place}",
            figure.size or "size unknown",
            figure.protocol,
            "" if figure.like_for_like else "not compared",
        ]
        alike.setdefault("; ".join(filter(None, words)), []).append(_value(figure))
    return [f"{', '.join(values)} [{source}]" for source, values in alike.items()]


def protocols(rows: Iterable[Row]) -> str:
    """Returns a table of all published figures, with their protocol and whether they are compared with ours."""
    lines = []
    for row in rows:
        for figure in row.figures:
            compared = "yes" if figure.like_for_like else "no"
            mark = REPORTED if figure.reported else ""
            cells = (row.title, row.measure, figure.model, f"{figure.value:g}{mark}", figure.kind)
            size = figure.size or "size unknown"
            budget = "comparable" if figure.comparable else "not comparable"
            lines.append((*cells, size, budget, figure.source, figure.protocol, compared))
    header = ("task", "metric", "model", "value", "kind", "size", "budget", "source", "protocol", "compared")
    return table(header, lines)


def budgets(groups: Sequence[Group]) -> str:
    """Returns a table of the `-lstm` and `-elman` configs next to the GRU's: score and minutes.

    Minutes are left out if the machines differ.
    """
    lines = []
    for group in groups:
        setting = group.config.partition("-")[0]
        if group.cell == "gru" or group.config == setting:
            continue
        twins = [g for g in groups if (g.task, g.metric, g.cell) == (group.task, group.metric, "gru")]
        twins = [g for g in twins if (with_variant(g.config), g.overrides) == (setting, group.overrides)]
        for gru in twins[-1:]:
            alike = set(gru.distinct("machine")) == set(group.distinct("machine"))
            times = (f"{gru.minutes:.1f}", f"{group.minutes:.1f}") if alike else ("–", "–")
            lines.append((group.task, group.metric, NAMES[group.cell], f"{gru.mean:.4g}", f"{group.mean:.4g}", *times))
    header = ("task", "metric", "cell", "GRU", "that cell", "minutes, GRU", "minutes, that cell")
    return table(header, lines) if lines else ""


def origin(found: Mapping[str, Any]) -> str:
    """Returns the command, machine and commit that made the results of a study."""
    return f"`{found['command']}`, on {found['machine']}, commit {short(found['commit'])}."


def _none(row: Row) -> str:
    return "none like for like" if row.figures else "none known"


def _record(row: Row, group: Group) -> list[str]:
    reached = [] if row.target is None else ["yes" if row.reaches_target(group.mean, group.parameters) else "no"]
    return [
        NAMES.get(group.cell, group.cell),
        f"{group.parameters:,}",
        score(row, group),
        ", ".join(group.runs),
        *reached,
        f"{group.minutes:.1f}",
        "; ".join(group.distinct("machine")),
        ", ".join(short(commit) for commit in group.distinct("commit")),
        " ".join([f"`{group.config}`", *(f"`{override}`" for override in group.overrides)]),
    ]


def _limit(row: Row) -> str:
    most = row.target.at_most if row.target else None
    return "" if most is None else f", with at most {most:,} parameters"


def short(commit: str) -> str:
    """Returns the first digits of a commit, and whether it had uncommitted changes."""
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def _rank(cell: str) -> int:
    return CELLS.index(cell) if cell in CELLS else len(CELLS)
