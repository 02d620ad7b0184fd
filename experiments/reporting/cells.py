"""What each change of the gates is worth: every cell with as many parameters as the GRU on the project's own tasks.

`configs/cells.py` has the configurations. Its records are on a page of their own. `read` adds the runs of other config
files that have the same configuration, such as those of the GRU.
"""

import dataclasses
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gru_jax
from experiments.figures import svg
from experiments.reporting import records, tables
from experiments.reporting.published import Row
from experiments.reporting.records import Group
from experiments.runner.config import load

CONFIG = "configs/cells.py"
PICTURE = "experiments/results/cells.svg"
REFERENCE = "gru"
CHANGES = {
    "gru": "–",
    "lstm": "Three gates, and a memory apart from the output.",
    "elman": "No gates.",
    "mgu": "One gate for reset and update.",
    "ligru": "No reset gate; relu in place of tanh.",
    "indrnn": "No gates and no U: a unit sees its own past only; relu in place of tanh.",
    "layernormgru": "Layer normalization of W x and U h.",
    "layernormlstm": "An LSTM with layer normalization of W x, U h and the memory.",
    "blockgru": "U in 8 blocks, which leaves more units; a bias keeps the memory at first.",
    "lem": "Two states with time steps of their own, and no reset gate.",
    "mingru": "No reset gate and no U: the gate and the candidate see the input only.",
    "minlstm": "As MinGRU, with separate gates for the old state and the candidate.",
    "lru": "No gates and no nonlinearity: the layers are linear maps of the sequence.",
}
"""What a cell changes against the GRU. A new cell may be added here."""
BETTER, WORSE = "▲", "▼"
"""Marks of a score that is clearly better or worse than that of the GRU."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """The runs of a cell on a task.

    Attributes:
      group: the runs; one per seed.
      hidden_size, num_layers: the size of the layers.
    """

    group: Group
    hidden_size: int
    num_layers: int

    @property
    def cell(self) -> str:
        return self.group.cell


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The cells on one task, the best first.

    Attributes:
      row: the metric.
      entries: one per cell with runs.
    """

    row: Row
    entries: tuple[Entry, ...]

    @property
    def reference(self) -> Entry:
        """The GRU."""
        return next(entry for entry in self.entries if entry.cell == REFERENCE)

    @property
    def complete(self) -> bool:
        """Whether every cell has a run."""
        return len(self.entries) == len(gru_jax.CELLS)


def is_comparison(group: Group) -> bool:
    """Returns whether the runs of a group are of `configs/cells.py`."""
    return group.config.partition(":")[0] == CONFIG


def read(found: Sequence[Mapping[str, Any]], rows: Mapping[str, Row]) -> list[Comparison]:
    """Returns the tasks on which the GRU and another cell have runs.

    Args:
      found: all records.
      rows: the rows of published.toml; that of a task has its name.
    """
    comparisons = []
    for task in load("cells").SETTINGS:
        if task not in rows:
            continue
        of_task = [r for r in found if (r["task"], r["metric"]) == (task, rows[task].metric)]
        entries = [entry for cell in gru_jax.CELLS if (entry := _entry(of_task, task, cell)) is not None]
        entries.sort(key=lambda entry: rows[task].error(entry.group.mean))
        if len(entries) > 1 and REFERENCE in [entry.cell for entry in entries]:
            comparisons.append(Comparison(rows[task], tuple(entries)))
    return comparisons


def _entry(of_task: Sequence[Mapping[str, Any]], task: str, cell: str) -> Entry | None:
    """Returns the runs of a cell on a task; None without runs."""
    of_cell = [dict(record) for record in of_task if record["cell"] == cell]
    config = records.configuration(f"{CONFIG}:{task}-{cell}") if of_cell else None
    if config is None:
        return None
    runs = sorted(records.of_configuration(of_cell, config), key=lambda record: record["seed"])
    if not runs:
        return None
    *_, newest = records.grouped(runs)
    group = dataclasses.replace(newest, records=tuple(runs))
    return Entry(group, config.model.hidden_size, config.model.num_layers)


