"""Reading of series, errors of invalid files, windows and scalings."""

import gzip
import re

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.schema import UserError
from experiments.tasks.forecasting.series import Scaling, read_csv, read_table, windows

GOOD = """date,load,OT,note
2016-07-01 00:00:00,1.5,30,a
2016-07-01 01:00:00, -2e1 ,31,
2016-07-01 02:00:00,0,32,c
"""


def write(tmp_path, text, name="mine.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_columns_have_the_requested_order(tmp_path):
    series = read_csv(write(tmp_path, "\ufeff" + GOOD.replace("\n", "\r\n") + "\r\n"), ("OT", "load"))
    assert series.columns == ("OT", "load")
    np.testing.assert_array_equal(series.values, [[30, 1.5], [31, -20], [32, 0]])
    assert series.label(2) == "2016-07-01 02:00:00"
    assert series.label(24) == "2016-07-02 00:00:00"


def test_all_columns_but_the_dates_are_read(tmp_path):
    path = write(tmp_path, GOOD.replace(",note", ",n").replace(",a", ",1").replace("31,", "31,2").replace(",c", ",3"))
    assert read_csv(path).columns == ("load", "OT", "n")
    counted = read_csv(path, ("OT",), date_column="")
    assert counted.dates is None
    assert counted.label(3) == "3"


@pytest.mark.parametrize(
    ("dates", "later"),
    [
        (["2020-01-31", "2020-02-29", "2020-03-31", "2020-04-30"], "2020-05-31"),
        (["2021-02-28", "2021-03-31", "2021-04-30"], "2021-05-31"),
        (["2021-02-01", "2021-03-01", "2021-04-01"], "2021-05-01"),
        (["2021-02-01", "2021-03-01", "2021-03-29"], "2021-04-26"),
        (["2019-12-31", "2020-12-31", "2021-12-31"], "2022-12-31"),
        (["2021-01-04", "2021-01-11", "2021-01-18"], "2021-01-25"),
    ],
)
def test_spacings_are_durations_or_calendar_months(tmp_path, dates, later):
    path = write(tmp_path, "date,x\n" + "".join(f"{date},1\n" for date in dates))
    assert read_csv(path).label(len(dates)) == later


SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"


def test_quoted_line_breaks_do_not_end_rows(tmp_path):
    text = f'date,x,note\r2016-07-01,1,a{SEPARATORS}b\n2016-07-02,2,"c\r\nd\n"\r\n2016-07-03,3,{SEPARATORS}\n'
    series = read_csv(write(tmp_path, text), ("x",))
    np.testing.assert_array_equal(series.values, [[1], [2], [3]])
    named = read_csv(write(tmp_path, f'"a{SEPARATORS}b"\n1\n2\n'), date_column="")
    assert named.columns == (f"a{SEPARATORS}b",)
    with pytest.raises(UserError, match=r"mine.csv:6: expected a number in column 'x', got 'z'"):
        read_csv(write(tmp_path, text.replace(",3,", ",z,").replace("\r2016", "\n2016")), ("x",))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (",a,b\n2021-05-30,1,2\n2021-05-31,3,4\n", ["2021-05-30", "2021-06-01"]),
        (",a,b\n2021-11,1,2\n2021-12,3,4\n", ["2021-11", "2022-01"]),
        (",a,b\n0,1,2\n1,3,4\n", ["0", "2"]),
        (",a,b\n1,1,2\n2,3,4\n", ["0", "2"]),
        ("date,a,b,\n2021,1,2,\n2022,3,4,\n", ["2021", "2023"]),
    ],
)
def test_unnamed_first_column_is_dates_or_row_numbers(tmp_path, text, labels):
    series = read_csv(write(tmp_path, text))
    assert series.columns == ("a", "b")
    np.testing.assert_array_equal(series.values, [[1, 2], [3, 4]])
    assert [series.label(0), series.label(2)] == labels
    assert read_csv(write(tmp_path, text), ("b",), date_column="").label(2) == "2"


def test_values_keep_float64_precision(tmp_path):
    values = [1e9 + 10, 1e9 + 10.25, 0.1 + 0.2, 1e-300, 123456789.12345679]
    series = read_csv(write(tmp_path, "x\n" + "".join(f"{value!r}\n" for value in values)), date_column="")
    assert series.values[:, 0].tolist() == values


def test_scaling_of_values_whose_squares_underflow_is_their_span():
    scaling = Scaling.standard(1e-299 * np.array([[2.0], [3.0], [5.0]]))
    np.testing.assert_allclose(scaling.scale, 3e-299, rtol=1e-12)


