"""Character-level language modeling of the Penn Treebank, with its standard splits.

The splits are Mikolov's: 5,017,482 characters for training, 393,042 for validation and 442,423 for testing, line ends
included, of 50 kinds. Words outside a vocabulary of 10,000 are spelled <unk>. Training, evaluation and model are the
same as in `char_lm`, except that the test split is also read in parallel streams.

References: Marcus et al., "Building a Large Annotated Corpus of English", 1993; Mikolov et al., "Subword Language
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
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Checked, Count
from experiments.tasks.base import Scoring, Split
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.corpus import Vocabulary

PARTS: dict[Split, str] = {"train": "train", "validation": "valid", "test": "test"}


@dataclasses.dataclass(frozen=True)
class PTBCharConfig(Checked):
    """The Penn Treebank task.

    Attributes:
      length: T, the characters of a training step, over which gradients flow.
      batch_size: rows of a training batch.
      validation_streams: parallel streams of the validation and test splits, each with an initial state of zeros.
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
    not_for = "Facts or advice: it continues newspaper English with a vocabulary of 10,000 words."

    @classmethod
    def scoring_for(cls, config: PTBCharConfig) -> Scoring:
        del config
        return Scoring("nats_per_char", "min", ("bits_per_char",))

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: the characters of all splits."""
        self._check_lengths(self.parts)
        return {"vocabulary": Vocabulary.of(self.parts.values()).symbols}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["ptb"]

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("ptb", *map(file_of, PARTS.values()))

    @functools.cached_property
    def parts(self) -> Mapping[Split, str]:
        """The text of each split."""
        return {split: read(part, self.data_dir) for split, part in PARTS.items()}

    @property
    def result_name(self) -> str:
        return "ptb_char"

    def streams(self, split: Split) -> int:
        return self.config.validation_streams


def file_of(part: str) -> str:
    """Returns the file name of a part: "train", "valid" or "test"."""
    return f"ptb.char.{part}.txt.gz"


def read(part: str, data_dir: str | None) -> str:
    """Returns the text of a part. In its file, spaces separate characters and `_` stands for a space."""
    with gzip.open(fetch("ptb", file_of(part), data_dir), "rt", encoding="utf-8", newline="") as file:
        return file.read().replace(" ", "").replace("_", " ")