def overview(comparisons: Sequence[Comparison]) -> str:
    """Returns a table of the scores of every cell on every task."""
    header = ["cell", "what changes against the GRU", "layers"]
    header += [f"{comparison.row.title}: {tables.measure(comparison.row)}" for comparison in comparisons]
    lines = []
    for cell in ranked(comparisons):
        found = [next((e for e in c.entries if e.cell == cell), None) for c in comparisons]
        layers = next(str(entry.num_layers) for entry in found if entry is not None)
        scores = ["–" if e is None else marked(c, e) for c, e in zip(comparisons, found, strict=True)]
        lines.append([tables.NAMES[cell], CHANGES.get(cell, ""), layers, *scores])
    return tables.table(header, lines)


def ranked(comparisons: Sequence[Comparison]) -> list[str]:
    """Returns the cells by their mean rank over the tasks on which every cell has runs; the others follow."""
    complete = [comparison for comparison in comparisons if comparison.complete] or comparisons
    ranks: dict[str, list[int]] = {}
    for comparison in complete:
        for rank, entry in enumerate(comparison.entries):
            ranks.setdefault(entry.cell, []).append(rank)
    known = {entry.cell for comparison in comparisons for entry in comparison.entries}
    rest = [cell for cell in gru_jax.CELLS if cell in known and cell not in ranks]
    return [*sorted(ranks, key=lambda cell: statistics.fmean(ranks[cell])), *rest]


def marked(comparison: Comparison, entry: Entry) -> str:
    """Returns the score of a cell, with a mark if it is clearly better or worse than that of the GRU."""
    text, gru = tables.score(comparison.row, entry.group), comparison.reference.group
    if not clear(entry.group, gru):
        return text
    return f"{text} {BETTER if comparison.row.beats(entry.group.mean, gru.mean) else WORSE}"


def clear(group: Group, gru: Group) -> bool:
    """Returns whether a cell differs from the GRU by more than both standard deviations together.

    False if one of them has a single run, since its spread is unknown.
    """
    if group.deviation is None or gru.deviation is None:
        return False
    return abs(group.mean - gru.mean) > group.deviation + gru.deviation


def verdict(comparison: Comparison) -> str:
    """Returns in words which cells are better and worse than the GRU, and by how much."""
    row, gru = comparison.row, comparison.reference.group
    words: dict[str, list[str]] = {
        start: []
        for start in (
            "Clearly better",
            "Not clearly different",
            "Clearly worse",
            "Better, without a known spread",
            "Equal",
            "Worse, without a known spread",
        )
    }
    for entry in comparison.entries:
        if entry.cell == REFERENCE:
            continue
        side = "better" if row.beats(entry.group.mean, gru.mean) else "worse"
        if f"{entry.group.mean:{row.digits}}" == f"{gru.mean:{row.digits}}":
            start = "Equal"
        elif entry.group.deviation is None or gru.deviation is None:
            start = f"{side.capitalize()}, without a known spread"
        else:
            start = f"Clearly {side}" if clear(entry.group, gru) else "Not clearly different"
        words[start].append(f"{tables.NAMES[entry.cell]} ({difference(row, entry.group.mean, gru.mean)})")
    sentences = [f"{start}: {', '.join(cells)}." for start, cells in words.items() if cells]
    return " ".join([f"The GRU reaches {tables.score(row, gru)}.", *sentences])


def difference(row: Row, value: float, gru: float) -> str:
    """Returns the difference to the GRU with its sign, or the ratio for metrics of any order of magnitude."""
    if row.digits.endswith("g"):
        return f"{value / gru:{'.0f' if value > 10 * gru else '.3g'}} times"
    return f"{value - gru:+z{row.digits}}"


