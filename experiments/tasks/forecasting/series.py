"""Time series: reading from CSV with errors that have file and line, scaling, windows.

Axes: N rows (times) of the series, V variables, B windows, T input rows, K forecast rows.
"""

import csv
import gzip
import io
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.schema import UserError, nearest
from experiments.tasks.forecasting.dates import DateError, Dates, read_dates
from experiments.tasks.text.corpus import decode

LARGEST = 1e150
"""Larger numbers overflow in the squares of a standard deviation."""

MISSING = {"", "na", "n/a", "nan", "nil", "none", "null", "-", "?"}


class MissingColumnError(UserError):
    """A CSV file lacks a column. `is_date` tells whether it is the one of the dates."""

    def __init__(self, place: str, name: str, header: Sequence[str], is_date: bool):
        what = "date column" if is_date else "column"
        super().__init__(
            f"{place}: expected a {what} {name!r} in the header{nearest(name, header)}, got {', '.join(header)}"
        )
        self.is_date = is_date


@dataclass(frozen=True, eq=False)
class Series:
    """A time series.

    Attributes:
      values: float64 (N, V).
      columns: the names of the V variables.
      dates: the dates of the rows; None for numbered rows.
    """

    values: np.ndarray
    columns: tuple[str, ...]
    dates: Dates | None = None

    def label(self, row: int) -> str:
        """Returns the date of a row, or its number if there are no dates."""
        return str(row) if self.dates is None else self.dates.label(row)


@dataclass(frozen=True, eq=False)
class Scaling:
    """`scaled = (values - shift) / scale` for each variable.

    Attributes:
      shift, scale: float64 (V,).
    """

    shift: np.ndarray
    scale: np.ndarray

    @classmethod
    def standard(cls, values: np.ndarray) -> "Scaling":
        """Returns the scaling to mean 0 and standard deviation 1 over values (N, V); constants keep their scale."""
        span = np.ptp(values, axis=0)
        deviation = values.std(axis=0)  # can be nonzero for a constant, since its mean is rounded; and 0 by underflow
        return cls(values.mean(axis=0), np.where(span > 0, np.where(deviation > 0, deviation, span), 1.0))

    @classmethod
    def largest(cls, values: np.ndarray) -> "Scaling":
        """Returns the scaling to a largest magnitude of 1 over values (N, V); zeros stay zero."""
        largest = np.abs(values).max(axis=0)
        return cls(np.zeros_like(largest), np.where(largest > 0, largest, 1.0))

    def forward(self, values: np.ndarray) -> np.ndarray:
        """Scales values (..., V)."""
        return (values - self.shift) / self.scale

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Restores the units of scaled values (..., V)."""
        return scaled * self.scale + self.shift


def windows(values: Any, origins: np.ndarray, window: int, horizon: int) -> tuple[Any, Any]:
    """Returns the inputs and targets of windows.

    Args:
      values: (N, V), a NumPy or JAX array.
      origins: (B,) int, the first forecast row of each window.
      window: T.
      horizon: K.

    Returns:
      inputs (B, T, V), rows origin - T .. origin - 1, and targets (B, K, V), rows origin .. origin + K - 1.
    """
    return values[origins[:, None] + np.arange(-window, 0)], values[origins[:, None] + np.arange(horizon)]


def read_csv(path: str | os.PathLike[str], columns: Sequence[str] = (), date_column: str = "date") -> Series:
    """Reads a series from a CSV file with a header.

    Args:
      path: UTF-8 text, cells separated by commas.
      columns: the columns to read, in this order; empty for all but the dates. Other columns are ignored.
      date_column: a column of evenly spaced dates: ISO (2016-07-01, 2016-07-01 14:00:00), months (2016-07), quarters
        (2016Q3), years or Unix times; also weekdays, and local times with clock changes. Empty for numbered rows. If
        there is no column "date", an unnamed first column has the dates or row numbers.

    Raises:
      UserError: the file or a column is missing, or a value or date is missing, malformed or unevenly spaced.
    """
    rows = _rows(path)
    try:
        line, header = next(rows)
    except StopIteration:
        raise UserError(f"{path}: expected a header and rows of numbers, got an empty file") from None
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise UserError(f"{path}:{line}: expected cells separated by commas, got {header[0]!r}")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise UserError(f"{path}:{line}: expected each column once, got {twice!r} twice")
    date_place = _date_place(header, date_column)
    for name in (date_column, *columns) if date_place is None else columns:
        if name and name not in header:
            raise MissingColumnError(f"{path}:{line}", name, header, name == date_column)
    columns = tuple(columns) or tuple(name for place, name in enumerate(header) if name and place != date_place)
    if not columns:
        raise UserError(f"{path}:{line}: expected a column of numbers, got only {', '.join(map(repr, header))}")
    places = [header.index(name) for name in columns]
    lines, dates, values = [], [], []
    for line, cells in rows:
        if len(cells) != len(header):
            raise UserError(f"{path}:{line}: expected {len(header)} cells as in the header, got {len(cells)}")
        lines.append(line)
        values.append([_number(cells[p], f"{path}:{line}", header[p]) for p in places])
        if date_place is not None:
            dates.append(cells[date_place])
    if len(values) < 2:
        raise UserError(f"{path}: expected at least 2 rows of numbers, got {len(values)}")
    if date_place is None or (header[date_place] == "" and _counts(dates)):
        return Series(np.array(values), columns)
    try:
        return Series(np.array(values), columns, read_dates(dates))
    except DateError as error:
        name = header[date_place] or date_column
        raise UserError(f"{path}:{lines[error.row]}: column {name!r}: {error}") from None


def read_table(path: str | os.PathLike[str], columns: Sequence[str]) -> Series:
    """Reads a gzipped table of numbers separated by commas, without header and dates, with names `columns`."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        values = np.loadtxt(file, delimiter=",", ndmin=2)
    if values.shape[1] != len(columns):
        raise UserError(f"{path}: expected {len(columns)} columns, got {values.shape[1]}")
    return Series(values, tuple(columns))


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yields the line number and the stripped cells of every row that is not blank."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: expected a readable CSV file ({error.strerror})") from None
    reader = csv.reader(io.StringIO(decode(data, os.fspath(path)), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: expected a row of CSV ({error})") from None


def _date_place(header: Sequence[str], name: str) -> int | None:
    """Returns the index of the date column: the one with that name or, for "date", an unnamed first one."""
    if name and name in header:
        return list(header).index(name)
    return 0 if name == "date" and header[0] == "" else None


def _counts(cells: Sequence[str]) -> bool:
    """Returns whether cells are row numbers from 0 or 1."""
    return any(list(cells) == [str(start + row) for row in range(len(cells))] for start in (0, 1))


def _number(cell: str, where: str, column: str) -> float:
    if cell.lower() in MISSING:
        raise UserError(f"{where}: expected a number in column {column!r}, got the missing value {cell!r}; fill it in")
    try:
        value = float(cell.replace("_", "?"))  # Python reads 1_000 as 1000
    except ValueError:
        raise UserError(f"{where}: expected a number in column {column!r}, got {cell!r}") from None
    if not math.isfinite(value):
        raise UserError(f"{where}: expected a finite number in column {column!r}, got {cell!r}")
    if abs(value) > LARGEST:
        raise UserError(f"{where}: expected a number of at most {LARGEST:g} in column {column!r}, got {cell!r}")
    return value
