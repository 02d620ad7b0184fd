"""An invalid config raises one line that names the key."""

import dataclasses
import re
from typing import Annotated, Literal

import pytest

from experiments.schema import Checked, Count, Positive, Range, Rate, UserError, build, check_keys, require


@dataclasses.dataclass(frozen=True)
class Example(Checked):
    size: Count = 4
    rate: Rate = 0.0
    scale: Positive = 1.0
    kind: Literal["plain", "fancy"] = "plain"
    share: Annotated[float, Range(0, 1)] = 0.5
    flag: bool = False
    note: str | None = None
    sizes: tuple[int, ...] = ()

    def check(self):
        require("size", self.size != 13, "any size but 13", self.size)


REFUSED = [
    ({"sise": 3}, "here.sise: unknown key (did you mean 'size'?); known are size, rate, "),
    ({"zzz": 3}, "here.zzz: unknown key; known are size, rate, "),
    ({"size": 0}, "here.size: expected an integer at least 1, got 0"),
    ({"size": -5}, "here.size: expected an integer at least 1, got -5"),
    ({"size": 2**31}, "here.size: expected an integer of 32 bits, got 2147483648"),
    ({"size": 13}, "here.size: expected any size but 13, got 13"),
    ({"size": 2.0}, "here.size: expected an integer, got 2.0"),
    ({"size": True}, "here.size: expected an integer, got True"),
    ({"size": "4"}, "here.size: expected an integer, got '4'"),
    ({"size": None}, "here.size: expected an integer, got None"),
    ({"rate": 1.0}, "here.rate: expected a number at least 0 and below 1, got 1.0"),
    ({"rate": -0.1}, "here.rate: expected a number at least 0 and below 1, got -0.1"),
    ({"rate": float("nan")}, "here.rate: expected a finite number, got nan"),
    ({"scale": 0}, "here.scale: expected a number above 0, got 0.0"),
    ({"scale": float("inf")}, "here.scale: expected a finite number, got inf"),
    ({"share": 1.5}, "here.share: expected a number at least 0 and at most 1, got 1.5"),
    ({"kind": "fanci"}, "here.kind: expected one of 'plain', 'fancy' (did you mean 'fancy'?), got 'fanci'"),
    ({"kind": 1}, "here.kind: expected one of 'plain', 'fancy', got 1"),
    ({"flag": 1}, "here.flag: expected True or False, got 1"),
    ({"note": 1}, "here.note: expected a string, got 1"),
    ({"sizes": 3}, "here.sizes: expected a sequence, got 3"),
    ({"sizes": [1, "2"]}, "here.sizes[1]: expected an integer, got '2'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED)
def test_invalid_values_raise_one_line(values, message):
    with pytest.raises(UserError) as error:
        build(Example, values, "here")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [3, None, "size", [("size", 3)]])
def test_values_other_than_mappings_raise(values):
    with pytest.raises(UserError, match=r"^here: expected a mapping of keys to values"):
        build(Example, values, "here")


def test_defaults_are_kept_and_exact_values_converted():
    made = build(Example, {"scale": 2, "sizes": [1, 2], "note": "x"}, "here")
    assert made == Example(scale=2.0, sizes=(1, 2), note="x")
    assert type(made.scale) is float


def test_direct_construction_is_checked():
    with pytest.raises(UserError, match=r"^size: expected an integer at least 1, got 0$"):
        Example(size=0)


@pytest.mark.parametrize("key", ["", "a b", "two\nlines", "task.length", 3])
def test_keys_that_are_no_names_are_quoted(key):
    for path, subject in (("model", "model"), ("", "config")):
        with pytest.raises(UserError, match=f"^{subject}: unknown key {re.escape(repr(key))}.*; known are steps$"):
            check_keys({key: 1}, ["steps"], path)
