"""Tables of results in Markdown: what the rows reach, and the records of each row in full."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.reporting.published import Figure, Published, Row, Trivial
from experiments.reporting.records import Group
from experiments.runner.config import with_variant

CELLS = ("gru", "lstm", "elman")
NAMES = {"gru": "GRU", "lstm": "LSTM", "elman": "Elman"}
REPORTED, DIRTY = "†", "‡"
"""Marks of a figure quoted at second hand, and of runs from a commit with uncommitted changes."""
WORSE, LEVEL = "**better than ours**", "level with ours"
LEGEND = f"{REPORTED}: quoted at second hand. {DIRTY}: at least one run came from a commit with uncommitted changes."
COLUMNS = (
    "task",
    "metric",
    *("GRU", "LSTM", "Elman"),
    "best published recurrent, comparable budget",
    "best published of any kind",
    "trivial baseline",
)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lays a Markdown table out, without padding."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def overview(rows: Sequence[Row], groups: Sequence[Group], scores: Mapping[str, float], commands: bool = False) -> str:
    """Returns a line for each row: ours, the best published figures and the best trivial baseline.

    A published figure or a baseline that beats our GRU says so.

    Args:
      rows: in their order.
      groups: from `records.grouped`.
      scores: of the trivial baselines, by name.
      commands: whether to add the config that repeats the GRU's runs.
    """
    lines = []
    for row in rows:
        mine = of(row, groups)
        found = {cell: default(row, mine, cell) for cell in CELLS}
        gru = found["gru"]
        line = [
            f"{row.title} (trained on validation data too)" if row.trained_on_validation else row.title,
            f"{row.measure} {'↓' if row.better == 'less' else '↑'}",
            *(score(row, group) for group in found.values()),
            recurrent(row, gru),
            any_kind(row, gru),
            baseline(row, mine, scores),
        ]
        lines.append([*line, f"`--config={gru.config}`" if gru else ""] if commands else line)
    return table([*COLUMNS, "`python -m experiments.train`"] if commands else COLUMNS, lines)


def recurrent(row: Row, ours: Group | None) -> str:
    """Quotes the best recurrent figure at a comparable budget, and the best larger GRU or LSTM if it is better."""
    larger = row.best_larger
    parts = [quoted(row, row.best_comparable, ours)]
    if larger is not None:
        parts.append(f"larger: {quoted(row, larger, ours)}")
    return "; ".join(filter(None, parts)) or _none(row)


def any_kind(row: Row, ours: Group | None) -> str:
    """Quotes the best figure of any kind, if it is another one than the best recurrent."""
    best = row.best_of_any_kind
    if best is None:
        return _none(row)
    return "the same" if best in (row.best_comparable, row.best_larger) else quoted(row, best, ours)


def quoted(row: Row, figure: Figure | None, ours: Group | None) -> str:
    """Quotes a figure with its budget and source, and says whether it beats ours."""
    if figure is None:
        return ""
    mark = REPORTED if figure.reported else ""
    text = f"{figure.model} {figure.value:g}{mark} ({figure.size or 'size unknown'}) [{figure.source}]"
    return " ".join(filter(None, [text, verdict(row, figure.value, ours)]))


def verdict(row: Row, value: float, ours: Group | None) -> str:
    """Says whether a value beats the mean of our runs, or is level with it at the digits of the row."""
    if ours is None:
        return ""
    if f"{value:{row.digits}}" == f"{ours.mean:{row.digits}}":
        return LEVEL
    return WORSE if row.beats(value, ours.mean) else ""


def baselines(row: Row, mine: Sequence[Group], scores: Mapping[str, float]) -> list[tuple[Trivial, float]]:
    """Returns the trivial baselines of a row that have a score, with it.

    Args:
      row: names them.
      mine: its groups, among them those of baselines that are recorded as runs.
      scores: of the others, by name.
    """
    found = []
    for trivial in row.trivial:
        if trivial.value is not None:
            found.append((trivial, trivial.value))
        elif trivial.study in scores:
            found.append((trivial, scores[trivial.study]))
        elif (group := default(row, mine, trivial.cell)) is not None:
            found.append((trivial, group.mean))
    return found


def baseline(row: Row, mine: Sequence[Group], scores: Mapping[str, float]) -> str:
    """Writes the best trivial baseline, and whether it beats our GRU."""
    found = baselines(row, mine, scores)
    if not found:
        return ""
    choose = min if row.better == "less" else max
    trivial, value = choose(found, key=lambda pair: pair[1])
    recorded = default(row, mine, trivial.cell) if trivial.cell else None
    mark = DIRTY if recorded is not None and recorded.dirty else ""
    text = f"{value:{row.digits}}{mark} ({trivial.name})"
    return " ".join(filter(None, [text, verdict(row, value, default(row, mine, "gru"))]))


def details(name: str, published: Published, groups: Sequence[Group], scores: Mapping[str, float]) -> str:
    """Returns the section of one task: for each metric its figures and every group of runs, then the commands.

    Args:
      name: of the first of the task's rows that have the title.
      published: whose rows to take.
      groups: from `records.grouped`.
      scores: of the trivial baselines, by name.
    """
    title, task = published.rows[name].title, published.rows[name].task
    rows = [row for row in published.rows.values() if (row.task, row.title) == (task, title)]
    parts = [f"### {title}", *dict.fromkeys(row.note for row in rows if row.note)]
    commands: dict[str, None] = {}
    for row in rows:
        mine = sorted(of(row, groups), key=lambda group: _rank(group.cell))
        if row.figures:
            parts.append(f"Published {row.measure}: {'; '.join(sources(row, published))}.")
        known = baselines(row, mine, scores)
        if known:
            told = (f"{trivial.name} {value:{row.digits}} ({trivial.how})" for trivial, value in known)
            parts.append(f"Trivial baselines: {'; '.join(told)}.")
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


def of(row: Row, groups: Sequence[Group]) -> list[Group]:
    """Returns the groups that a row is about."""
    alike = [group for group in groups if (group.task, group.metric) == (row.task, row.metric)]
    if row.overrides:
        return [group for group in alike if group.overrides == row.overrides]
    return [group for group in alike if not set(group.overrides) & set(row.without)]


def default(row: Row, groups: Sequence[Group], cell: str) -> Group | None:
    """Returns the group that answers for a cell: of the row's setting, rather without overrides, the newest of them.

    No score has a say in it.
    """
    found = [g for g in groups if g.cell == cell and (not row.setting or g.setting in ("", row.setting))]
    return max(found, key=lambda group: (not group.overrides, found.index(group)), default=None)


def score(row: Row, group: Group | None) -> str:
    """Writes mean and deviation of a group, and a mark if one of its commits had uncommitted changes."""
    if group is None:
        return "–"
    return spread(group.mean, group.deviation, row.digits) + (DIRTY if group.dirty else "")


def spread(mean: float, deviation: float | None, digits: str) -> str:
    """Writes a mean and its deviation with the same digits: "95.8 ± 1.0", "1.70e-05 ± 0.11e-05".

    There are as many decimals as `digits` asks of the mean, fewer where they would be below the second digit of the
    deviation, more where the deviation would be 0.

    Args:
      mean: of any size.
      deviation: None for a single run.
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
    """Writes the target: "≤ 8.43"."""
    if row.target is None:
        return ""
    signs = {"less": "<", "more": ">"} if row.target.strict else {"less": "≤", "more": "≥"}
    return f"{signs[row.better]} {row.target.value:g}"


