"""Text as integers: strict reading of UTF-8, and a vocabulary of characters."""

import codecs
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from experiments.schema import UserError

MARKS = {
    "UTF-32": codecs.BOM_UTF32_LE,
    "UTF-16 (little endian)": codecs.BOM_UTF16_LE,
    "UTF-16 (big endian)": codecs.BOM_UTF16_BE,
}
"""What files of other encodings begin with."""


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a UTF-8 file as it is, less a byte order mark: no line ending is changed, no bad byte is skipped.

    Raises:
      UserError: naming the file, line and byte of the first bad one.
    """
    return decode(Path(path).read_bytes(), os.fspath(path))


def decode(data: bytes, source: str) -> str:
    """Returns UTF-8 as text, less a byte order mark.

    Args:
      data: the whole of a source.
      source: its name in messages.

    Raises:
      UserError: naming the source, and the line and byte of the first bad one.
    """
    for encoding, mark in MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{source}: expected UTF-8 text, got {encoding}, as its byte order mark says: convert it")
    try:
        return data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as fault:
        start = fault.start
        line = data.count(b"\n", 0, start) + 1
        column = start - (data.rfind(b"\n", 0, start) + 1) + 1
        raise UserError(
            f"{source}:{line}: expected UTF-8 text, got byte 0x{data[start]:02x} (byte {column} of the line, "
            f"offset {start} of all)"
        ) from None


@dataclass(frozen=True)
class Vocabulary:
    """A set of characters numbered from 0 in the order of `symbols`.

    Attributes:
      symbols: the characters as one string, each once; it is all that has to be kept to rebuild the vocabulary.

    Example:
      >>> vocabulary = Vocabulary.of(["hello"])
      >>> vocabulary.symbols, vocabulary.encode("hole").tolist(), vocabulary.decode([1, 0])
      ('ehlo', [1, 3, 2, 0], 'he')
    """

    symbols: str

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("symbols must hold at least one character, got none")
        if len(set(self.symbols)) != len(self.symbols):
            twice = next(symbol for symbol in self.symbols if self.symbols.count(symbol) > 1)
            raise ValueError(f"symbols must hold each character once, got {twice!r} twice")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """The characters that occur in the texts, in the order of their code points."""
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _codes(self) -> np.ndarray:
        """From code point to number, -1 where there is none: an array as long as the largest code point."""
        points = _code_points(self.symbols)
        codes = np.full(points.max() + 1, -1, np.int32)
        codes[points] = np.arange(len(points), dtype=np.int32)
        return codes

    def encode(self, text: str) -> np.ndarray:
        """Numbers the characters of a text.

        Args:
          text: N characters.

        Returns:
          int32 (N,).

        Raises:
          ValueError: naming the first character that the vocabulary lacks, and its line and column.
        """
        points = _code_points(text)
        codes = self._codes[np.minimum(points, len(self._codes) - 1)]
        codes = np.where(points < len(self._codes), codes, -1)
        if (codes < 0).any():
            at = int(np.argmax(codes < 0))
            line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
            raise ValueError(
                f"text must hold only the {len(self)} characters of the vocabulary, "
                f"got {text[at]!r} in line {line}, column {column}"
            )
        return codes

    def decode(self, codes: Iterable[int] | np.ndarray) -> str:
        """The text that `encode` numbers like this.

        Args:
          codes: integers (N,), each at least 0 and less than the size of the vocabulary.

        Raises:
          ValueError: naming the first number out of range.
        """
        numbers = [int(code) for code in codes]
        for at, number in enumerate(numbers):
            if not 0 <= number < len(self):
                raise ValueError(f"codes must lie in 0..{len(self) - 1}, got {number} at position {at}")
        return "".join(self.symbols[number] for number in numbers)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
