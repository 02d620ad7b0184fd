"""Covering arrays: few combinations of options that contain every pair of values of any two options."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns combinations chosen greedily: each one has the most pairs of values that are still missing."""
    names = list(options)
    rows = product(*(range(len(options[name])) for name in names))
    pairs = {row: {(a, row[a], b, row[b]) for a, b in combinations(range(len(names)), 2)} for row in rows}
    missing = set().union(*pairs.values())
    chosen = []
    while missing:
        best = max(pairs, key=lambda row: len(pairs[row] & missing))
        chosen.append(best)
        missing -= pairs[best]
    return [{name: options[name][k] for name, k in zip(names, row, strict=True)} for row in chosen]
