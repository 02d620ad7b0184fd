"""Tables of results in Markdown: one over all tasks, and the records of each task in full."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.reporting.goals import Figure, Goal
from experiments.reporting.records import Group

CELLS = ("gru", "lstm", "elman")
NAMES = {"gru": "GRU", "lstm": "LSTM", "elman": "Elman"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lays a Markdown table out."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def overview(goals: Sequence[Goal], groups: Sequence[Group]) -> str:
    """Returns one row for each goal, with the default configuration of each cell."""
    rows = []
    for goal in goals:
        found = {cell: default(goal, groups, cell) for cell in CELLS}
        published = next((figure for figure in goal.figures if figure.model.startswith("GRU")), None)
        rows.append(
            (
                goal.title,
                goal.measure,
                *(score(goal, group) for group in found.values()),
                "" if published is None else quoted(goal, published),
                wanted(goal),
                verdict(goal, found["gru"]),
            )
        )
    return table(("task", "metric", "GRU", "LSTM", "Elman", "published GRU", "target", "met"), rows)


def headlines(goals: Sequence[Goal], groups: Sequence[Group]) -> str:
    """Returns the README's table: a row for each goal that is a headline and has runs, and how to repeat it."""
    rows = []
    for goal in goals:
        found = [default(goal, groups, cell) for cell in CELLS]
        if not goal.headline or found[0] is None:
            continue
        scores = ["" if group is None else score(goal, group) for group in found]
        rows.append((goal.title, goal.measure, *scores, published(goal), f"`--config={found[0].config}`"))
    return table(("task", "metric", "GRU", "LSTM", "Elman", "published", "`python -m experiments.train`"), rows)


def published(goal: Goal) -> str:
    """Quotes a published GRU, or the first other model, with its name; empty where there is none."""
    first = min(goal.figures, key=lambda figure: not figure.model.startswith("GRU"), default=None)
    return "" if first is None else f"{first.model} {quoted(goal, first)}"


def details(task: str, goals: Sequence[Goal], groups: Sequence[Group]) -> str:
    """Returns the section of one task: for each metric every group of runs, then the commands that repeat them."""
    mine = [goal for goal in goals if goal.task == task]
    parts = [f"### {mine[0].title}", *dict.fromkeys(goal.note for goal in mine if goal.note)]
    commands: dict[str, None] = {}
    for goal in mine:
        found = sorted(of(goal, groups), key=lambda group: _rank(group.cell))
        if goal.figures:
            parts.append(f"Published: {'; '.join(sources(goal))}.")
        if found:
            header = ("cell", "parameters", goal.measure, "runs", f"target {wanted(goal)}".strip(), "minutes")
            parts.append(table((*header, "machine", "commit", "configuration"), (_row(goal, group) for group in found)))
        commands |= {group.command: None for group in found}
    if commands:
        parts.append("\n".join(["```", *commands, "```"]))
    return "\n\n".join(parts)


def of(goal: Goal, groups: Sequence[Group], cell: str | None = None) -> list[Group]:
    """Returns the groups that a goal is about, of one cell if it is named."""
    return [g for g in groups if (g.task, g.metric) == (goal.task, goal.metric) and cell in (None, g.cell)]


def default(goal: Goal, groups: Sequence[Group], cell: str) -> Group | None:
    """Returns the group that answers for a cell: of the goal's setting, rather without overrides, the newest of them.

    No score has a say in it.
    """
    found = [group for group in of(goal, groups, cell) if not goal.setting or group.setting in ("", goal.setting)]
    return max(found, key=lambda group: (not group.overrides, found.index(group)), default=None)


def score(goal: Goal, group: Group | None) -> str:
    """Writes mean and deviation: "8.31 ± 0.02"."""
    if group is None:
        return "not yet run"
    deviation = "" if group.deviation is None else f" ± {group.deviation:.2g}"
    return f"{group.mean:{goal.digits}}{deviation}"


def wanted(goal: Goal) -> str:
    """Writes the target: "≤ 8.43"."""
    if goal.target is None:
        return ""
    sign = {"less": "<", "more": ">"}[goal.better] if goal.strict else {"less": "≤", "more": "≥"}[goal.better]
    return f"{sign} {goal.target:g}"


def verdict(goal: Goal, group: Group | None) -> str:
    """Says whether the mean of a group reaches the target."""
    if goal.target is None or group is None:
        return ""
    return "yes" if goal.met(group.mean, group.parameters) else "no"


def quoted(goal: Goal, figure: Figure) -> str:
    return f"{figure.value:g}{' (reported)' if figure.reported else ''}"


def sources(goal: Goal) -> list[str]:
    """Lists the published figures by source: "GRU 8.43, LSTM 8.45 (Bai et al. 2018, Table 1, 300K parameters)"."""
    by_source: dict[str, list[str]] = {}
    for figure in goal.figures:
        words = [figure.source, figure.note, "as reported elsewhere" if figure.reported else ""]
        by_source.setdefault(", ".join(filter(None, words)), []).append(f"{figure.model} {figure.value:g}")
    return [f"{', '.join(values)} ({source})" for source, values in by_source.items()]


def origin(found: Mapping[str, Any]) -> str:
    """Says where the results of a study come from, by their "command", "machine" and "commit"."""
    return f"`{found['command']}`, on {found['machine']}, commit {_short(found['commit'])}."


def _row(goal: Goal, group: Group) -> tuple[str, ...]:
    return (
        NAMES.get(group.cell, group.cell),
        f"{group.parameters:,}",
        score(goal, group),
        ", ".join(group.runs),
        verdict(goal, group),
        f"{group.minutes:.1f}",
        "; ".join(group.distinct("machine")),
        ", ".join(_short(commit) for commit in group.distinct("commit")),
        " ".join([f"`{group.config}`", *(f"`{override}`" for override in group.overrides)]),
    )


def _short(commit: str) -> str:
    return commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")


def _rank(cell: str) -> int:
    return CELLS.index(cell) if cell in CELLS else len(CELLS)
