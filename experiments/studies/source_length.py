"""How well a translation does as its source grows longer: with attention, and without.

python -m experiments.studies.source_length --workdir=runs/multi30k,runs/multi30k_summary --picture=source_length.png

A summary of fixed size has to hold all of a source; attention does not (Cho et al., "On the Properties of Neural
Machine Translation: Encoder-Decoder Approaches", 2014; Bahdanau et al. 2015, figure 2). Both runs translate the same
split, cut into groups of source length in words; the score of each group is a BLEU of its own.
"""

import pathlib
from collections.abc import Sequence
from typing import cast

from absl import flags

from experiments import atomic, command_line, trained
from experiments.models.encoder_decoder import EncoderDecoder
from experiments.schema import ConfigError
from experiments.studies.length_groups import by_length, edges_of, plot, table
from experiments.tasks.base import SPLITS, Split
from experiments.tasks.multi30k import Multi30k, sacrebleu_metrics

WORKDIR = flags.DEFINE_list("workdir", None, "The runs' folders, separated by commas.", required=True)
SPLIT = flags.DEFINE_enum("split", "validation", SPLITS, "The split to translate.")
EDGES = flags.DEFINE_list("edges", ["8", "11", "14", "18"], "The most words of each group but the last.")
PICTURE = flags.DEFINE_string("picture", None, "The PNG file to draw.")
DATA_DIR = command_line.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Prints a row for each group of lengths, the last of all lengths, and a column for each run; draws them."""
    del arguments
    split = cast(Split, SPLIT.value)
    edges = edges_of(EDGES.value)
    runs = [(workdir, *trained.load(workdir, DATA_DIR.value, (Multi30k,))) for workdir in WORKDIR.value]
    if len({(task.languages, task.config.lowercase) for _, task, _ in runs}) > 1:
        raise ConfigError("--workdir: expected runs of one direction and case, got several")
    metric = sacrebleu_metrics(runs[0][1].config.lowercase)["bleu"]
    groups, whole = {}, {}
    for workdir, task, model in runs:
        texts = translated(task, model, split)
        groups[workdir], whole[workdir] = by_length(*texts, edges, metric), by_length(*texts, [], metric)
    title = f"BLEU of the {split} split by words of the source ({metric.get_signature()})"
    print(table({workdir: [*groups[workdir], *whole[workdir]] for workdir in groups}, title))
    if PICTURE.value:
        atomic.write_bytes(pathlib.Path(PICTURE.value), plot(groups))


def translated(task: Multi30k, model: EncoderDecoder, split: Split) -> tuple[list[str], list[str], list[str]]:
    """Returns the sources of a split, their references, and their translations with the run's own beam."""
    sources, references = (list(side) for side in zip(*task.pairs(split).texts, strict=True))
    return sources, references, [t.text for t in task.translate(model, sources, task.config.beam_width)]


if __name__ == "__main__":
    command_line.run(main)
