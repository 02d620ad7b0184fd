"""Continuation of dates against NumPy's calendar and the time zone database."""

import datetime
import zoneinfo

import numpy as np
import pytest

from experiments.tasks.forecasting.dates import DateError, Dates, read_dates

BERLIN = "Europe/Berlin"


def continued(cells, count):
    dates = read_dates(cells)
    assert [dates.label(row) for row in range(len(cells))] == list(cells)
    return [dates.label(len(cells) + row) for row in range(count)]


@pytest.mark.parametrize(
    ("cells", "later"),
    [
        ("2021-10 2021-11 2021-12", "2022-01 2022-02"),
        ("2021M11 2021M12", "2022M01 2022M02"),
        ("2021-M11 2021-M12", "2022-M01 2022-M02"),
        ("2021/07 2021/10", "2022/01 2022/04"),
        ("2021Q3 2021Q4", "2022Q1 2022Q2"),
        ("2021-Q3 2021-Q4", "2022-Q1 2022-Q2"),
        ("2021q1 2021q3", "2022q1 2022q3"),
        ("1999 2000 2001", "2002 2003"),
        ("1990 2000", "2010 2020"),
        ("2020-W52 2020-W53 2021-W01", "2021-W02 2021-W03"),
        ("2021-04-30 2021-05-31 2021-06-30", "2021-07-31 2021-08-31"),
        ("2021-02-27 2021-02-28", "2021-03-01 2021-03-02"),
        ("202102271800 202102272100", "202102280000 202102280300"),
        ("20210227235958 20210227235959", "20210228000000 20210228000001"),
        ("20210227 20210228", "20210301 20210302"),
        ("2021022722 2021022723", "2021022800 2021022801"),
        ("1012010100 1012010101", "1012010102 1012010103"),
        ("1614470400 1614474000", "1614477600 1614481200"),
        ("1614470400000 1614470400500", "1614470401000 1614470401500"),
        ("1614470400000000 1614470400000001", "1614470400000002 1614470400000003"),
        ("1614470400000000000 1614470401000000000", "1614470402000000000 1614470403000000000"),
        ("2021-02-28T22:30 2021-02-28T23:30", "2021-03-01T00:30 2021-03-01T01:30"),
        ("2021-02-28T23:00:00Z 2021-02-28T23:30:00Z", "2021-03-01T00:00:00Z 2021-03-01T00:30:00Z"),
        ("2021-02-28T23:00+01:00 2021-02-28T23:30+01:00", "2021-03-01T00:00+01:00 2021-03-01T00:30+01:00"),
        ("2021-02-28T23:59:59.000 2021-02-28T23:59:59.500", "2021-03-01T00:00:00.000 2021-03-01T00:00:00.500"),
        ("1614470400.25 1614470400.5", "1614470400.75 1614470401"),
        ("315532800 315619200", "315705600 315792000"),
    ],
)
def test_dates_continue_in_their_notation(cells, later):
    assert continued(cells.split(), 2) == later.split()


def test_notations_with_spaces():
    assert continued(["2021 Q3", "2021 Q4"], 1) == ["2022 Q1"]
    assert continued(["Q3 2021", "Q4 2021"], 1) == ["Q1 2022"]
    assert continued(["2021-05-01 12:00", "2021-06-01 12:00"], 1) == ["2021-07-01 12:00"]
    assert continued(["2021-05-01 12:00:00", "2021-06-01 12:00:00"], 1) == ["2021-07-01 12:00:00"]


@pytest.mark.parametrize("start", ["2021-05-06", "2021-05-07", "2021-05-03"])
def test_weekdays_skip_weekends(start):
    days = np.busday_offset(start, np.arange(40)).astype(str).tolist()
    assert continued(days[:20], 20) == days[20:]
    assert continued([f"{day} 17:30:00" for day in days[:20]], 1) == [f"{days[20]} 17:30:00"]


def test_days_and_months_equal_numpy():
    days = (np.datetime64("2023-12-25") + np.arange(90)).astype(str).tolist()
    months = (np.datetime64("2023-11") + np.arange(30)).astype(str).tolist()
    assert continued(days[:10], 80) == days[10:]
    assert continued(months[:5], 25) == months[5:]


def midnights(first, count, zone=BERLIN):
    """Returns the local midnights of consecutive days in a time zone."""
    try:
        place = zoneinfo.ZoneInfo(zone)
    except zoneinfo.ZoneInfoNotFoundError:
        pytest.skip("needs the system's database of time zones")
    start = datetime.date.fromisoformat(first)
    days = [start + datetime.timedelta(days=day) for day in range(count)]
    return [datetime.datetime.combine(day, datetime.time(), place) for day in days]


