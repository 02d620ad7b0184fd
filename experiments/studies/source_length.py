"""How well a translation does as its source grows longer: with attention, and without.

python -m experiments.studies.source_length --workdir=runs/multi30k,runs/multi30k_summary

A summary of fixed size has to hold all of a source; attention does not (Cho et al., "On the Properties of Neural
Machine Translation: Encoder-Decoder Approaches", 2014; Bahdanau et al. 2015, figure 2). Both runs translate the same
split, cut into groups of source length in words; the score of each group is a BLEU of its own.

The results go to experiments/results/studies/, from where RESULTS.md takes them.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from absl import flags

from experiments import command_line, trained
from experiments.models.encoder_decoder import EncoderDecoder
from experiments.reporting.tables import origin
from experiments.run_folder import RunFolder
from experiments.schema import ConfigError
from experiments.studies import results
from experiments.studies.length_groups import Group, by_length, edges_of, plot, table
from experiments.tasks.base import SPLITS, Split
from experiments.tasks.multi30k import Multi30k, sacrebleu_metrics

PICTURE = "experiments/results/studies/source_length.svg"
FINDINGS = """\
What it shows: with attention a translation holds its quality up to some 18 words; without, every group is worse than
the one before, and the gap widens from group to group. Both models have as many layers and the same decoder's width,
the same subwords, training and beam. What it does not show: long texts, for a caption rarely has more than 20 words;
the last group has few sentences, so its BLEU is the least certain; nor how far a larger state would reach."""
LABELS = {"additive": "with attention", "none": "without attention"}


def define_flags() -> None:
    """Defines the command's flags; `experiments.report` imports this file and has flags of its own."""
    flags.DEFINE_list("workdir", None, "The runs' folders, separated by commas.", required=True)
    flags.DEFINE_enum("split", "test", SPLITS, "The split to translate.")
    flags.DEFINE_list("edges", ["8", "11", "14", "18"], "The most words of each group but the last.")
    results.define_folder()
    command_line.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Translates, writes source_length.json and source_length.svg, prints a row for each group and a column a run."""
    del arguments
    split, edges = cast(Split, flags.FLAGS.split), edges_of(flags.FLAGS.edges)
    runs = [(workdir, *trained.load(workdir, flags.FLAGS.data_dir, (Multi30k,))) for workdir in flags.FLAGS.workdir]
    if len({(task.languages, task.config.lowercase) for _, task, _ in runs}) > 1:
        raise ConfigError("--workdir: expected runs of one direction and case, got several")
    metric = sacrebleu_metrics(runs[0][1].config.lowercase)["bleu"]
    columns = {}
    for workdir, task, model in runs:
        texts = translated(task, model, split)
        columns[label(workdir, columns)] = [
            dataclasses.asdict(group) for group in (*by_length(*texts, edges, metric), *by_length(*texts, [], metric))
        ]
    found = {
        "direction": "-".join(runs[0][1].languages),
        "split": split,
        "signature": str(metric.get_signature()),
        "columns": columns,
    }
    results.write("source_length", found, picture(found), "--workdir=runs/multi30k,runs/multi30k_summary")
    print(groups_table(found))


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


def section(folder: pathlib.Path) -> str:
    """Returns the study's section of RESULTS.md; empty where it was not run."""
    found = results.read(folder, "source_length")
    if found is None:
        return ""
    return "\n\n".join(
        [
            "### How far a summary reaches",
            f"{origin(found)} Multi30k, {found['direction']}, BLEU of the {found['split']} split in groups of source "
            f"length, and of all of it in the last row ({found['signature']}):",
            groups_table(found),
            f"![BLEU by the words of the source]({PICTURE})",
            FINDINGS,
        ]
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
