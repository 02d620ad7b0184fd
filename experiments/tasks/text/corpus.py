"""Strict reading of UTF-8 text, and vocabularies of characters."""

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
"""The byte order marks of other encodings."""


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a UTF-8 file. Removes a byte order mark and changes nothing else, such as line ends.

    Raises:
      UserError: the file is not UTF-8. The message has the line and byte of the first error.
    """
    return decode(Path(path).read_bytes(), os.fspath(path))


def decode(data: bytes, source: str) -> str:
    """Decodes UTF-8 without a byte order mark.

    Args:
      data: all bytes of the source.
      source: its name in messages.

    Raises:
      UserError: the data are not UTF-8. The message has the line and byte of the first error.
    """
    for encoding, mark in MARKS.items():
        if data.startswith(mark):
            raise UserError(f"{source}: expected UTF-8 text, got {encoding} by its byte order mark; convert it")
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
    """A set of characters with codes from 0, in the order of `symbols`.

    Attributes:
      symbols: the characters as one string, each once.

    Example:
      >>> vocabulary = Vocabulary.of(["hello"])
      >>> vocabulary.symbols, vocabulary.encode("hole").tolist(), vocabulary.decode([1, 0])
      ('ehlo', [1, 3, 2, 0], 'he')
    """

    symbols: str

    def __post_init__(self) -> None:
        if not self.symbols:
            raise ValueError("symbols: expected at least one character, got none")
        if len(set(self.symbols)) != len(self.symbols):
            twice = next(symbol for symbol in self.symbols if self.symbols.count(symbol) > 1)
            raise ValueError(f"symbols: expected each character once, got {twice!r} twice")

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """Returns the vocabulary of the characters in texts, sorted by code point."""
        return cls("".join(sorted(set().union(*texts))))

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _codes(self) -> np.ndarray:
        """The code of each code point up to the largest one; -1 for other characters."""
        points = _code_points(self.symbols)
        codes = np.full(points.max() + 1, -1, np.int32)
        codes[points] = np.arange(len(points), dtype=np.int32)
        return codes

    def encode(self, text: str) -> np.ndarray:
        """Returns the codes of a text of N characters: int32 (N,).

        Raises:
          ValueError: a character is not in the vocabulary. The message has its line and column.
        """
        points = _code_points(text)
        codes = self._codes[np.minimum(points, len(self._codes) - 1)]
        codes = np.where(points < len(self._codes), codes, -1)
        if (codes < 0).any():
            at = int(np.argmax(codes < 0))
            line, column = text.count("\n", 0, at) + 1, at - (text.rfind("\n", 0, at) + 1) + 1
            raise ValueError(
                f"text: expected only the {len(self)} characters of the vocabulary, "
                f"got {text[at]!r} in line {line}, column {column}"
            )
        return codes

    def decode(self, codes: Iterable[int] | np.ndarray) -> str:
        """Returns the text of codes (N,) int. The inverse of `encode`.

        Raises:
          ValueError: a code is out of range.
        """
        numbers = [int(code) for code in codes]
        for at, number in enumerate(numbers):
            if not 0 <= number < len(self):
                raise ValueError(f"codes: expected 0..{len(self) - 1}, got {number} at position {at}")
        return "".join(self.symbols[number] for number in numbers)


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.int64)