def test_scaling_a_constant_subtracts_its_mean():
    scaling = Scaling.standard(np.full((60, 1), 0.1))  # its mean and deviation are rounded
    np.testing.assert_array_equal(scaling.scale, 1.0)
    np.testing.assert_allclose(scaling.forward(np.full((1, 1), 0.2)), 0.1)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", (), "mine.csv: expected a header and rows of numbers, got an empty file"),
        ("date,x\n2016-07-01,1\n", (), "mine.csv: expected at least 2 rows of numbers, got 1"),
        (b"date,x\n2016-07-01,1\n2016-07-02,\xff\n", (), "mine.csv:3: expected UTF-8 text, got byte 0xff"),
        ('date,x\n2016-07-01,"1"2\n', (), "mine.csv:2: expected a row of CSV (',' expected after '\"')"),
        ("date;x\n2016-07-01;1\n", (), "mine.csv:1: expected cells separated by commas, got 'date;x'"),
        ("date,x,x\n", (), "mine.csv:1: expected each column once, got 'x' twice"),
        (
            GOOD,
            ("OTT",),
            "mine.csv:1: expected a column 'OTT' in the header (did you mean 'OT'?), got date, load, OT, note",
        ),
        (
            GOOD.replace("date", "Date"),
            ("OT",),
            "mine.csv:1: expected a date column 'date' in the header (did you mean 'Date'?)",
        ),
        (GOOD.replace("31", "1_01"), ("OT",), "mine.csv:3: expected a number in column 'OT', got '1_01'"),
        (GOOD, ("note",), "mine.csv:2: expected a number in column 'note', got 'a'"),
        (GOOD.replace("31,", "31"), ("OT",), "mine.csv:3: expected 4 cells as in the header, got 3"),
        (
            GOOD.replace(",31,", ",,"),
            ("OT",),
            "mine.csv:3: expected a number in column 'OT', got the missing value ''; fill it in",
        ),
        (
            GOOD.replace("31", "NaN"),
            ("OT",),
            "mine.csv:3: expected a number in column 'OT', got the missing value 'NaN'",
        ),
        (GOOD.replace("31", "inf"), ("OT",), "mine.csv:3: expected a finite number in column 'OT', got 'inf'"),
        (GOOD.replace("31", "-1e301"), ("OT",), "mine.csv:3: expected a number of at most 1e+150 in column 'OT', got"),
        (
            GOOD.replace("2016-07-01 01", "01.07.2016 01"),
            ("OT",),
            "mine.csv:3: column 'date': expected a date such as 2016-07-01 or",
        ),
        (
            GOOD.replace(" 01:00:00", " 25:00:00"),
            ("OT",),
            "mine.csv:3: column 'date': expected a date such as 2016-07-01 or",
        ),
        (
            GOOD.replace(" 02:", " 01:"),
            ("OT",),
            "mine.csv:4: column 'date': expected a date after 2016-07-01 01:00:00, that of the previous row",
        ),
        (
            GOOD.replace(" 02:00:00", " 03:00:00"),
            ("OT",),
            "mine.csv:4: column 'date': expected the date 2016-07-01 02:00:00, evenly",
        ),
        (
            GOOD.replace(" 02:00:00", " 02:00:00+00:00"),
            ("OT",),
            "mine.csv:4: column 'date': expected dates all with a time zone or all",
        ),
        (
            "date,x\n2020-01-01,1\n2020-02-01,1\n\n2020-04-01,1\n",
            (),
            "mine.csv:5: column 'date': expected the date 2020-03-01, evenly",
        ),
    ],
)
def test_invalid_files_raise_with_file_and_line(tmp_path, text, columns, message):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/{message}")) as caught:
        read_csv(path, columns)
    assert "\n" not in str(caught.value)


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match=r"none.csv: expected a readable CSV file \(No such file or directory\)"):
        read_csv(tmp_path / "none.csv")


def test_reads_a_gzipped_table(tmp_path):
    path = write(tmp_path, gzip.compress(b"1,2\n3,4\n"), "table.txt.gz")
    np.testing.assert_array_equal(read_table(path, ("a", "b")).values, [[1, 2], [3, 4]])
    with pytest.raises(UserError, match=r"expected 3 columns, got 2"):
        read_table(path, ("a", "b", "c"))


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_windows_end_where_their_forecast_begins(array):
    values = array(np.arange(10.0)[:, None] * np.array([[1.0, 10.0]]))
    inputs, targets = windows(values, np.array([3, 8]), window=3, horizon=2)
    np.testing.assert_array_equal(inputs[..., 0], [[0, 1, 2], [5, 6, 7]])
    np.testing.assert_array_equal(targets[..., 0], [[3, 4], [8, 9]])
    np.testing.assert_array_equal(targets[..., 1], [[30, 40], [80, 90]])


def test_scalings_and_their_inverses():
    values = np.array([[1.0, -4.0, 5.0], [3.0, 2.0, 5.0]])
    standard, largest = Scaling.standard(values), Scaling.largest(values)
    np.testing.assert_array_equal(standard.forward(values), [[-1, -1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(largest.forward(values), [[1 / 3, -1, 1], [1, 0.5, 1]])
    later = np.array([[7.0, 8.0, 9.0]])
    for scaling in (standard, largest):
        np.testing.assert_allclose(scaling.inverse(scaling.forward(later)), later, rtol=1e-12)
    np.testing.assert_array_equal(Scaling.largest(np.zeros((2, 1))).forward(np.zeros((2, 1))), 0.0)
