"""Translations in groups of similar source length, each with a BLEU of its own."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.figures import svg, verbatim
from experiments.reporting import tables
from experiments.schema import UserError


@dataclasses.dataclass(frozen=True)
class Group:
    """Sentences of similar length: from `least` words to `most`; how many there are, and their BLEU."""

    least: int
    most: int
    sentences: int
    bleu: float


def by_length(
    sources: Sequence[str], references: Sequence[str], translations: Sequence[str], edges: Sequence[int], metric: Any
) -> list[Group]:
    """Scores translations group by group.

    Args:
      sources: N sentences, whose words are counted.
      references: N translations by a person.
      translations: N translations.
      edges: the most words of each group but the last, increasing.
      metric: sacrebleu's.

    Returns:
      the groups that are not empty.
    """
    words = [len(source.split()) for source in sources]
    groups = []
    for below, most in itertools.pairwise([0, *edges, max([*words, *edges]) + 1]):
        rows = [row for row, count in enumerate(words) if below < count <= most]
        if rows:
            score = metric.corpus_score([translations[row] for row in rows], [[references[row] for row in rows]]).score
            counts = [words[row] for row in rows]
            groups.append(Group(min(counts), max(counts), len(rows), score))
    return groups


def edges_of(values: Sequence[str]) -> list[int]:
    """Reads `--edges`; one line where they are no increasing numbers."""
    if not all(value.strip().isdigit() for value in values):
        raise UserError(f"--edges: expected numbers of words, got {','.join(values)!r}")
    edges = [int(value) for value in values]
    if any(one >= other for one, other in itertools.pairwise([0, *edges])):
        raise UserError(f"--edges: expected numbers above 0 that increase, got {','.join(values)!r}")
    return edges


def table(columns: Mapping[str, Sequence[Group]]) -> str:
    """Lays groups out in Markdown: a row for each, a column for each run."""
    rows = []
    for groups in zip(*columns.values(), strict=True):
        scores = (f"{group.bleu:.2f}" for group in groups)
        rows.append((f"{groups[0].least}–{groups[0].most}", str(groups[0].sentences), *scores))
    return tables.table(("words of the source", "sentences", *columns), rows)


def plot(columns: Mapping[str, Sequence[Group]]) -> bytes:
    """Draws BLEU over the groups, a line a run, as an SVG."""

    def paint(panels: Any) -> None:
        axes = panels[0, 0]
        for name, groups in columns.items():
            axes.plot(range(len(groups)), [group.bleu for group in groups], marker="o", label=verbatim(name))
            axes.set_xticks(range(len(groups)), [f"{group.least}–{group.most}" for group in groups])
        axes.set(xlabel="words of the source", ylabel="BLEU", ylim=(0, None))
        axes.legend()

    return svg(1, 1, (5, 3.5), paint)
