"""Vocabularies of characters and errors of invalid text."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from experiments.schema import UserError
from experiments.tasks.text.corpus import Vocabulary, read_text


def test_symbols_are_sorted_by_code_point():
    vocabulary = Vocabulary.of(["hello", "world!\n"])
    assert vocabulary.symbols == "\n!dehlorw"
    assert len(vocabulary) == 9
    codes = vocabulary.encode("wood\n")
    assert codes.dtype == np.int32
    assert codes.tolist() == [8, 6, 6, 2, 0]
    assert vocabulary.decode(codes) == "wood\n"
    assert vocabulary.encode("").shape == (0,)
    assert vocabulary == Vocabulary(vocabulary.symbols)


@given(st.text(min_size=1), st.randoms(use_true_random=False))
def test_decode_inverts_encode(text, random):
    symbols = list(set(text))
    random.shuffle(symbols)
    vocabulary = Vocabulary("".join(symbols))
    codes = vocabulary.encode(text)
    assert [symbols[code] for code in codes] == list(text)
    assert vocabulary.decode(codes) == text


@pytest.mark.parametrize(("stranger", "shown"), [("?", "'?'"), ("z", "'z'"), ("😀", "'😀'"), ("\0", r"'\\x00'")])
def test_unknown_characters_are_reported_with_their_position(stranger, shown):
    vocabulary = Vocabulary.of(["abc\ny"])
    with pytest.raises(
        ValueError, match=f"the 5 characters of the vocabulary, got {shown} in line 3, column 2".replace("?", r"\?")
    ):
        vocabulary.encode(f"ab\nc\na{stranger}c")


def test_unknown_codes_are_reported_with_their_position():
    vocabulary = Vocabulary("abc")
    with pytest.raises(ValueError, match=r"codes: expected 0\.\.2, got 3 at position 1"):
        vocabulary.decode([0, 3])
    with pytest.raises(ValueError, match=r"codes: expected 0\.\.2, got -1 at position 0"):
        vocabulary.decode(np.array([-1]))


def test_invalid_vocabularies_raise():
    with pytest.raises(ValueError, match="at least one character"):
        Vocabulary("")
    with pytest.raises(ValueError, match="each character once, got 'b' twice"):
        Vocabulary("abcb")


def test_text_is_read_unchanged(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("a\r\né\n\u2028".encode())
    assert read_text(path) == "a\r\né\n\u2028"


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"\xff", "0xff (byte 1 of the line, offset 0 of all)"),
        (b"one\ntwo \xe9\n", "0xe9 (byte 5 of the line, offset 8 of all)"),
        ("é\n\né".encode() + b"\x80", "0x80 (byte 3 of the line, offset 6 of all)"),
        (b"cut \xe2\x82", "0xe2 (byte 5 of the line, offset 4 of all)"),
        (b"surrogate \xed\xa0\x80", "0xed (byte 11 of the line, offset 10 of all)"),
    ],
)
def test_invalid_utf8_is_reported_with_its_position(tmp_path, data, place):
    path = tmp_path / "text"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_text(path)
    line = data[: data.index(bytes([int(place[2:4], 16)]))].count(b"\n") + 1
    assert str(caught.value) == f"{path}:{line}: expected UTF-8 text, got byte {place}"


def test_tiny_shakespeare(data_file):
    text = read_text(data_file("tiny_shakespeare", "input.txt"))
    vocabulary = Vocabulary.of([text])
    assert (len(text), len(vocabulary)) == (1_115_394, 65)
    assert vocabulary.decode(vocabulary.encode(text)) == text


def test_byte_order_marks_are_removed_or_raise(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfab\n")
    assert read_text(path) == "ab\n"
    for encoding, name in (("utf-16", "UTF-16 .little endian."), ("utf-16-be", "UTF-16 .big"), ("utf-32", "UTF-32")):
        path.write_bytes("\ufeffab".encode(encoding) if encoding == "utf-16-be" else "ab".encode(encoding))
        with pytest.raises(UserError, match=rf"text: expected UTF-8 text, got {name}"):
            read_text(path)
