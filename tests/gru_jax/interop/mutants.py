"""Damaged files: random changes of an intact file, reproducible from a seed."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np


def mutants(contents: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields `count` damaged contents, each with one to three random changes."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = contents
        for _ in range(rng.integers(1, 4)):
            mutant = CHANGES[rng.integers(len(CHANGES))](mutant, rng)
        yield mutant


def message_mutants(message: Any, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields `count` serialized, well-formed copies of a protocol buffer with one or two fields changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = type(message).FromString(message.SerializeToString())
        for _ in range(rng.integers(1, 3)):
            _change_a_field(mutant, rng)
        yield mutant.SerializeToString()


def json_mutants(tree: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Yields `count` copies of a JSON value with one or two inner values removed or replaced."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = json.loads(json.dumps(tree))
        for _ in range(rng.integers(1, 3)):
            places = list(_places(mutant)) or [({}, "")]
            owner, key = places[rng.integers(len(places))]
            change = rng.integers(4)
            if change == 0 and isinstance(owner, dict):
                owner.pop(key, None)
            elif change == 1 and isinstance(owner, dict) and key in owner:
                owner[f"{key}\n"] = owner.pop(key)
            else:
                owner[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
        yield mutant


def tree_mutants(tree: Any, count: int, seed: int = 0) -> Iterator[Any]:
    """Yields `count` copies of nested dicts and lists of arrays, with arrays removed, renamed or changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = _copied(tree)
        for _ in range(rng.integers(1, 3)):
            places = list(_places(mutant))
            owner, key = places[rng.integers(len(places))]
            change = rng.integers(5)
            if change == 0:
                del owner[key]
            elif change == 1 and isinstance(owner, dict):
                owner[key + ("_1", "_l1", "x")[rng.integers(3)]] = owner.pop(key)
            elif hasattr(owner[key], "ndim"):
                owner[key] = ODD_ARRAYS[rng.integers(len(ODD_ARRAYS))](np.asarray(owner[key]))
            else:
                owner[key] = ODD_VALUES[rng.integers(len(ODD_VALUES))]
            if not mutant:
                break
        yield mutant


def flip_a_bit(contents: bytes, rng: np.random.Generator) -> bytes:
    at, bit = _place(contents, rng), 1 << int(rng.integers(8))
    return contents[:at] + bytes([contents[at] ^ bit]) + contents[at + 1 :] if contents else contents


def overwrite(contents: bytes, rng: np.random.Generator) -> bytes:
    at, new = _place(contents, rng), rng.bytes(int(rng.integers(1, 9)))
    return contents[:at] + new + contents[at + len(new) :]


def insert(contents: bytes, rng: np.random.Generator) -> bytes:
    at = _place(contents, rng)
    return contents[:at] + rng.bytes(int(rng.integers(1, 9))) + contents[at:]


def take_out(contents: bytes, rng: np.random.Generator) -> bytes:
    at = _place(contents, rng)
    return contents[:at] + contents[at + int(rng.integers(1, 33)) :]


def repeat(contents: bytes, rng: np.random.Generator) -> bytes:
    at = _place(contents, rng)
    return contents[:at] + contents[at : at + int(rng.integers(1, 65))] + contents[at:]


def cut_off(contents: bytes, rng: np.random.Generator) -> bytes:
    return contents[: _place(contents, rng)]


def _fields(message: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every field that is set in a message and its inner messages, with its message."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == field.TYPE_MESSAGE:
            for inside in value if field.is_repeated else [value]:
                yield from _fields(inside)


def _change_a_field(message: Any, rng: np.random.Generator) -> None:
    """Removes a random field, repeats an entry of it, or changes its value."""
    fields = list(_fields(message))
    owner, field = fields[rng.integers(len(fields))]
    value, change = getattr(owner, field.name), rng.integers(6)
    if field.is_repeated:
        at = int(rng.integers(len(value)))
        if change == 0:
            del value[at]
        elif change == 1 or field.type == field.TYPE_MESSAGE:
            value.append(value[at])
        else:
            value[at] = _other(value[at], rng)
    elif change == 0 or field.type == field.TYPE_MESSAGE:
        owner.ClearField(field.name)
    elif field.type == field.TYPE_ENUM:
        setattr(owner, field.name, int(rng.choice(sorted(field.enum_type.values_by_number))))
    else:
        setattr(owner, field.name, _other(value, rng))


def _other(value: Any, rng: np.random.Generator) -> Any:
    """Returns another value of the same type."""
    if isinstance(value, bytes):
        return CHANGES[rng.integers(len(CHANGES))](value, rng)
    if isinstance(value, str):
        return ("", "xs", "Y_0", value[:-1], value + "\n")[rng.integers(5)]
    if isinstance(value, float):
        return (0.0, -1.5, float("nan"), float("inf"))[rng.integers(4)]
    return int((0, 1, -1, 2, 3, 100, 2**31 - 1)[rng.integers(7)])


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the dict or list and the key of every entry of nested dicts and lists."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def _copied(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copied(child) for key, child in tree.items()}
    return [_copied(child) for child in tree] if isinstance(tree, list) else tree


def _place(contents: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(max(len(contents), 1)))


ODD_VALUES = (None, True, 0, 3, -1, 2**70, 1.5, float("nan"), "", "GRU", "LSTM", "after", "F16", "BF16", [], [2], {})
ODD_ARRAYS = (
    lambda a: None,
    lambda a: a.tolist(),
    lambda a: {"kernel": a},
    np.transpose,
    np.ravel,
    lambda a: a[None],
    lambda a: a[:-1],
    lambda a: a[..., :-1],
    lambda a: np.concatenate([a, a]),
    lambda a: a[:0],
    lambda a: a.astype(np.int32),
    lambda a: a.astype(np.float16),
    lambda a: a.astype(np.complex64),
    lambda a: a.astype(object),
    lambda a: a.astype(str),
)
CHANGES = (flip_a_bit, overwrite, insert, take_out, repeat, cut_off)
