"""Translation of image captions: Multi30k, 29,000 short sentences in English, German and French.

Training is on `train`, selection on `val` (1,014 sentences), testing on `test_2016_flickr` (1,000). The raw sentences
are segmented into subwords, with a vocabulary for each language learned from the training sentences. BLEU and chrF are
sacrebleu's on detokenized text, case-insensitive for lower-cased text. The signature of BLEU is then
`nrefs:1|case:lc|eff:no|tok:13a|smooth:exp`, otherwise with `case:mixed`.
"""

import dataclasses
import functools
import gzip
import hashlib
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.data import fingerprint
from experiments.data.batching import Buckets, every_example_once, pad
from experiments.data.fetch import fetch
from experiments.data.fingerprint import Fingerprint
from experiments.data.registry import REGISTRY, Dataset
from experiments.files import write_bytes
from experiments.schema import Checked, Count, Natural, NonNegative, Rate, UserError, require
from experiments.tasks.base import ARTIFACTS, Batch, Carry, Scoring, Split, Sums, Task, mean
from experiments.tasks.translation.beam import beam_search, greedy_search
from experiments.tasks.translation.model import EncoderDecoder, EncoderDecoderConfig
from experiments.tasks.translation.subwords import BEGIN, END, UNKNOWN, Subwords

FILES: dict[Split, str] = {"train": "train", "validation": "val", "test": "test_2016_flickr"}

LARGEST_EXPONENT = 709
"""math.exp overflows beyond."""

MAX_SYMBOLS = 100
"""The most subwords of a translation; the longest training sentence has 60."""


@dataclasses.dataclass(frozen=True)
class Multi30kConfig(Checked):
    """The Multi30k task.

    Attributes:
      direction: source and target language.
      lowercase: whether source, target and reference are lower-cased.
      vocabulary_size: subwords of each language, including four control symbols.
      pairs: the number of sentences of each split, for tests; 0 for all.
      batch_size: pairs in a training batch.
      sampling: the sharpness of subword sampling in training; 0 for the most likely segmentation.
      label_smoothing: the share of a training target's probability that is uniform over the vocabulary.
      beam_width: hypotheses of the beam search on the test split. Validation uses greedy search, for speed.
      length_penalty: see `beam_search`.
    """

    name: Literal["multi30k"] = "multi30k"
    direction: Literal["de-en", "en-de", "en-fr"] = "de-en"
    lowercase: bool = True
    vocabulary_size: Count = 5000
    pairs: Natural = 0
    batch_size: Count = 128
    sampling: NonNegative = 0.0
    label_smoothing: Rate = 0.1
    beam_width: Count = 5
    length_penalty: NonNegative = 1.0

    def check(self):
        size = self.vocabulary_size
        require("vocabulary_size", size > UNKNOWN + 1, f"more than the {UNKNOWN + 1} control symbols", size)


