"""Text as subwords: a vocabulary of word pieces that is learnt from text, by sentencepiece's unigram model.

Reference: Kudo, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
Candidates", 2018.
"""

import bisect
import io
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

PADDING, BEGIN, END, UNKNOWN = range(4)
"""The codes that stand for no text."""

CANDIDATES = 8
"""The most ways to cut up a word that `Subwords.sample` chooses among."""


class Subwords:
    """Word pieces numbered from 4 on. Pieces never reach over a space, so that a line is cut up word by word.

    Attributes:
      model: all that has to be kept to rebuild the vocabulary: sentencepiece's own file format.

    Example:
      >>> subwords = Subwords.train(["zwei männer", "ein mann"] * 50, size=20)
      >>> subwords.decode(subwords.encode("zwei mann"))
      'zwei mann'
    """

    def __init__(self, model: bytes):
        """Takes a model that `train` made."""
        self.model = model
        self._known: dict[tuple[str, float], tuple[list[np.ndarray], list[float]]] = {}

    @classmethod
    def train(cls, lines: Iterable[str], size: int) -> "Subwords":
        """Learns a vocabulary; the same lines give the same bytes.

        Args:
          lines: the text.
          size: V, the four codes that stand for no text included.

        Raises:
          ValueError: the text does not give a vocabulary of that size.
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
                num_threads=1,  # sums in one order, so that the result is the same every time
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = " ".join(str(error).split()).rpartition("] ")[2]
            raise ValueError(f"size: expected one that the text allows, got {size} ({reason})") from None
        return cls(model.getvalue())

    @cached_property
    def _processor(self) -> Any:
        import sentencepiece

        return sentencepiece.SentencePieceProcessor(model_proto=self.model)  # type: ignore[call-arg]

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, line: str) -> np.ndarray:
        """Cuts a line up in its likeliest way: int32 (N,)."""
        return np.array(self._processor.encode(line), np.int32)

    def sample(self, line: str, sharpness: float, rng: np.random.Generator) -> np.ndarray:
        """Cuts each word up in a way drawn from its likeliest ones, with probabilities ∝ p ** sharpness: int32 (N,)."""
        words = line.split()
        drawn = [np.zeros(0, np.int32)]
        for word, draw in zip(words, rng.random(len(words)), strict=True):
            segmentations, limits = self._choices(word, sharpness)
            drawn.append(segmentations[bisect.bisect(limits, draw)])
        return np.concatenate(drawn)

    def _choices(self, word: str, sharpness: float) -> tuple[list[np.ndarray], list[float]]:
        """The likeliest ways to cut up a word, and the draws below which, one after the other, each is chosen."""
        if (word, sharpness) not in self._known:
            nbest = [np.array(codes, np.int32) for codes in self._processor.nbest_encode_as_ids(word, CANDIDATES)]
            logits = sharpness * np.array([sum(self._processor.get_score(int(c)) for c in codes) for codes in nbest])
            shares = np.exp(logits - logits.max())
            self._known[word, sharpness] = nbest, list(np.cumsum(shares / shares.sum())[:-1])
        return self._known[word, sharpness]

    def pieces(self, codes: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the pieces one by one, a word's first one with a mark (U+2581) before it."""
        return [self._processor.id_to_piece(int(code)) for code in codes]

    def decode(self, codes: Sequence[int] | np.ndarray) -> str:
        """Returns the text of codes; those that stand for no text are left out."""
        return self._processor.decode([int(code) for code in codes if code > UNKNOWN])
