"""Dates of a series' rows: read as a file writes them, and continued by the calendar that they follow."""

import calendar
import datetime
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

EPOCH = datetime.datetime(1970, 1, 1)
DAY, HOUR = datetime.timedelta(days=1), datetime.timedelta(hours=1)
CLOCK_CHANGES = (HOUR, HOUR / 2)
SHORTEST_SEASON = datetime.timedelta(weeks=3)
"""Between two changes of the clock: Morocco's last about a month."""

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
"""Digits that are a date in another century are a Unix time."""
FIELDS = {"{quarter}": "(?P<quarter>[1-4])", "{year:04}": r"(?P<year>[0-9]{4})"} | {
    f"{{{name}:02}}": f"(?P<{name}>[0-9]{{2}})" for name in ("month", "day", "week", "hour", "minute", "second")
}
UNIX_UNITS = (1, 10**3, 10**6, 10**9)
UNIX_RANGE = (10**8, 73 * 10**8)
"""From 1973 to 2201, in seconds: what is outside is no Unix time, but a number of another kind."""


class DateError(ValueError):
    """Dates that are malformed, or out of step; the message is one line, and `row` says where."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


class Notation(NamedTuple):
    """A way to write dates.

    Attributes:
      read: raises ValueError where a text is not written so.
      write: the opposite.
    """

    read: Callable[[str], datetime.datetime]
    write: Callable[[datetime.datetime], str]


@dataclass(frozen=True)
class Dates:
    """Evenly spaced dates: by a fixed duration, by calendar months, or from Monday to Friday.

    Attributes:
      first: the date of row 0.
      step: the duration between two rows; zero where `months` or `weekdays` counts.
      months: the calendar months between two rows.
      day: with `months`, the day of the month; in shorter months their last one.
      weekdays: whether rows are the days from Monday to Friday.
      clock: rows from which on dates are so much later than evenly spaced ones, as local days are in universal time
        after a change of the clock; the last one lasts.
      write: a date as text.
    """

    first: datetime.datetime
    step: datetime.timedelta
    months: int = 0
    day: int = 0
    weekdays: bool = False
    clock: tuple[tuple[int, datetime.timedelta], ...] = ()
    write: Callable[[datetime.datetime], str] = str

    def __call__(self, row: int) -> datetime.datetime:
        """Returns the date of a row, also beyond the series' end."""
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
        """Returns the date of a row as the series writes dates."""
        return self.write(self(row))


def read_dates(cells: Sequence[str]) -> Dates:
    """Finds the notation that all cells share, and the calendar that they keep.

    Raises:
      DateError: a cell is no date, or is out of step; the first one of the notation and calendar that last longest.
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
    return _evenly_spaced(dates, best.write)


def _read_while(notation: Notation, cells: Sequence[str]) -> list[datetime.datetime]:
    dates = []
    for cell in cells:
        try:
            dates.append(notation.read(cell))
        except (ValueError, OverflowError):
            break
    return dates


def _evenly_spaced(dates: list[datetime.datetime], write: Callable[[datetime.datetime], str]) -> Dates:
    """Finds the spacing that all rows keep, or names the first row that breaks the one that lasts longest."""
    for row, (before, date) in enumerate(pairwise(dates), 1):
        if (before.tzinfo is None) != (date.tzinfo is None):
            raise DateError(row, f"expected dates all with a time zone or all without, got {write(date)}")
        if date <= before:
            raise DateError(row, f"expected a date after {write(before)} of the row before, got {write(date)}")
    instants = [date.astimezone(dates[0].tzinfo) for date in dates] if dates[0].tzinfo else dates
    spacings = list(_spacings(instants))
    kept = [_kept(spacing, instants) for spacing in spacings]
    longest = max(range(len(spacings)), key=kept.__getitem__)
    if kept[longest] == len(dates):
        return replace(spacings[longest], write=write)
    # Local times whose offset changes are even by the calendar on the wall, or else but for the changes themselves.
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
    advice = "fill in what is missing, or name no date column to count rows instead"
    if abs(got - expected) in CLOCK_CHANGES:
        advice += "; where the clock changed, write dates in UTC or with their offset"
    raise DateError(
        broken,
        f"expected the date {write(expected)}, for the rows before are evenly spaced, got {write(got)}; {advice}",
    )


def _spacings(dates: Sequence[datetime.datetime]) -> Iterator[Dates]:
    """Yields the calendars that the first rows, the most frequent distance and the days of the week suggest."""
    first, second = dates[:2]
    months = (second.year - first.year) * 12 + second.month - first.month
    for day in (first.day, 31) if months else ():
        yield Dates(first, datetime.timedelta(), months, day)
    distances = Counter(date - before for before, date in pairwise(dates))
    for step in dict.fromkeys([second - first, *(step for step, _ in distances.most_common(1))]):
        yield Dates(first, step)
    if all(date.weekday() < 5 for date in dates):
        yield Dates(first, datetime.timedelta(), weekdays=True)


def _kept(spacing: Dates, dates: Sequence[datetime.datetime]) -> int:
    """Returns how many rows, from the first on, have their date by a spacing."""
    return next((row for row, date in enumerate(dates) if spacing(row) != date), len(dates))


def _clock(spacing: Dates, dates: Sequence[datetime.datetime]) -> tuple[tuple[int, datetime.timedelta], ...] | None:
    """Returns the changes of the clock with which all rows keep a spacing, or None where no such explain them.

    The clock is put forward and back by one amount, and a missing row cannot be mistaken for that.
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
    """Returns the notation of one of FORMS."""
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


def _unix(unit: int) -> Notation:
    """Returns the notation of Unix time in so many parts of a second."""

    def read(cell: str) -> datetime.datetime:
        if not re.fullmatch(r"[0-9]{9,19}(\.[0-9]+)?", cell):
            raise ValueError(f"expected a Unix time, got {cell!r}")
        whole, _, fraction = cell.partition(".")
        parts = int(whole) * 10**6 + int((fraction + "000000")[:6])  # in millionths of the unit
        if not UNIX_RANGE[0] <= int(whole) // unit < UNIX_RANGE[1]:
            raise ValueError(f"expected a Unix time, got {cell!r}")
        return EPOCH + datetime.timedelta(microseconds=parts // unit)

    def write(date: datetime.datetime) -> str:
        microseconds = (date - EPOCH) // datetime.timedelta(microseconds=1)
        whole, rest = divmod(microseconds * unit, 10**6)
        return f"{whole}" + (f".{rest:06}".rstrip("0") if rest else "")

    return Notation(read, write)


NOTATIONS = (
    *map(_form, FORMS),
    *map(_unix, UNIX_UNITS),
    Notation(datetime.datetime.fromisoformat, str),
)
"""The first one that reads all cells is a file's own: digits alone are Unix time before they are anything else."""