@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "Asia/Tokyo"])
@pytest.mark.parametrize("first", ["2021-03-27", "2021-03-28", "2020-10-20"])
def test_local_midnights_across_clock_changes(zone, first):
    found = midnights(first, 420, zone)
    utc = [moment.astimezone(datetime.UTC).replace(tzinfo=None) for moment in found]
    unix = [str(int(moment.timestamp())) for moment in found]
    days = [moment.strftime("%Y-%m-%d 00:00:00") for moment in found]
    assert continued([str(moment) for moment in utc[:-1]], 1) == [str(utc[-1])]
    assert continued(unix[:-1], 1) == [unix[-1]]
    dates = read_dates([str(moment) for moment in found[:-1]])
    assert [str(dates(row).replace(tzinfo=None)) for row in range(420)] == days


def test_local_months_and_hours_across_clock_changes():
    months = [moment for moment in midnights("2021-01-01", 400) if moment.day == 1]
    utc = [str(moment.astimezone(datetime.UTC).replace(tzinfo=None)) for moment in months]
    assert utc[2:4] == ["2021-02-28 23:00:00", "2021-03-31 22:00:00"]
    assert continued(utc[:-1], 1) == [utc[-1]]
    first = midnights("2021-03-27", 1)[0].astimezone(datetime.UTC)
    hours = [first + datetime.timedelta(hours=hour) for hour in range(80)]
    local = [str(hour.astimezone(zoneinfo.ZoneInfo(BERLIN))) for hour in hours]
    assert local[27][-6:] == "+02:00"
    assert [read_dates(local)(row) for row in range(80)] == hours


@pytest.mark.parametrize(
    ("cells", "row", "message"),
    [
        ("2021-01 2021-02 2021-04", 2, "expected the date 2021-03, evenly spaced as the rows before, got 2021-04"),
        ("2021Q1 2021Q2 2021Q4", 2, "expected the date 2021Q3, "),
        ("2021-05-06 2021-05-07 2021-05-10 2021-05-12", 3, "expected the date 2021-05-11, "),
        ("2021-01-01 2021-01-02 2021-01-04 2021-01-05", 2, "expected the date 2021-01-03, "),
        ("1614470400 1614474000 1614481200", 2, "expected the date 1614477600, "),
        ("2021-05 2021-06-01", 1, "expected a date written as '2021-05' in the first row, got '2021-06-01'"),
        ("2021-13 2021-14", 0, "expected a date such as 2016-07-01 or 2016-07-01 14:00:00, a month such as 2016-07, a"),
        ("0 3600 7200", 0, "expected a date such as"),
        ("20211301 20211302", 0, "expected a date such as"),
        ("2021Q5 2021Q6", 0, "expected a date such as"),
        ("1614470400 1614470400", 1, "expected a date after 1614470400, that of the previous row, got 1614470400"),
    ],
)
def test_first_invalid_or_unevenly_spaced_date_is_reported(cells, row, message):
    with pytest.raises(DateError) as caught:
        read_dates(cells.split())
    assert caught.value.row == row
    assert str(caught.value).startswith(message)


def test_uneven_spacing_without_a_clock_change_raises():
    # One day is off by an hour, or the clock is set back after a week, although seasons are longer.
    days = [f"2021-03-{day:02} 23:00:00" for day in range(1, 28)]
    for wrong in ([5], range(5, 12)):
        cells = [day.replace(" 23:", " 22:") if place in wrong else day for place, day in enumerate(days)]
        with pytest.raises(DateError, match=r"expected the date 2021-03-06 23:00:00"):
            read_dates(cells)
    hours = ["2021-03-28 00:00:00", "2021-03-28 01:00:00", "2021-03-28 03:00:00", "2021-03-28 04:00:00"]
    with pytest.raises(DateError, match=r"write dates across clock changes in UTC or with their offset"):
        read_dates(hours)
    with pytest.raises(DateError, match=r"expected the date 2021-03-28 04:00:00"):
        read_dates(["2021-03-28 00:00:00", "2021-03-28 02:00:00", "2021-03-28 05:00:00", "2021-03-28 09:00:00"])


def test_dates_by_month_keep_the_time_of_day():
    dates = Dates(datetime.datetime(2020, 11, 30, 6), datetime.timedelta(), months=1, day=31)
    assert [str(dates(row)) for row in (1, 2, 3)] == [
        "2020-12-31 06:00:00",
        "2021-01-31 06:00:00",
        "2021-02-28 06:00:00",
    ]
