"""Character-level language modelling of the Penn Treebank, with its own three parts.

The parts are Mikolov's: 5,017,482 characters to train on, 393,042 to validate and 442,423 to test, line ends included,
of 50 kinds; words outside a vocabulary of 10,000 are spelled <unk>. Training, evaluation and model are those of
`char_lm`, but the test part too is cut into streams, to be read side by side.

Reference: Marcus et al., "Building a Large Annotated Corpus of English", 1993; Mikolov et al., "Subword Language
Modeling with Neural Networks", 2012.
"""

import dataclasses
import functools
import gzip
from collections.abc import Mapping
from typing import Any, Literal

from experiments.data import fingerprint
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.schema import Checked, Count
from experiments.tasks.base import Scoring, Split
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.corpus import Vocabulary

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
    user_file = ""
    artifact_names = ("vocabulary",)

    @classmethod
    def scoring_for(cls, config: PTBCharConfig) -> Scoring:
        del config
        return Scoring("nats_per_char", "min", ("bits_per_char",))

    def learn(self) -> dict[str, Any]:
        """Returns the characters of the parts."""
        self._see_that_it_fits(self.parts)
        return {"vocabulary": Vocabulary.of(self.parts.values()).symbols}

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("ptb", *map(file_of, PARTS.values()))

    @functools.cached_property
    def parts(self) -> Mapping[Split, str]:
        """The text of each part."""
        return {split: read(part, self.data_dir) for split, part in PARTS.items()}

    @property
    def result_name(self) -> str:
        return "ptb_char"

    def streams(self, split: Split) -> int:
        return self.config.validation_streams


def file_of(part: str) -> str:
    """Returns the name of a part's file."""
    return f"ptb.char.{part}.txt.gz"


def read(part: str, data_dir: str | None) -> str:
    """Returns the text of a part. In its file characters stand apart, and `_` stands for a space."""
    with gzip.open(fetch("ptb", file_of(part), data_dir), "rt", encoding="utf-8", newline="") as file:
        return file.read().replace(" ", "").replace("_", " ")
