"""Typed configuration: frozen dataclasses that check the types and ranges of their fields, and `UserError`.

A config is a dataclass that extends `Checked`. The annotations of its fields are their types and ranges:

    @dataclasses.dataclass(frozen=True)
    class TrainConfig(Checked):
        steps: Count = 1000
        schedule: Literal["constant", "cosine"] = "constant"

        def check(self):
            require("steps", self.steps % 10 == 0, "a multiple of 10", self.steps)

`build` makes one from a mapping, and suggests the nearest known key for an unknown one.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar

ConfigType = TypeVar("ConfigType", bound="Checked")


class UserError(Exception):
    """An error with a one-line message for the user. Commands print it without a traceback."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, including each bound unless it is open."""

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.low_open else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.high_open else 'at most'} {self.high:g}"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, high_open=True)]


class Checked:
    """Base class of config dataclasses. Construction checks the types and ranges of all fields."""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self), include_extras=True)
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = _accept(field.name, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
        self.check()

    def check(self) -> None:
        """Checks values against each other, with `require`. Subclasses override it."""


def require(name: str, condition: bool, expected: str, value: Any) -> None:
    """Raises a `UserError`, "name: expected X, got Y", unless `condition` is true."""
    if not condition:
        raise UserError(f"{name}: expected {expected}, got {value!r}")


def build(config_type: type[ConfigType], values: Any, path: str) -> ConfigType:
    """Makes a config from a mapping of its fields.

    Args:
      config_type: a dataclass that extends `Checked`.
      values: a mapping from field names to plain values. Missing fields have their defaults.
      path: key of the mapping in the whole config, for messages: "model".

    Raises:
      UserError: an unknown key, a wrong type, or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{path}: expected a mapping of keys to values, got {values!r}")
    known = [field.name for field in dataclasses.fields(config_type)]  # type: ignore[arg-type]
    check_keys(values, known, path)
    try:
        return config_type(**values)
    except UserError as error:
        raise UserError(f"{path}.{error}") from None


def check_keys(values: Mapping[str, Any], known: Iterable[str], path: str) -> None:
    """Raises a `UserError` for the first unknown key, with the nearest known one."""
    known = list(known)
    for key in values:
        if key in known:
            continue
        if str(key).isidentifier():
            subject = f"{f'{path}.' if path else ''}{key}: unknown key"
        else:  # an empty name, or one with a line end, is quoted
            subject = f"{path or 'config'}: unknown key {key!r}"
        raise UserError(f"{subject}{nearest(str(key), known)}; known are {', '.join(known)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" if one of `known` is similar, else an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def _accept(name: str, hint: Any, value: Any) -> Any:
    """Returns `value` converted to the type of its field, or raises a `UserError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = _accept(name, arguments[0], value)
        for constraint in arguments[1:]:
            require(name, value in constraint, f"{_article(arguments[0])} {constraint}", value)
        return value
    if origin is Literal:
        known = ", ".join(map(repr, arguments))
        near = nearest(value, [a for a in arguments if isinstance(a, str)]) if isinstance(value, str) else ""
        accepted = any(type(value) is type(a) and value == a for a in arguments)
        require(name, accepted, f"one of {known}{near}", value)
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        (inner,) = [a for a in arguments if a is not type(None)]
        return _accept(name, inner, value)
    if origin is tuple:
        require(name, isinstance(value, (tuple, list)), "a sequence", value)
        return tuple(_accept(f"{name}[{i}]", arguments[0], v) for i, v in enumerate(value))
    if origin is Mapping:
        require(name, isinstance(value, Mapping), "a mapping of keys to values", value)
        return dict(value)
    if hint is float and type(value) is int:
        value = float(value)
    require(name, type(value) is hint, _article(hint), value)
    if hint is int:
        require(name, -(2**31) <= value < 2**31, "an integer of 32 bits", value)
    if hint is float:
        require(name, math.isfinite(value), "a finite number", value)
    return value


def _article(hint: Any) -> str:
    return {int: "an integer", float: "a number", str: "a string", bool: "True or False"}.get(hint, str(hint))
