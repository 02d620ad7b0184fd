"""Character-level language modeling of one text: tiny Shakespeare, or your own file.

The last tenth of the text is the test split, exactly as in nanoGPT (tiny Shakespeare: from character 1,003,854 on). The
last twentieth of the rest is the validation split, and the remainder is for training. The vocabulary has every
character of the text.

Training is truncated backpropagation through time with a carried state. Each row of the batch reads the text from its
own start, `length` characters per step, and wraps around at the end. The test split is one stream from its first to
its last character, with the state carried throughout.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np
import optax
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import ParallelStreams, endless_windows
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Count, UserError
from experiments.tasks.base import Batch, Carry, FinalConfig, Scoring, Split, Sums, Task, mean
from experiments.tasks.text.corpus import Vocabulary, read_text
from experiments.tasks.text.model import LanguageModel, LanguageModelConfig

EVAL_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class CharLMConfig(FinalConfig):
    """Extends `FinalConfig`.

    Attributes:
      text_file: your own UTF-8 text file; empty for tiny Shakespeare.
      length: T, the characters of a training step, over which gradients flow.
      batch_size: rows of a training batch.
      validation_streams: parallel streams of the validation split, each with an initial state of zeros. (The test
        split is always one stream.)
    """

    name: Literal["char_lm"] = "char_lm"
    text_file: str = ""
    length: Count = 128
    batch_size: Count = 64
    validation_streams: Count = 16


class CharLM(Task):
    """Prediction of each next character."""

    Config, ModelConfig = CharLMConfig, LanguageModelConfig
    user_file = "text_file"
    not_for = (
        "Facts or advice: it continues characters in the style of one text. Samples have not been compared with that "
        "text."
    )
    artifact_names = ("vocabulary", "split_starts")
    command = "sample"

    @classmethod
    def scoring_for(cls, config: CharLMConfig) -> Scoring:
        return Scoring("nats_per_char", "min", ("nats_per_char",), selects=not config.train_on_validation)

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: the characters of the text and the starts of its validation and test splits."""
        test = int(0.9 * len(self.text))
        artifacts = {"vocabulary": Vocabulary.of([self.text]).symbols, "split_starts": [int(0.95 * test), test]}
        self._check_lengths(cut(self.text, *artifacts["split_starts"]))
        return artifacts

    @property
    def dataset(self) -> Dataset | None:
        return None if self.config.text_file else REGISTRY["tiny_shakespeare"]

    def fingerprint(self) -> Fingerprint:
        own = self.config.text_file
        name = pathlib.Path(own).name if own else "tiny_shakespeare"
        return fingerprint.of_text(f"{name}, {len(self.text):,} characters", self.text)

    @functools.cached_property
    def text(self) -> str:
        """The whole text."""
        own = self.config.text_file
        return own_text(own) if own else tiny_shakespeare(self.data_dir)

    @functools.cached_property
    def parts(self) -> Mapping[Split, str]:
        """The text of each split."""
        return cut(self.text, *self.artifacts["split_starts"])

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The characters and their codes."""
        return Vocabulary(self.artifacts["vocabulary"])

    @functools.cached_property
    def splits(self) -> dict[Split, np.ndarray]:
        """The codes of each split's characters."""
        return {name: self.vocabulary.encode(part) for name, part in self.parts.items()}

    @functools.cached_property
    def train_examples(self) -> np.ndarray:
        held_out = self.splits["train"]
        return held_out if self.scoring.selects else np.concatenate((held_out, self.splits["validation"]))

    def _check_lengths(self, parts: Mapping[Split, str]) -> None:
        """Raises `UserError` if a split is too short for the configuration."""
        characters = sum(len(part) for part in parts.values())
        needed = {
            "task.length": (self.config.length, len(parts["train"]) - 1),
            "task.batch_size": (self.config.batch_size, len(parts["train"])),
            "task.validation_streams": (self.config.validation_streams, len(parts["validation"]) - 1),
        }
        for key, (value, most) in needed.items():
            if value > most:
                raise UserError(f"{key}: expected at most {most}, for a text of {characters} characters, got {value}")

    @property
    def result_name(self) -> str:
        own = self.config.text_file
        return f"char_lm_{pathlib.Path(own).stem}" if own else "tiny_shakespeare"

    def model(self, config: LanguageModelConfig, rngs: nnx.Rngs) -> LanguageModel:
        return LanguageModel(config, len(self.vocabulary), rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        """Returns the next window of every row. The seed determines the starts."""
        return self.train_rows(seed, step, slice(0, self.batch_size))

    def train_rows(self, seed: int, step: int, rows: slice) -> Batch:
        codes = endless_windows(self.train_examples, self.batch_size, self.config.length, seed, step, rows)
        weights = np.ones((len(codes), self.config.length), np.float32)
        return {"inputs": codes[:, :-1], "targets": codes[:, 1:], "weights": weights}

    def streams(self, split: Split) -> int:
        """Returns the number of parallel streams of a split in evaluation."""
        return 1 if split == "test" else self.config.validation_streams

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split as parallel streams. Every character but the first is a target once."""
        text, streams = self.splits[split], self.streams(split)
        length = min(EVAL_LENGTH, -(-(len(text) - 1) // streams))
        for inputs, targets, counts in ParallelStreams(text, streams, length):
            yield {"inputs": inputs, "targets": targets, "weights": counts.astype(np.float32)}

    def initial_carry(self, model: nnx.Module, rows: int) -> Carry:
        assert isinstance(model, LanguageModel)
        return model.initial_state(rows)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits, carry = model(batch["inputs"], carry, key=key)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"])
        weights = batch["weights"]
        return {"loss": ((losses * weights).sum(), weights.sum())}, jax.lax.stop_gradient(carry)

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        nats = mean(sums, "loss")
        return {"loss": nats, "nats_per_char": nats, "bits_per_char": nats / math.log(2)}


def cut(text: str, validation: int, test: int) -> dict[Split, str]:
    """Splits a text at the starts of its validation and test splits."""
    return {"train": text[:validation], "validation": text[validation:test], "test": text[test:]}


def tiny_shakespeare(data_dir: str | None) -> str:
    """Returns the text of the data set."""
    return read_text(fetch("tiny_shakespeare", "input.txt", data_dir))


def own_text(path: str) -> str:
    """Returns the text of `task.text_file`. Raises `UserError` if it cannot be used."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"task.text_file: expected a readable file, got {path!r} ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"task.text_file: {error}") from None
    if len(text) < 100:
        raise UserError(f"task.text_file: expected at least 100 characters, got {len(text)} in {path}")
    return text