class Multi30k(Task):
    """Translation of a sentence."""

    Config, ModelConfig = Multi30kConfig, EncoderDecoderConfig
    extra = "translation"
    command = "translate < sentences.txt"
    not_for = "Anything but short descriptions of pictures: other texts have words and forms that were not in training."

    @classmethod
    def scoring_for(cls, config: Multi30kConfig) -> Scoring:
        del config
        return Scoring("bleu", "max", ("bleu", "chrf"))

    @property
    def dataset(self) -> Dataset:
        return REGISTRY["multi30k"]

    def fingerprint(self) -> Fingerprint:
        files = [file_of(split, language) for split in FILES for language in self.languages]
        return fingerprint.of_files("multi30k", *files)

    @functools.cached_property
    def _pairs(self) -> dict[Split, "Pairs"]:
        return {}

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.config.direction.split("-"))

    @property
    def result_name(self) -> str:
        return f"multi30k_{''.join(self.languages)}"

    def save_artifacts(self, folder: pathlib.Path) -> None:
        """Also writes the two vocabularies, each to a file in sentencepiece's format; their SHA-256 are artifacts."""
        for path, subwords in zip(self._vocabularies(folder), self.subwords, strict=True):
            write_bytes(path, subwords.model)
            self.artifacts[path.name] = hashlib.sha256(subwords.model).hexdigest()
        super().save_artifacts(folder)

    def load_artifacts(self, folder: pathlib.Path) -> bool:
        """Also reads the two vocabularies of a run folder. Returns False if there are none."""
        paths = self._vocabularies(folder)
        if not all(path.exists() for path in paths):
            return False
        super().load_artifacts(folder)
        self.subwords = tuple(map(self._read_subwords, paths))
        return True

    def _read_subwords(self, path: pathlib.Path) -> Subwords:
        content = path.read_bytes()
        recorded = self.artifacts.get(path.name)  # earlier versions have none
        if recorded is not None and hashlib.sha256(content).hexdigest() != recorded:
            raise UserError(f"{path} is damaged: it has another sha256 than recorded in {ARTIFACTS}")
        try:
            return Subwords(content)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}") from None

    def _vocabularies(self, folder: pathlib.Path) -> list[pathlib.Path]:
        return [folder / f"subwords.{language}.model" for language in self.languages]

    @functools.cached_property
    def subwords(self) -> tuple[Subwords, ...]:
        """The vocabularies of source and target."""
        size = self.config.vocabulary_size
        return tuple(learned_subwords(self.lines("train", language), size) for language in self.languages)

    def lines(self, split: Split, language: str) -> tuple[str, ...]:
        """Returns the sentences of a split in one language."""
        path = fetch("multi30k", file_of(split, language), self.data_dir)
        lines = read_lines(path)
        lines = lines[: self.config.pairs] if self.config.pairs else lines
        return tuple(line.lower() for line in lines) if self.config.lowercase else lines

    def model(self, config: EncoderDecoderConfig, rngs: nnx.Rngs) -> EncoderDecoder:
        source, target = self.subwords
        return EncoderDecoder(config, len(source), len(target), rngs)

    def train_batch(self, seed: int, step: int) -> Batch:
        """Returns pairs of similar length. Sampled subwords that do not fit become the most likely ones."""
        rows, length = Buckets(*self._buckets, self.batch_size, seed).batch(step)
        sharpness, (texts, codes) = self.config.sampling, self.pairs("train")
        if not sharpness:
            return batch_of([codes[row] for row in rows], length)
        rng, pairs = np.random.default_rng((seed, 1, step)), []
        for row in rows:
            drawn = [s.sample(text, sharpness, rng) for s, text in zip(self.subwords, texts[row], strict=True)]
            pairs.append([d if len(d) < length else c for d, c in zip(drawn, codes[row], strict=True)])
        return batch_of(pairs, length)

    @functools.cached_property
    def _buckets(self) -> tuple[np.ndarray, np.ndarray]:
        """The lengths of the training pairs and the edges of their buckets."""
        lengths = np.array([1 + max(map(len, pair)) for pair in self.pairs("train").codes])
        return lengths, bucket_edges_by_growth(lengths, self.batch_size)

    def pairs(self, split: Split) -> "Pairs":
        """Returns the sentences of a split and their most likely subwords."""
        if split not in self._pairs:
            texts = list(zip(*(self.lines(split, language) for language in self.languages), strict=True))
            source, target = self.subwords
            self._pairs[split] = Pairs(texts, [(source.encode(one), target.encode(other)) for one, other in texts])
        return self._pairs[split]

    def eval_batches(self, split: Split) -> Iterator[Batch]:
        """Yields a split sorted by length."""
        codes = self.pairs(split).codes
        for rows, counts, length in batches_by_length([1 + max(map(len, pair)) for pair in codes], self.batch_size):
            batch = batch_of([codes[row] for row in rows], length)
            yield batch | {"weights": batch["weights"] * counts[:, None]}

    def loss(self, model: Any, batch: Mapping[str, Any], carry: Carry, key: jax.Array | None) -> tuple[Sums, Carry]:
        """Returns the sums "loss" and "nats". Labels are smoothed only in training."""
        logits = model(batch["source"], batch["source_lengths"], batch["inputs"], key=key)
        weights, total = batch["weights"], batch["weights"].sum()
        normalizer = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, batch["targets"][..., None], axis=-1)[..., 0]
        nats = ((normalizer - chosen) * weights).sum()
        share = 0.0 if key is None else self.config.label_smoothing
        spread = ((normalizer - logits.mean(axis=-1)) * weights).sum() if share else 0.0
        return {"loss": ((1 - share) * nats + share * spread, total), "nats": (nats, total)}, carry

    def metrics(self, sums: Mapping[str, tuple[float, float]]) -> dict[str, float]:
        """Returns the loss and the perplexity per subword, at most the largest that a float holds."""
        return {"loss": mean(sums, "loss"), "perplexity": math.exp(min(mean(sums, "nats"), LARGEST_EXPONENT))}

    def scores(self, model: Any, split: Split) -> dict[str, float]:
        """Returns BLEU and chrF of the translations of a split."""
        sources, references = zip(*self.pairs(split).texts, strict=True)
        width = self.config.beam_width if split == "test" else 1
        translations = [translation.text for translation in self.translate(model, sources, width)]
        return {
            name: metric.corpus_score(translations, [references]).score
            for name, metric in sacrebleu_metrics(self.config.lowercase).items()
        }

    def translate(self, model: EncoderDecoder, lines: Sequence[str], beam_width: int) -> list["Translation"]:
        """Translates lines of text.

        Args:
          model: a trained model.
          lines: N sentences.
          beam_width: hypotheses of the search; 1 for greedy search.

        Returns:
          N translations.
        """
        source, target = self.subwords
        codes = [source.encode(line.lower() if self.config.lowercase else line) for line in lines]
        graphdef, params = nnx.split(model)
        found: list[Translation | None] = [None] * len(lines)
        rows_a_batch = min(self.batch_size, len(lines))
        for rows, counts, length in batches_by_length([1 + len(c) for c in codes], rows_a_batch):
            padded, lengths = padded_sources([codes[row] for row in rows], length)
            best = search(graphdef, params, padded, lengths, beam_width, self.config.length_penalty)
            for row, symbols in zip(rows[counts], np.asarray(best)[counts], strict=True):
                # Nothing is the translation of nothing, so that files stay aligned line by line.
                symbols = symbols[: np.argmax(np.append(symbols, END) == END) if len(codes[row]) else 0]
                found[row] = Translation(codes[row], symbols, target.decode(symbols))
        return [translation for translation in found if translation is not None]

    def alignment(self, model: EncoderDecoder, translation: "Translation") -> tuple[np.ndarray, list[str], list[str]]:
        """Returns the attention weights of a translation.

        Returns:
          weights (T, S) of each subword of the translation over the source subwords, end symbols included; the
          subwords of the source; the subwords of the translation.
        """
        pair = (translation.source, translation.codes)
        batch = batch_of([pair], 1 + max(map(len, pair)))
        inputs = (jnp.asarray(batch[name]) for name in ("source", "source_lengths", "inputs"))
        weights = jax.jit(model.alignment)(*inputs)[0]
        source, target = ([*subwords.pieces(codes), "end"] for subwords, codes in zip(self.subwords, pair, strict=True))
        return np.asarray(weights)[: len(target), : len(source)], source, target


