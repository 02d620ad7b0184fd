"""Japanese Vowels: which of nine speakers says /ae/, from 7 to 29 frames of 12 cepstral coefficients.

There are 270 utterances for training and 370 for testing. A fixed set of five of the thirty training utterances of
each speaker is held out for validation. Coefficients are standardized by the training data. Sequences are padded to 29
frames; padding has no effect.

A `.ts` file of the UEA archive has one sequence per line after `@data`: channels separated by `:`, their values
separated by commas, and the label after the last `:`.

References: Kudo, Toyama and Shimbo, "Multidimensional Curve Classification Using Passing-Through Regions", 1999;
Bagnall et al., "The UEA Multivariate Time Series Classification Archive", 2018.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import epoch_batch, pad
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Count, NonNegative, UserError
from experiments.tasks.base import Batch, Carry, FinalConfig, Scoring, Split, Sums, Task, padded_batches
from experiments.tasks.classifier import Classifier, ClassifierConfig, class_metrics, class_sums

CHANNELS, SPEAKERS, LONGEST = 12, 9, 29
SPLIT_SEED = 0
VALIDATION_COUNT = 5 * SPEAKERS
EVAL_BATCH_SIZE = 185


@dataclasses.dataclass(frozen=True)
class JapaneseVowelsConfig(FinalConfig):
    """Extends `FinalConfig`.

    Attributes:
      batch_size: utterances in a training batch.
      noise: the standard deviation of Gaussian noise that is added to the standardized training inputs.
    """

    name: Literal["japanese_vowels"] = "japanese_vowels"
    batch_size: Count = 45
    noise: NonNegative = 0.0


class JapaneseVowels(Task):
    """Classification of an utterance by its speaker."""

    Config, ModelConfig = JapaneseVowelsConfig, ClassifierConfig
    artifact_names = ("mean", "deviation")
    not_for = "Recognizing people: it answers every vowel with one of nine speakers."

    @classmethod
    def scoring_for(cls, config: JapaneseVowelsConfig) -> Scoring:
        return Scoring("loss", "min", ("accuracy",), selects=not config.train_on_validation)

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: mean and standard deviation of each coefficient over the training frames."""
        frames = np.concatenate(self.utterances["train"][0])
        return {"mean": frames.mean(axis=0).tolist(), "deviation": frames.std(axis=0).tolist()}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["ucr_uea"]

    def fingerprint(self) -> Fingerprint:
        """Returns the fingerprint of the utterances in the order of their splits."""
        parts = self.utterances.values()
        count = sum(len(labels) for _, labels in parts)
        arrays = (array for sequences, labels in parts for array in (*sequences, labels))
        return fingerprint.of_arrays(f"japanese_vowels, {count} utterances in their splits", arrays)

    @functools.cached_property
    def utterances(self) -> dict[Split, tuple[list[np.ndarray], np.ndarray]]:
        """The sequences (T, 12) and the labels of each split."""
        return load_splits(self.data_dir)

    @functools.cached_property
    def splits(self) -> dict[Split, Batch]:
        """Standardized and padded xs (N, 29, 12), lengths (N,) and labels (N,) of each split."""
        mean, deviation = (np.array(self.artifacts[name], np.float32) for name in ("mean", "deviation"))

        def arrays(sequences: list[np.ndarray], labels: np.ndarray) -> Batch:
            xs, lengths = pad([(sequence - mean) / deviation for sequence in sequences], LONGEST)
            return {"xs": xs, "lengths": lengths, "labels": labels}

        return {name: arrays(*part) for name, part in self.utterances.items()}

    @functools.cached_property
    def train_examples(self) -> Batch:
        parts = [self.splits["train"]] if self.scoring.selects else [self.splits["train"], self.splits["validation"]]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def model(self, config: ClassifierConfig, rngs: nnx.Rngs) -> Classifier:
        return Classifier(config, CHANNELS, SPEAKERS, rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows = self.batch_indices(seed, step)
        batch = {name: array[rows] for name, array in self.train_examples.items()}
        noise = np.random.default_rng((seed, 1, step)).standard_normal(batch["xs"].shape, np.float32)
        batch["xs"] = batch["xs"] + np.float32(self.config.noise) * noise
        return batch | {"weights": np.ones(self.batch_size, np.float32)}

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return epoch_batch(len(self.train_examples["labels"]), self.batch_size, seed, step)

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        return padded_batches(self.splits[split], EVAL_BATCH_SIZE)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        logits = model(batch["xs"], lengths=batch["lengths"], key=key)
        return class_sums(logits, batch["labels"], batch["weights"]), carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return class_metrics(sums)


def load_splits(data_dir: str | None) -> dict[Split, tuple[list[np.ndarray], np.ndarray]]:
    """Returns the sequences (T, 12) and the labels (N,) of each split."""
    from sklearn.model_selection import train_test_split

    def load(part: str) -> tuple[list[np.ndarray], np.ndarray]:
        sequences, labels = read(fetch("ucr_uea", f"JapaneseVowels/JapaneseVowels_{part}.ts", data_dir))
        return sequences, np.array([int(label) - 1 for label in labels], np.int32)

    rest, labels = load("TRAIN")
    chosen = train_test_split(
        np.arange(len(rest)), test_size=VALIDATION_COUNT, stratify=labels, random_state=SPLIT_SEED
    )
    train, validation = (([rest[row] for row in rows], labels[rows]) for rows in chosen)
    return {"train": train, "validation": validation, "test": load("TEST")}


def read(path: str | os.PathLike[str]) -> tuple[list[np.ndarray], list[str]]:
    """Reads a `.ts` file.

    Returns:
      the sequences, float32 (T, I) each, and their labels.

    Raises:
      UserError: a line is not a sequence, or has a different number of channels than the first one.
    """
    sequences, labels, data = [], [], False
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        if line.strip().lower() == "@data":
            data = True
        elif data and line.strip():
            *channels, label = line.strip().split(":")
            try:
                sequence = np.array([channel.split(",") for channel in channels], np.float32).T
            except ValueError:
                raise UserError(f"{path}:{number}: expected channels of equal length, got {line[:40]!r}") from None
            if sequence.ndim != 2 or (sequences and sequence.shape[1] != sequences[0].shape[1]):
                raise UserError(
                    f"{path}:{number}: expected the number of channels of the first line of data, got another"
                )
            if not np.isfinite(sequence).all():
                raise UserError(f"{path}:{number}: expected finite numbers, got NaN or infinity")
            sequences.append(sequence)
            labels.append(label)
    if not sequences:
        raise UserError(f"{path}: expected sequences after a line @data, got none")
    return sequences, labels
