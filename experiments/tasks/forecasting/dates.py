"""Dates of the rows of a series: parsing of many notations, inference of the spacing, continuation."""

import calendar
import datetime
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

EPOCH = datetime.datetime(1970, 1, 1)
DAY, HOUR = datetime.timedelta(days=1), datetime.timedelta(hours=1)
CLOCK_CHANGES = (HOUR, HOUR / 2)
SHORTEST_SEASON = datetime.timedelta(weeks=3)
"""The least time between two clock changes; in Morocco it is about a month."""

EXPECTED = (
    "a date such as 2016-07-01 or 2016-07-01 14:00:00, a month such as 2016-07, a quarter such as 2016Q3, a year or a "
    "Unix time"
)
FORMS = (
    "{year:04}-{month:02}-{day:02}",
    *("{year:04}-{month:02}", "{year:04}/{month:02}", "{year:04}M{month:02}", "{year:04}-M{month:02}"),
    *("{year:04}Q{quarter}", "{year:04}-Q{quarter}", "{year:04} Q{quarter}", "{year:04}q{quarter}"),
    *("Q{quarter} {year:04}", "Q{quarter}-{year:04}"),
    *("{year:04}-W{week:02}", "{year:04}W{week:02}"),
    "{year:04}",
    *(f"{{year:04}}{{month:02}}{{day:02}}{time}" for time in ("", "{hour:02}", "{hour:02}{minute:02}")),
    "{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}",
)
COMPACT, COMPACT_YEARS = "{month:02}{day:02}", range(1900, 2100)
"""Digits that would be a date in another century are a Unix time."""
FIELDS = {"{quarter}": "(?P<quarter>[1-4])", "{year:04}": r"(?P<year>[0-9]{4})"} | {
    f"{{{name}:02}}": f"(?P<{name}>[0-9]{{2}})" for name in ("month", "day", "week", "hour", "minute", "second")
}
UNIX_UNITS = (1, 10**3, 10**6, 10**9)
UNIX_RANGE = (10**8, 73 * 10**8)
"""From 1973 to 2201, in seconds. Numbers outside are not Unix times."""


