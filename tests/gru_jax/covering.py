"""Covering arrays: few combinations of options that contain every pair of values of any two options."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any


def pairwise(options: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Returns combinations that contain every pair of values of any two options.

    Each one starts from a pair that is still missing. The values of the other options are chosen in turn such that they
    form the most missing pairs with those already chosen.
    """
    sizes = [len(values) for values in options.values()]
    columns = combinations(range(len(sizes)), 2)
    missing = {((a, i), (b, j)) for a, b in columns for i, j in product(range(sizes[a]), range(sizes[b]))}
    chosen = []
    while missing:
        row = dict(min(missing))
        for column in sorted(set(range(len(sizes))) - set(row)):
            row[column] = max(
                range(sizes[column]),
                key=lambda value: sum(tuple(sorted(((column, value), at))) in missing for at in row.items()),
            )
        missing -= set(combinations(sorted(row.items()), 2))
        chosen.append([row[column] for column in range(len(sizes))])
    return [{name: options[name][k] for name, k in zip(options, row, strict=True)} for row in chosen]
