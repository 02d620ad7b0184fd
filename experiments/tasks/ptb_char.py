"""Character-level language modelling of the Penn Treebank, with its own three parts.

The parts are Mikolov's: 5,017,482 characters to train on, 393,042 to validate and 442,423 to test, line ends included,
of 50 kinds; words outside a vocabulary of 10,000 are spelled <unk>. Training, evaluation and model are those of
`char_lm`, but the test part too is cut into streams, to be read side by side.

Reference: Marcus et al., "Building a Large Annotated Corpus of English", 1993; Mikolov et al., "Subword Language
Modeling with Neural Networks", 2012.
"""

import dataclasses
import gzip
from typing import Literal

from experiments.data.fetch import fetch
from experiments.schema import Checked, Count
from experiments.tasks.base import Split
from experiments.tasks.char_lm import CharLM

PARTS: dict[Split, str] = {"train": "train", "validation": "valid", "test": "test"}


@dataclasses.dataclass(frozen=True)
class PTBCharConfig(Checked):
    """
    Attributes:
      length: T, the characters of a training step, over which gradients flow.
      batch_size: rows of a training batch, each reading the text from its own place.
      validation_streams: the pieces that the validation and test parts are cut into; the first characters of each
        are predicted from an empty state.
    """

    name: Literal["ptb_char"] = "ptb_char"
    length: Count = 128
    batch_size: Count = 64
    validation_streams: Count = 16


class PTBChar(CharLM):
    """Prediction of each next character."""

    Config = PTBCharConfig
    result_metrics = ("bits_per_char",)

    def __init__(self, config: PTBCharConfig, data_dir: str | None):
        """Loads the parts, from `data_dir` where they are there, else from the data cache or their public address."""
        parts: dict[Split, str] = {split: read(part, data_dir) for split, part in PARTS.items()}
        self._take(config, parts)

    @property
    def result_name(self) -> str:
        return "ptb_char"

    def streams(self, split: Split) -> int:
        return self.config.validation_streams


def read(part: str, data_dir: str | None) -> str:
    """Returns the text of a part. In its file characters stand apart, and `_` stands for a space."""
    with gzip.open(fetch("ptb", f"ptb.char.{part}.txt.gz", data_dir), "rt", encoding="utf-8", newline="") as file:
        return file.read().replace(" ", "").replace("_", " ")
