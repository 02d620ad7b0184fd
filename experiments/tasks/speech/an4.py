"""AN4: transcription of spelled names, addresses and command words from mel-cepstra, without a language model.

A bidirectional network is trained by connectionist temporal classification (CTC) on characters, A to Z and the space.
Its features are 13 mel-cepstra with deltas and second deltas, standardized over each utterance and stacked. Training
data are augmented: speed, warped and masked spectra, masked spans of time. The metrics are word and character error
rates of the prefix beam search ("wer", "cer") and of the most likely path ("wer_greedy", "cer_greedy").

The standard split has 948 utterances of 74 speakers for training and 130 of 10 others for testing. Eight of the
training speakers, every ninth in alphabetical order, are held out for validation: 100 utterances.

References: Acero, "Acoustical and Environmental Robustness in Automatic Speech Recognition", 1990 (the corpus); Graves
et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent Neural Networks",
2006.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import Buckets, bucket_edges, pad
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.schema import Count, Natural, Range
from experiments.tasks.base import Batch, Carry, FinalConfig, Scoring, Split, Sums, Task, mean, padded_batches
from experiments.tasks.speech import augmentation, ctc, features
from experiments.tasks.speech.ctc import error_rates
from experiments.tasks.speech.transcriber import Transcriber, TranscriberConfig, ctc_losses
from experiments.tasks.text.corpus import Vocabulary

COEFFICIENTS = 13
ALPHABET = " ABCDEFGHIJKLMNOPQRSTUVWXYZ"
VALIDATION_SPEAKERS = ("ffmm", "fmjd", "mblw", "mdmc", "mjbh", "mmaf", "mrab", "msmn")
EVAL_BATCH_SIZE = 26  # a fifth of the test split
BUCKETS = 5
BANDS, LOW_HZ, HIGH_HZ = 40, 130.0, 6800.0  # of the filter bank behind the cepstra
LEAST_LOG_PROB = math.log(1e-4)
VOCABULARY = Vocabulary(ALPHABET)


@dataclasses.dataclass(frozen=True, eq=False)
class Utterance:
    """One utterance of the corpus.

    Attributes:
      name: "an406-fcaw-b".
      speaker: "fcaw".
      cepstra: (T, 13) float32, 100 frames per second.
      text: upper-case letters and single spaces.
    """

    name: str
    speaker: str
    cepstra: np.ndarray
    text: str


def load(data_dir: str | None) -> Mapping[str, tuple[Utterance, ...]]:
    """Returns the utterances of "train", "validation" and "test".

    Raises:
      UserError: the file is missing or is a different file. The message says where to get it.
    """
    return _read(fetch("an4_mfcc", "an4_mfcc.npz", data_dir))


@functools.cache
def _read(path: pathlib.Path) -> Mapping[str, tuple[Utterance, ...]]:
    with np.load(path) as arrays:
        rest, test = (
            _utterances(*(arrays[f"{split}_{part}"] for part in ("feats", "lens", "ids", "text")))
            for split in ("train", "test")
        )
    return MappingProxyType(
        {
            "train": tuple(one for one in rest if one.speaker not in VALIDATION_SPEAKERS),
            "validation": tuple(one for one in rest if one.speaker in VALIDATION_SPEAKERS),
            "test": test,
        }
    )


def _utterances(
    frames: np.ndarray, lengths: np.ndarray, identities: np.ndarray, texts: np.ndarray
) -> tuple[Utterance, ...]:
    """Splits the concatenated frames of all utterances. An identity is "an4_clstk/<speaker>/<name>"."""
    cepstra = np.split(frames, np.cumsum(lengths)[:-1])
    paths = [pathlib.PurePosixPath(identity) for identity in identities.tolist()]
    return tuple(
        Utterance(path.name, path.parent.name, one, text)
        for path, one, text in zip(paths, cepstra, texts.tolist(), strict=True)
    )


@dataclasses.dataclass(frozen=True)
class An4Config(FinalConfig):
    """Extends `FinalConfig`.

    Attributes:
      batch_size: utterances in a training batch.
      stack: frames per step of the network.
      beam_width: width of the prefix beam search.
      speed: augmentation, the largest relative change of the speed, such as 0.1.
      warp: augmentation, the largest relative change of the frequencies of the spectrum.
      hidden_bands: augmentation, the maximum number of the 40 mel bands to mask.
      hidden_spans: augmentation, the number of masked spans of time.
      hidden_frames: the maximum number of frames of a masked span, and at most a tenth of the utterance.
    """

    name: Literal["an4"] = "an4"
    batch_size: Count = 32
    stack: Annotated[int, Range(1, 4)] = 3
    beam_width: Count = 16
    speed: Annotated[float, Range(0, 0.2)] = 0.0
    warp: Annotated[float, Range(0, 0.2)] = 0.0
    hidden_bands: Annotated[int, Range(0, BANDS)] = 0
    hidden_spans: Natural = 0
    hidden_frames: Natural = 0


class An4(Task):
    """Transcription in characters by CTC."""

    Config, ModelConfig = An4Config, TranscriberConfig
    extra, artifact_names = "speech", ("longest",)
    command = "transcribe mine.wav"
    not_for = (
        "Free speech: its 99 training words are mostly letters and numbers, and it spells other words by their sound."
    )

    @classmethod
    def scoring_for(cls, config: An4Config) -> Scoring:
        return Scoring("wer", "min", ("wer", "cer"), selects=not config.train_on_validation)

    def learn(self) -> dict[str, Any]:
        """Returns the artifacts: the steps of the longest utterance."""
        return {"longest": self._steps(max(len(one.cepstra) for split in self.splits.values() for one in split))}

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["an4_mfcc"]

    def fingerprint(self) -> Fingerprint:
        return fingerprint.of_files("an4_mfcc", "an4_mfcc.npz")

    @property
    def longest(self) -> int:
        """The steps of the longest utterance, the padded length of evaluation batches."""
        return self.artifacts["longest"]

    @functools.cached_property
    def splits(self) -> Mapping[str, tuple[Utterance, ...]]:
        """The utterances of each split."""
        return load(self.data_dir)

    @functools.cached_property
    def most_labels(self) -> int:
        """The characters of the longest text."""
        return max(len(one.text) for split in self.splits.values() for one in split)

    @functools.cached_property
    def train_examples(self) -> tuple[Utterance, ...]:
        return self.splits["train"] + (() if self.scoring.selects else self.splits["validation"])

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """The frames of each training utterance."""
        return np.array([len(one.cepstra) for one in self.train_examples])

    def model(self, config: TranscriberConfig, rngs: nnx.Rngs) -> Transcriber:
        return Transcriber(config, 3 * COEFFICIENTS * self.config.stack, 1 + len(VOCABULARY), rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        rows, edge = self._buckets(seed).batch(step)
        rng = np.random.default_rng((seed, 1, step))
        chosen = [self.train_examples[row] for row in rows]
        frames = [self._augmented(one.cepstra, rng) for one in chosen]
        return self._batch(frames, [one.text for one in chosen], self._steps(math.ceil(edge / (1 - self.config.speed))))

    def batch_indices(self, seed: int, step: int) -> np.ndarray:
        return self._buckets(seed).batch(step)[0]

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        utterances = self.splits[split]
        frames = [self.features(one.cepstra) for one in utterances]
        arrays = self._batch(frames, [one.text for one in utterances], self.longest)
        del arrays["weights"]
        return padded_batches(arrays, EVAL_BATCH_SIZE)

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        """Returns the CTC loss in nats, with the number of characters as its weight."""
        log_probs = model(batch["xs"], batch["lengths"], key=key)
        losses = ctc_losses(log_probs, batch["lengths"], batch["labels"], batch["label_counts"])
        weights = batch["weights"]
        return {"loss": ((losses * weights).sum(), (batch["label_counts"] * weights).sum())}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        return {"loss": mean(sums, "loss")}

    def scores(self, model: Any, split: Split) -> dict[str, float]:
        """Returns the word and character error rates of a split, in percent."""
        utterances = self.splits[split]
        log_probs = self.log_probs(model, [one.cepstra for one in utterances])
        references = [one.text for one in utterances]
        beam = error_rates(references, [self.transcribe(frames) for frames in log_probs])
        greedy = error_rates(references, [spelled(ctc.greedy(frames)) for frames in log_probs])
        return beam | {f"{name}_greedy": rate for name, rate in greedy.items()}

    def log_probs(self, model: Transcriber, utterances: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the log-probabilities (steps, V) of each of several utterances (T, 13)."""
        frames = [self.features(one) for one in utterances]
        longest = max(self.longest, *map(len, frames))
        results = []
        for start in range(0, len(frames), EVAL_BATCH_SIZE):
            part = frames[start : start + EVAL_BATCH_SIZE]
            filled = part + part[:1] * (EVAL_BATCH_SIZE - len(part) if len(frames) > EVAL_BATCH_SIZE else 0)
            xs, lengths = pad(filled, longest)
            rows = np.asarray(apply_model(model, jnp.asarray(xs), jnp.asarray(lengths)))
            results += [row[: len(one)] for row, one in zip(rows, part, strict=False)]
        return results

    def transcribe(self, log_probs: np.ndarray) -> str:
        """Returns the most likely text of log-probabilities (steps, V), by beam search."""
        (labels, _), *_ = ctc.prefix_beam(log_probs, self.config.beam_width, LEAST_LOG_PROB)
        return spelled(labels)

    def features(self, frames: np.ndarray) -> np.ndarray:
        """Maps the cepstra (T, 13) of an utterance to the features of the network: (steps, 39 stack)."""
        return features.stacked(features.standardized(features.with_deltas(frames)), self.config.stack)

    def _buckets(self, seed: int) -> Buckets:
        return Buckets(self.lengths, bucket_edges(self.lengths, BUCKETS), self.batch_size, seed)

    def _augmented(self, frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Returns the features of a random variation of an utterance."""
        config = self.config
        frames = augmentation.resampled(frames, 1 + config.speed * rng.uniform(-1, 1))
        change = augmentation.spectral_change(
            COEFFICIENTS,
            BANDS,
            LOW_HZ,
            HIGH_HZ,
            warp=1 + config.warp * rng.uniform(-1, 1),
            hidden=augmentation.span(rng, BANDS, config.hidden_bands),
        )
        frames = features.standardized(features.with_deltas((frames - frames.mean(axis=0)) @ change))
        frames = augmentation.hide_spans(frames, rng, config.hidden_spans, config.hidden_frames, share=0.1)
        return features.stacked(frames, config.stack)

    def _batch(self, frames: Sequence[np.ndarray], texts: Sequence[str], steps: int) -> Batch:
        xs, lengths = pad(frames, steps)
        labels, counts = pad([1 + VOCABULARY.encode(text) for text in texts], self.most_labels)
        weights = np.ones(len(texts), np.float32)
        return {"xs": xs, "lengths": lengths, "labels": labels, "label_counts": counts, "weights": weights}

    def _steps(self, frames: int) -> int:
        return -(-frames // self.config.stack)


def spelled(labels: Sequence[int]) -> str:
    """Returns the text of labels, with single spaces between words."""
    return " ".join(VOCABULARY.decode([label - 1 for label in labels]).split())


@nnx.jit
def apply_model(model: Transcriber, xs: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns the log-probabilities (B, T, V) of a batch, without dropout."""
    return model(xs, lengths)