class DateError(ValueError):
    """Malformed or unevenly spaced dates. The message is one line; `row` is the first such row."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


class Notation(NamedTuple):
    """A notation of dates.

    Attributes:
      read: parses a text; raises ValueError for other notations.
      write: formats a date.
    """

    read: Callable[[str], datetime.datetime]
    write: Callable[[datetime.datetime], str]


@dataclass(frozen=True)
class Dates:
    """Evenly spaced dates: by a fixed duration, by calendar months, or from Monday to Friday.

    Attributes:
      first: the date of row 0.
      step: the duration between two rows; zero with `months` or `weekdays`.
      months: the calendar months between two rows; 0 for none.
      day: with `months`, the day of the month, or the last day of shorter months.
      weekdays: whether rows are the days from Monday to Friday.
      clock: (row, shift) of clock changes: from that row on, dates are later by the shift, as local days are in UTC.
      write: formats a date.
    """

    first: datetime.datetime
    step: datetime.timedelta
    months: int = 0
    day: int = 0
    weekdays: bool = False
    clock: tuple[tuple[int, datetime.timedelta], ...] = ()
    write: Callable[[datetime.datetime], str] = str

    def __call__(self, row: int) -> datetime.datetime:
        """Returns the date of a row, also after the end of the series."""
        shift = next((shift for start, shift in reversed(self.clock) if start <= row), datetime.timedelta())
        if self.weekdays:
            weeks, weekday = divmod(self.first.weekday() + row, 5)
            return self.first + datetime.timedelta(weeks=weeks, days=weekday - self.first.weekday()) + shift
        if not self.months:
            return self.first + row * self.step + shift
        year, month = divmod(self.first.year * 12 + self.first.month - 1 + row * self.months, 12)
        day = min(self.day, calendar.monthrange(year, month + 1)[1])
        return self.first.replace(year=year, month=month + 1, day=day) + shift

    def label(self, row: int) -> str:
        """Returns the date of a row in the notation of the series."""
        return self.write(self(row))


def read_dates(cells: Sequence[str]) -> Dates:
    """Infers the notation and the spacing of dates.

    Raises:
      DateError: a cell is not a date or not evenly spaced, by the notation and spacing that fit the most rows.
    """
    best, dates = NOTATIONS[0], []
    for notation in NOTATIONS:
        found = _read_while(notation, cells)
        if len(found) > len(dates):
            best, dates = notation, found
        if len(found) == len(cells):
            break
    if len(dates) < len(cells):
        cell = cells[len(dates)]
        another = dates and any(_read_while(notation, [cell]) for notation in NOTATIONS)
        expected = f"a date written as {cells[0]!r} in the first row" if another else EXPECTED
        raise DateError(len(dates), f"expected {expected}, got {cell!r}")
    return _evenly_spaced(dates, _iso_like(cells[0]) if best is ISO else best.write)


def _read_while(notation: Notation, cells: Sequence[str]) -> list[datetime.datetime]:
    dates = []
    for cell in cells:
        try:
            dates.append(notation.read(cell))
        except (ValueError, OverflowError):
            break
    return dates


def _evenly_spaced(dates: list[datetime.datetime], write: Callable[[datetime.datetime], str]) -> Dates:
    """Returns the spacing that fits all rows. Raises `DateError` at the first row that does not fit the best one."""
    for row, (before, date) in enumerate(itertools.pairwise(dates), 1):
        if (before.tzinfo is None) != (date.tzinfo is None):
            raise DateError(row, f"expected dates all with a time zone or all without, got {write(date)}")
        if date <= before:
            raise DateError(row, f"expected a date after {write(before)}, that of the previous row, got {write(date)}")
    instants = [date.astimezone(dates[0].tzinfo) for date in dates] if dates[0].tzinfo else dates
    spacings = list(_spacings(instants))
    kept = [_kept(spacing, instants) for spacing in spacings]
    longest = max(range(len(spacings)), key=kept.__getitem__)
    if kept[longest] == len(dates):
        return replace(spacings[longest], write=write)
    # Local times with offsets can be evenly spaced as local times, or up to the clock changes.
    walls = [date.replace(tzinfo=None) for date in dates]
    for spacing in _spacings(walls) if instants != walls else ():
        if spacing.step % DAY == datetime.timedelta() and _kept(spacing, walls) == len(dates):
            return replace(spacing, write=write)
    for spacing in spacings:
        clock = _clock(spacing, instants)
        if clock is not None:
            return replace(spacing, clock=clock, write=write)
    broken = kept[longest]
    expected, got = spacings[longest](broken), instants[broken]
    advice = "fill in the missing rows, or give no date column to number the rows"
    if abs(got - expected) in CLOCK_CHANGES:
        advice += "; write dates across clock changes in UTC or with their offset"
    raise DateError(
        broken,
        f"expected the date {write(expected)}, evenly spaced as the rows before, got {write(got)}; {advice}",
    )


def _spacings(dates: Sequence[datetime.datetime]) -> Iterator[Dates]:
    """Yields candidate spacings, from the first rows, the most frequent distance and the weekdays."""
    first, second = dates[:2]
    months = (second.year - first.year) * 12 + second.month - first.month
    for day in (first.day, 31) if months else ():
        yield Dates(first, datetime.timedelta(), months, day)
    distances = Counter(date - before for before, date in itertools.pairwise(dates))
    for step in dict.fromkeys([second - first, *(step for step, _ in distances.most_common(1))]):
        yield Dates(first, step)
    if all(date.weekday() < 5 for date in dates):
        yield Dates(first, datetime.timedelta(), weekdays=True)


def _kept(spacing: Dates, dates: Sequence[datetime.datetime]) -> int:
    """Returns the number of rows, from the first one, that fit a spacing."""
    return next((row for row, date in enumerate(dates) if spacing(row) != date), len(dates))


def _clock(spacing: Dates, dates: Sequence[datetime.datetime]) -> tuple[tuple[int, datetime.timedelta], ...] | None:
    """Returns the clock changes with which all rows fit a spacing; None if there are none.

    A clock change is one fixed amount, forward and back, and shorter than a missing row.
    """
    none = datetime.timedelta()
    changes: list[tuple[int, datetime.timedelta]] = []
    shift, other, changed = none, None, None
    for row, date in enumerate(dates):
        now = date - spacing(row)
        if now == shift:
            continue
        other = now if other is None else other
        if now not in (none, other) or abs(other) not in CLOCK_CHANGES or none < spacing.step <= abs(other):
            return None
        if changed is not None and date - changed < SHORTEST_SEASON:
            return None
        shift, changed = now, date
        changes.append((row, now))
    return tuple(changes)


def _form(form: str) -> Notation:
    """Returns the notation of an element of FORMS."""
    pattern = form
    for field, group in FIELDS.items():
        pattern = pattern.replace(field, group)

    def read(cell: str) -> datetime.datetime:
        match = re.fullmatch(pattern, cell)
        if match is None:
            raise ValueError(f"expected {form}, got {cell!r}")
        found = {name: int(value) for name, value in match.groupdict().items()}
        year = found["year"]
        if COMPACT in form and year not in COMPACT_YEARS:
            raise ValueError(f"expected a year from 1900 to 2099, got {cell!r}")
        if "week" in found:
            return datetime.datetime.fromisocalendar(year, found["week"], 1)
        month = found.get("month", 3 * found.get("quarter", 1) - 2)
        hour, minute, second = (found.get(name, 0) for name in ("hour", "minute", "second"))
        return datetime.datetime(year, month, found.get("day", 1), hour, minute, second)

    def write(date: datetime.datetime) -> str:
        year, week, _ = date.isocalendar() if "week" in form else (date.year, 0, 0)
        fields = {name: getattr(date, name) for name in ("month", "day", "hour", "minute", "second")}
        return form.format(year=year, week=week, quarter=(date.month + 2) // 3, **fields)

    return Notation(read, write)


def _iso_like(cell: str) -> Callable[[datetime.datetime], str]:
    """Returns how to write dates as an ISO date with a time is written, such as 2016-07-01T14:00Z."""

    def with_parts(separator: str, parts: str, zone: str) -> Callable[[datetime.datetime], str]:
        return lambda date: date.isoformat(separator, parts).replace("+00:00", zone)

    forms = itertools.product("T ", ("minutes", "seconds", "hours", "milliseconds", "microseconds"), ("+00:00", "Z"))
    date = datetime.datetime.fromisoformat(cell)
    return next((write for write in itertools.starmap(with_parts, forms) if write(date) == cell), str)


def _unix(unit: int) -> Notation:
    """Returns the notation of Unix time in units of 1 / `unit` seconds."""

    def read(cell: str) -> datetime.datetime:
        if not re.fullmatch(r"[0-9]{9,19}(\.[0-9]+)?", cell):
            raise ValueError(f"expected a Unix time, got {cell!r}")
        whole, _, fraction = cell.partition(".")
        parts = int(whole) * 10**6 + int((fraction + "000000")[:6])  # in 1e-6 units
        if not UNIX_RANGE[0] <= int(whole) // unit < UNIX_RANGE[1]:
            raise ValueError(f"expected a Unix time, got {cell!r}")
        return EPOCH + datetime.timedelta(microseconds=parts // unit)

    def write(date: datetime.datetime) -> str:
        microseconds = (date - EPOCH) // datetime.timedelta(microseconds=1)
        whole, rest = divmod(microseconds * unit, 10**6)
        return f"{whole}" + (f".{rest:06}".rstrip("0") if rest else "")

    return Notation(read, write)


ISO = Notation(datetime.datetime.fromisoformat, str)
NOTATIONS = (
    *map(_form, FORMS),
    *map(_unix, UNIX_UNITS),
    ISO,
)
"""In order of precedence. Digits alone are dates before they are Unix times."""