def sources(row: Row, published: Published) -> list[str]:
    """Lists figures by source, size and protocol: "GRU 8.43, LSTM 8.45 [Bai 2018, Table 1; 300K]"."""
    alike: dict[str, list[str]] = {}
    for figure in row.figures:
        words = [
            f"{figure.source}, {published.sources[figure.source].place}",
            figure.size or "size unknown",
            figure.protocol,
            "" if figure.like_for_like else "not compared",
        ]
        mark = REPORTED if figure.reported else ""
        alike.setdefault("; ".join(filter(None, words)), []).append(f"{figure.model} {figure.value:g}{mark}")
    return [f"{', '.join(values)} [{source}]" for source, values in alike.items()]


def protocols(rows: Iterable[Row]) -> str:
    """Returns a line for each published figure: what it was measured on, and whether it is compared with ours."""
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
    """Returns what recorded runs of `-lstm` and `-elman` configurations reached beside the GRU's, and in what time.

    Minutes of different machines cannot be compared and are left out.
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
    """Says where the results of a study come from, by their "command", "machine" and "commit"."""
    return f"`{found['command']}`, on {found['machine']}, commit {_short(found['commit'])}."


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
        ", ".join(_short(commit) for commit in group.distinct("commit")),
        " ".join([f"`{group.config}`", *(f"`{override}`" for override in group.overrides)]),
    ]


def _limit(row: Row) -> str:
    most = row.target.at_most if row.target else None
    return "" if most is None else f", with at most {most:,} parameters"


def _short(commit: str) -> str:
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def _rank(cell: str) -> int:
    return CELLS.index(cell) if cell in CELLS else len(CELLS)
