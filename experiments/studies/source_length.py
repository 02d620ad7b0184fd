"""How well a translation does as its source grows longer: with attention, and without.

python -m experiments.studies.source_length --workdir=runs/multi30k,runs/multi30k_summary

A summary of fixed size has to hold all of a source; attention does not (Cho et al., "On the Properties of Neural
Machine Translation: Encoder-Decoder Approaches", 2014; Bahdanau et al. 2015, figure 2). Both runs translate the same
split, cut into groups of source length in words; the score of each group is a BLEU of its own.

The results go to experiments/results/studies/, from where docs/results/translation.md takes them.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from absl import flags

from experiments.reporting.tables import origin
from experiments.runner import cli, run
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.studies import results
from experiments.studies.length_groups import Group, by_length, edges_of, plot, table
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


results.define_flags()
WORKDIR = flags.DEFINE_list("workdir", [], "The runs' folders, separated by commas.", allow_override=True)
SPLIT = flags.DEFINE_enum("split", "test", SPLITS, "The split to translate.", allow_override=True)
EDGES = flags.DEFINE_list("edges", ["8", "11", "14", "18"], "The most words of each group but the last.")
DATA_DIR = cli.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Translates, or reads what was recorded; writes source_length.json, .md and .svg; prints the groups."""
    del arguments
    found = results.measured("source_length", measure, "--workdir=runs/multi30k,runs/multi30k_summary")
    results.publish("source_length", section(found), picture(found))
    print(groups_table(found))


def measure() -> dict[str, Any]:
    """Returns the groups of each run that --workdir names."""
    split, edges = cast(Split, SPLIT.value), edges_of(EDGES.value)
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
    """Names a run by its attention, or by its folder where that name is taken."""
    name = LABELS[RunFolder(pathlib.Path(workdir)).load_config().model.attention]
    return workdir if name in taken else name


def translated(task: Multi30k, model: EncoderDecoder, split: Split) -> tuple[list[str], list[str], list[str]]:
    """Returns the sources of a split, their references, and their translations with the run's own beam."""
    sources, references = (list(side) for side in zip(*task.pairs(split).texts, strict=True))
    return sources, references, [t.text for t in task.translate(model, sources, task.config.beam_width)]


def groups_table(found: Mapping[str, Any]) -> str:
    """Returns a row for each group of lengths, the last of all lengths, and a column for each run."""
    return table({name: [Group(**group) for group in groups] for name, groups in found["columns"].items()})


def picture(found: Mapping[str, Any]) -> bytes:
    """Draws the groups but the last, which is of all lengths."""
    return plot({name: [Group(**group) for group in groups[:-1]] for name, groups in found["columns"].items()})


def section(found: Mapping[str, Any]) -> str:
    """Returns the study's Markdown."""
    return "\n\n".join(
        [
            "## How far a summary reaches",
            f"{origin(found)} Multi30k, {found['direction']}, BLEU of the {found['split']} split in groups of source "
            f"length, and of all of it in the last row ({found['signature']}):",
            groups_table(found),
            "![BLEU by the words of the source](source_length.svg)",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    cli.run(main)