class Pairs(NamedTuple):
    """Sentence pairs.

    Attributes:
      texts: N sentences and their translations.
      codes: the subwords of both.
    """

    texts: list[tuple[str, ...]]
    codes: list[tuple[np.ndarray, np.ndarray]]


class Translation(NamedTuple):
    """A translation of one sentence.

    Attributes:
      source: (S,) int32, the subwords of the source.
      codes: (T,) int32, the subwords of the translation.
      text: the decoded translation.
    """

    source: np.ndarray
    codes: np.ndarray
    text: str


@functools.partial(jax.jit, static_argnames=("graphdef", "width", "length_penalty"))
def search(graphdef: Any, params: Any, source: Any, lengths: Any, width: int, length_penalty: float) -> jax.Array:
    """Returns the best hypothesis (B, T) for each source (B, S) with `lengths` (B,)."""
    model = nnx.merge(graphdef, params)
    encoded, state = model.encode(source, lengths)
    step, options = functools.partial(model.step, encoded), {"begin": BEGIN, "end": END, "length": MAX_SYMBOLS}
    if width == 1:
        return greedy_search(step, state, **options).symbols[:, 0]
    return beam_search(step, state, **options, width=width, length_penalty=length_penalty).symbols[:, 0]


def batch_of(pairs: Sequence[Sequence[np.ndarray]], length: int) -> Batch:
    """Pads pairs of codes to `length` symbols: source (B, S), inputs, targets and weights (B, T)."""
    source, source_lengths = padded_sources([source for source, _ in pairs], length)
    targets, lengths = padded_sources([target for _, target in pairs], length)
    inputs = np.concatenate([np.full((len(pairs), 1), BEGIN, np.int32), targets[:, :-1]], axis=1)
    weights = (np.arange(length) < lengths[:, None]).astype(np.float32)
    return {
        "source": source,
        "source_lengths": source_lengths,
        "inputs": inputs,
        "targets": targets,
        "weights": weights,
    }