def details(comparison: Comparison) -> str:
    """Returns a table of the runs on a task."""
    row = comparison.row
    header = ["cell", "layers × units", "parameters", tables.measure(row), "runs", "minutes", "commit"]
    lines = [
        [
            tables.NAMES[entry.cell],
            f"{entry.num_layers} × {entry.hidden_size}",
            f"{entry.group.parameters:,}",
            tables.score(row, entry.group),
            ", ".join(entry.group.runs),
            f"{entry.group.minutes:.1f}",
            ", ".join(map(tables.short, entry.group.distinct("commit"))),
        ]
        for entry in comparison.entries
    ]
    return tables.table(header, lines)


def commands(comparison: Comparison) -> str:
    """Returns the command of each cell."""
    return "\n".join(["```", *(entry.group.command for entry in comparison.entries), "```"])


def section(comparison: Comparison) -> str:
    """Returns the section of a task: what its numbers say, all runs, and the command of each cell."""
    parts = [f"## {comparison.row.title}", verdict(comparison), details(comparison), commands(comparison)]
    return "\n\n".join(parts)


def picture_content(comparisons: Sequence[Comparison]) -> Any:
    """Returns everything that `picture` shows."""
    shown = [(c.row, [(entry.cell, entry.group.values) for entry in c.entries]) for c in drawn(comparisons)]
    return shown, ranked(comparisons)


def drawn(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Returns the tasks with runs of other cells than those that every table of the results has."""
    return [c for c in comparisons if not {entry.cell for entry in c.entries} <= set(tables.CELLS)]


def picture(comparisons: Sequence[Comparison], about: str) -> bytes:
    """Plots a panel per task: the error of every cell, its standard deviation and its runs, and a line for the GRU.

    Args:
      comparisons: from `read`.
      about: description in the file's metadata.
    """
    order, shown = ranked(comparisons), drawn(comparisons)

    def paint(panels: Any) -> None:
        for axes, comparison in zip(panels[0], shown, strict=False):
            _draw(axes, comparison, order)
        for axes in panels[0][1:]:
            axes.set_yticklabels([])

    return svg(1, max(1, len(shown)), (9 / max(2, len(shown)), 3.4), paint, about)


def _draw(axes: Any, comparison: Comparison, order: Sequence[str]) -> None:
    row, color = comparison.row, "#0072B2"
    errors = {entry.cell: [row.error(value) for value in entry.group.values] for entry in comparison.entries}
    axes.axvline(statistics.fmean(errors[REFERENCE]), color="#999999", linewidth=0.8, zorder=1)
    for cell, values in errors.items():
        y, mean = -order.index(cell), statistics.fmean(values)
        axes.plot(values, [y] * len(values), linestyle="", marker="|", color="#555555", markersize=6, zorder=2)
        filled = color if cell == REFERENCE else "white"
        axes.plot(mean, y, linestyle="", marker="o", color=color, markerfacecolor=filled, markersize=5.5, zorder=3)
    means = [statistics.fmean(values) for values in errors.values()]
    if max(means) > 1.5 * min(means):
        axes.set_xscale("log")
        _label_decades(axes, _flat(errors.values()))
    axes.set_yticks([-place for place in range(len(order))], [tables.NAMES[cell] for cell in order])
    axes.set_ylim(-len(order) + 0.4, 0.6)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.6, zorder=0)
    axes.set_title(row.title.partition(",")[0], fontsize=9)
    of_error = row.measure.replace("accuracy", "error") if row.better == "more" else row.measure
    axes.set_xlabel(f"{of_error} (less is better)")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="y", left=False)


def _label_decades(axes: Any, values: Sequence[float]) -> None:
    """Sets a few round ticks within the range of the values on a logarithmic scale."""
    low, high = min(values) / 1.15, max(values) * 1.15
    digits = (1, 2, 3, 5) if high < 30 * low else (1,)
    ticks = [digit * 10.0**power for power in range(-8, 4) for digit in digits]
    axes.set_xlim(low, high)
    axes.set_xticks([tick for tick in ticks if low <= tick <= high], [f"{t:g}" for t in ticks if low <= t <= high])
    axes.minorticks_off()


def _flat(values: Iterable[Sequence[float]]) -> list[float]:
    return [value for some in values for value in some]
