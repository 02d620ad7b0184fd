"""Translation quality by the length of the source, with and without attention.

python -m experiments.studies.source_length --workdir=runs/multi30k,runs/multi30k_summary

Without attention, a state of fixed size has to hold the whole source (Cho et al., "On the Properties of Neural Machine
Translation: Encoder-Decoder Approaches", 2014; Bahdanau et al. 2015, figure 2). Both runs translate the same split. The
sentences are grouped by the number of words of the source, and each group has its own BLEU score.

The results are written to runs/studies/, or with --record to experiments/results/studies/; docs/results/translation.md
includes these.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from absl import flags

from experiments.figures import svg, verbatim
from experiments.reporting import tables
from experiments.runner import cli, run
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.studies import results
from experiments.tasks.base import SPLITS, Split
from experiments.tasks.translation.model import EncoderDecoder
from experiments.tasks.translation.multi30k import Multi30k, sacrebleu_metrics

FINDINGS = """\
With attention a translation keeps its quality up to about 18 words. Without it every group is worse than the one
before, and the gap widens from group to group. Both models have the same number of layers, decoder width, subwords,
training and beam.

Not shown: long texts, since a caption rarely has more than 20 words, and how far a larger state would reach. The last
group has few sentences, so its BLEU is the least certain."""
LABELS = {"additive": "with attention", "none": "without attention"}


flags.adopt_module_key_flags(results)
WORKDIR = flags.DEFINE_list("workdir", [], "Folders of the runs, separated by commas.", allow_override=True)
SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to translate.", allow_override=True)
EDGES = flags.DEFINE_list("edges", ["8", "11", "14", "18"], "Maximum number of words of each group except the last.")
DATA_DIR = cli.define_data_dir()


@dataclasses.dataclass(frozen=True)
class Group:
    """Sentences with similar lengths.

    Attributes:
      least, most: the smallest and largest number of words of a source.
      sentences: the number of sentences.
      bleu: their BLEU score.
    """

    least: int
    most: int
    sentences: int
    bleu: float


def main(arguments: Sequence[str]) -> None:
    """Translates, writes source_length.json, .md and .svg, and prints the table."""
    del arguments
    found = results.measured("source_length", measure)
    columns = columns_of(found)
    by_words = {name: groups[:-1] for name, groups in columns.items()}
    results.publish("source_length", section(found), plot(by_words))
    print(table(columns))


def measure() -> dict[str, Any]:
    """Returns the groups of all runs in --workdir, each followed by a group of all sentences."""
    split, edges = cast(Split, SPLIT.value), parse_edges(EDGES.value)
    if not WORKDIR.value:
        raise UserError("--workdir: expected the folders of runs, such as runs/multi30k, got nothing")
    runs = [(workdir, *run.load_trained(workdir, DATA_DIR.value, (Multi30k,))) for workdir in WORKDIR.value]
    if len({(task.languages, task.config.lowercase) for _, task, _ in runs}) > 1:
        raise UserError("--workdir: expected runs of one direction and case, got several")
    metric = sacrebleu_metrics(runs[0][1].config.lowercase)["bleu"]
    columns = {}
    for workdir, task, model in runs:
        texts = translated(task, model, split)
        columns[label(workdir, columns)] = [
            dataclasses.asdict(group) for group in (*by_length(*texts, edges, metric), *by_length(*texts, [], metric))
        ]
    return {
        "direction": "-".join(runs[0][1].languages),
        "split": split,
        "signature": str(metric.get_signature()),
        "columns": columns,
    }


def label(workdir: str, taken: Mapping[str, Any]) -> str:
    """Returns a name for a run: its kind of attention, or its folder if that name is taken."""
    name = LABELS[RunFolder(pathlib.Path(workdir)).load_config().model.attention]
    return workdir if name in taken else name


def translated(task: Multi30k, model: EncoderDecoder, split: Split) -> tuple[list[str], list[str], list[str]]:
    """Returns the sources of a split, the references, and the translations with the beam width of the run."""
    sources, references = (list(side) for side in zip(*task.pairs(split).texts, strict=True))
    return sources, references, [t.text for t in task.translate(model, sources, task.config.beam_width)]


def by_length(
    sources: Sequence[str], references: Sequence[str], translations: Sequence[str], edges: Sequence[int], metric: Any
) -> list[Group]:
    """Groups translations by the length of their source and scores each group.

    Args:
      sources: N sentences.
      references: N reference translations.
      translations: N translations.
      edges: the maximum number of words of each group except the last, increasing.
      metric: a metric of sacrebleu.

    Returns:
      The groups that are not empty.
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


def parse_edges(values: Sequence[str]) -> list[int]:
    """Parses --edges.

    Raises:
      UserError: if they are not increasing positive numbers.
    """
    if not all(value.strip().isdigit() for value in values):
        raise UserError(f"--edges: expected numbers of words, got {','.join(values)!r}")
    edges = [int(value) for value in values]
    if any(one >= other for one, other in itertools.pairwise([0, *edges])):
        raise UserError(f"--edges: expected numbers above 0 that increase, got {','.join(values)!r}")
    return edges


def table(columns: Mapping[str, Sequence[Group]]) -> str:
    """Returns a Markdown table with a row per group and a column per run."""
    rows = []
    for groups in zip(*columns.values(), strict=True):
        scores = (f"{group.bleu:.2f}" for group in groups)
        rows.append((f"{groups[0].least}–{groups[0].most}", str(groups[0].sentences), *scores))
    return tables.table(("words of the source", "sentences", *columns), rows)


def plot(columns: Mapping[str, Sequence[Group]]) -> bytes:
    """Plots BLEU over the groups, with a line per run."""

    def paint(panels: Any) -> None:
        axes = panels[0, 0]
        for name, groups in columns.items():
            axes.plot(range(len(groups)), [group.bleu for group in groups], marker="o", label=verbatim(name))
            axes.set_xticks(range(len(groups)), [f"{group.least}–{group.most}" for group in groups])
        axes.set(xlabel="words of the source", ylabel="BLEU", ylim=(0, None))
        axes.legend()

    return svg(1, 1, (5, 3.5), paint)


def columns_of(found: Mapping[str, Any]) -> dict[str, list[Group]]:
    """Returns the recorded groups by run; the last group of each run has all sentences."""
    return {name: [Group(**group) for group in groups] for name, groups in found["columns"].items()}


def section(found: Mapping[str, Any]) -> str:
    """Returns the Markdown section of the study. Findings are of the two runs with and without attention."""
    findings = [FINDINGS] if list(found["columns"]) == list(LABELS.values()) and found["split"] == "test" else []
    return "\n\n".join(
        [
            "## Translation of long sentences",
            f"{tables.origin(found)} Multi30k, {found['direction']}, BLEU of the {found['split']} split by the "
            f"length of the source; the last row has all sentences ({found['signature']}):",
            table(columns_of(found)),
            "![BLEU by the words of the source](source_length.svg)",
            *findings,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