def padded_sources(codes: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Appends END to sequences and pads them: (B, `length`), and their lengths (B,)."""
    return pad([np.append(c, np.int32(END)) for c in codes], length)


def batches_by_length(
    lengths: Sequence[int], batch_size: int, multiple: int = 8
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yields batches of sequences sorted by length: indices (B,), bool (B,) without padding, padded length."""
    order = np.argsort(lengths, kind="stable")
    for places, counts in every_example_once(len(order), batch_size):
        rows = order[places]
        longest = max(lengths[row] for row in rows)
        yield rows, counts, -(-longest // multiple) * multiple


def bucket_edges_by_growth(lengths: np.ndarray, fewest: int, growth: float = 1.2) -> np.ndarray:
    """Returns edges of buckets that grow by at least a factor `growth` and have at least `fewest` sequences.

    Args:
      lengths: (N,) int.
      fewest: the batch size, so that a batch has no repetitions.
      growth: bounds the padding.

    Returns:
      int64, increasing; the last is the largest length.
    """
    edges = [int(lengths.max())]
    for edge in range(edges[0] - 1, 0, -1):
        shorter = int((lengths <= edge).sum())
        held = int((lengths <= edges[-1]).sum()) - shorter
        if edge * growth <= edges[-1] and held >= fewest <= shorter:
            edges.append(edge)
    return np.array(edges[::-1])


def file_of(split: Split, language: str) -> str:
    """Returns the file name of a split in one language."""
    return f"raw/{FILES[split]}.{language}.gz"


@functools.lru_cache(maxsize=8)
def read_lines(path: pathlib.Path) -> tuple[str, ...]:
    """Returns the lines of a gzipped text, without line ends."""
    return tuple(gzip.decompress(path.read_bytes()).decode().removesuffix("\n").split("\n"))


@functools.lru_cache(maxsize=8)
def learned_subwords(lines: tuple[str, ...], size: int) -> Subwords:
    """Returns a vocabulary of `size` subwords learned from text. Cached."""
    try:
        return Subwords.train(lines, size)
    except ValueError as error:
        raise UserError(f"task.vocabulary_{error}") from None


def sacrebleu_metrics(lowercase: bool) -> dict[str, Any]:
    """Returns BLEU and chrF with sacrebleu's default settings."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return {"bleu": BLEU(lowercase=lowercase), "chrf": CHRF(lowercase=lowercase)}
