"""Character-level language modelling of one text: tiny Shakespeare, or a file of one's own.

The last tenth of the text is the test split, exactly as in nanoGPT (tiny Shakespeare: from character 1,003,854 on). It
takes no part in any choice: the last twentieth of the first nine tenths is the validation split, and what is before
it is trained on. The vocabulary is every character of the text.

Training is truncated backpropagation through time with the state carried on: each row of the batch reads the text
from a place of its own, `length` characters a step, and starts again at its front when it comes to the end. The test
split is one stream from its first character to its last, the state carried all the way.
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
from experiments.schema import Count, UserError
from experiments.tasks.base import Batch, Carry, FinalConfig, Scoring, Split, Sums, Task, mean
from experiments.tasks.text.corpus import Vocabulary, read_text
from experiments.tasks.text.model import LanguageModel, LanguageModelConfig

EVAL_LENGTH = 1000


@dataclasses.dataclass(frozen=True)
class CharLMConfig(FinalConfig):
    """As `FinalConfig`.

    Attributes:
      text_file: a UTF-8 text file of one's own; empty for tiny Shakespeare.
      length: T, the characters of a training step, over which gradients flow.
      batch_size: rows of a training batch, each reading the text from its own place.
      validation_streams: the pieces that the validation split is cut into, to be read side by side; the first
        characters of each are predicted from an empty state. (The test split is always one.)
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
    artifact_names = ("vocabulary", "split_starts")
    command = "sample"

    @classmethod
    def scoring_for(cls, config: CharLMConfig) -> Scoring:
        return Scoring("nats_per_char", "min", ("nats_per_char",), selects=not config.train_on_validation)

    def learn(self) -> dict[str, Any]:
        """Returns the characters of the text, and where its validation and test splits begin."""
        test = int(0.9 * len(self.text))
        artifacts = {"vocabulary": Vocabulary.of([self.text]).symbols, "split_starts": [int(0.95 * test), test]}
        self._see_that_it_fits(cut(self.text, *artifacts["split_starts"]))
        return artifacts

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
    def trained_on(self) -> np.ndarray:
        held_out = self.splits["train"]
        return held_out if self.scoring.selects else np.concatenate((held_out, self.splits["validation"]))

    def _see_that_it_fits(self, parts: Mapping[Split, str]) -> None:
        """Raises `UserError` where a split is too short for the configuration."""
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
        """Row b reads on from where it stopped at the step before; the seed says where it began."""
        return self.train_rows(seed, step, slice(0, self.batch_size))

    def train_rows(self, seed: int, step: int, rows: slice) -> Batch:
        codes = endless_windows(self.trained_on, self.batch_size, self.config.length, seed, step, rows)
        weights = np.ones((len(codes), self.config.length), np.float32)
        return {"inputs": codes[:, :-1], "targets": codes[:, 1:], "weights": weights}

    def streams(self, split: Split) -> int:
        """How many pieces a split is cut into for an evaluation, to be read side by side."""
        return 1 if split == "test" else self.config.validation_streams

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split as side-by-side streams, each next character once."""
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
    """Cuts a text where its validation and test splits begin."""
    return {"train": text[:validation], "validation": text[validation:test], "test": text[test:]}


def tiny_shakespeare(data_dir: str | None) -> str:
    """Returns the text of that data set."""
    return read_text(fetch("tiny_shakespeare", "input.txt", data_dir))


def own_text(path: str) -> str:
    """Reads the text of `task.text_file`; says so in one line where it cannot be used."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"task.text_file: expected a readable file, got {path!r} ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"task.text_file: {error}") from None
    if len(text) < 100:
        raise UserError(f"task.text_file: expected at least 100 characters, got {len(text)} in {path}")
    return text
