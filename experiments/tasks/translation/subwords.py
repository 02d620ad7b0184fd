"""Subword vocabularies, learned from text by sentencepiece's unigram model.

Reference: Kudo, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
Candidates", 2018.
"""

import bisect
import io
from collections.abc import Iterable, Sequence

import numpy as np

PADDING, BEGIN, END, UNKNOWN = range(4)
"""The codes of control symbols."""

CANDIDATES = 8
"""The number of segmentations of a word that `Subwords.sample` draws from."""


class Subwords:
    """A vocabulary of word pieces, with codes from 4. Pieces contain no inner space, so words are segmented separately.

    Attributes:
      model: the vocabulary in sentencepiece's file format.

    Example:
      >>> subwords = Subwords.train(["zwei männer", "ein mann"] * 50, size=18)
      >>> subwords.decode(subwords.encode("zwei mann"))
      'zwei mann'
    """

    def __init__(self, model: bytes):
        """Reads a model in sentencepiece's file format.

        Raises:
          ValueError: it is damaged.
        """
        import sentencepiece

        self.model = model
        try:
            if not model:  # which sentencepiece takes for no argument
                raise RuntimeError
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)  # type: ignore[call-arg]
        except RuntimeError:
            raise ValueError(f"expected a model of sentencepiece, got {len(model)} bytes of another format") from None
        self._known: dict[tuple[str, float], tuple[list[np.ndarray], list[float]]] = {}

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "Subwords":
        """Learns a vocabulary. Deterministic.

        Args:
          lines: the text.
          size: V, including the four control symbols.

        Raises:
          ValueError: the text allows no vocabulary of that size.
        """
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(  # type: ignore[attr-defined]
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=size,
                model_type="unigram",
                character_coverage=1.0,
                pad_id=PADDING,
                bos_id=BEGIN,
                eos_id=END,
                unk_id=UNKNOWN,
                num_threads=1,  # one order of summation, for reproducibility
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rpartition("] ")[2]
            raise ValueError(f"size: expected one that the text allows, got {size} ({reason})") from None
        return cls(model.getvalue())

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, line: str) -> np.ndarray:
        """Returns the codes of a line, int32 (N,), by its most likely segmentation."""
        return np.array(self._processor.encode(line), np.int32)

    def sample(self, line: str, sharpness: float, rng: np.random.Generator) -> np.ndarray:
        """Returns codes of a line, int32 (N,). Samples each word's segmentation with probability ∝ p ** sharpness."""
        words = line.split()
        drawn = [np.zeros(0, np.int32)]
        for word, draw in zip(words, rng.random(len(words)), strict=True):
            segmentations, limits = self._choices(word, sharpness)
            drawn.append(segmentations[bisect.bisect(limits, draw)])
        return np.concatenate(drawn)

    def _choices(self, word: str, sharpness: float) -> tuple[list[np.ndarray], list[float]]:
        """Returns the most likely segmentations of a word and the bounds of their cumulative probabilities."""
        if (word, sharpness) not in self._known:
            nbest = [np.array(codes, np.int32) for codes in self._processor.nbest_encode_as_ids(word, CANDIDATES)]
            logits = sharpness * np.array([sum(self._processor.get_score(int(c)) for c in codes) for codes in nbest])
            shares = np.exp(logits - logits.max())
            self._known[word, sharpness] = nbest, list(np.cumsum(shares / shares.sum())[:-1])
        return self._known[word, sharpness]

    def pieces(self, codes: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the pieces of codes; U+2581 marks the first piece of a word."""
        return [self._processor.id_to_piece(int(code)) for code in codes]

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        """Returns the text of codes, without control symbols."""
        return self._processor.decode([int(code) for code in codes if code > UNKNOWN])
