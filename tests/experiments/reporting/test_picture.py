"""The pictures place every value where it belongs."""

import dataclasses
import math

import pytest

from experiments.reporting import picture
from experiments.reporting.published import Figure
from tests.experiments.reporting.test_tables import ROW, group

FORECAST = dataclasses.replace(ROW, series="rates", horizon=3)


def test_the_scale_is_the_logarithm_of_the_error():
    row = dataclasses.replace(ROW, better="more", figures=(Figure("TCN", 99.0, "A 2018", "other", True),))
    assert picture.position(row, 0.0, trivial=0.0) == 0
    assert picture.position(row, 99.0, trivial=0.0) == 1
    assert picture.position(row, 90.0, trivial=0.0) == pytest.approx(0.5)  # errors of 100, 10 and 1
    assert picture.position(row, 99.9, trivial=0.0) == pytest.approx(1.5)
    assert picture.position(row, 100.0, trivial=0.0) == math.inf
    assert picture.position(ROW, 8.1, trivial=61.0) == 1
    assert picture.position(ROW, 122.0, trivial=61.0) == pytest.approx(-math.log(2) / math.log(61 / 8.1))


def test_rows_that_have_no_scale_are_left_out():
    unpublished = dataclasses.replace(ROW, figures=())
    untrivial = dataclasses.replace(ROW, trivial=())
    hopeless = dataclasses.replace(ROW, trivial=(dataclasses.replace(ROW.trivial[0], value=8.0),))
    minor = dataclasses.replace(ROW, headline=False)
    shown = picture.overview_rows([ROW, unpublished, untrivial, hopeless, minor], [group()], {})
    assert [(row, [g.cell for g in ours], trivial) for row, ours, trivial in shown] == [(ROW, ["gru"], [61.0])]
    assert picture.overview_rows([ROW], [], {}) == []


def test_of_forecasts_the_longest_horizon_is_shown_and_all_are_curves():
    far = dataclasses.replace(FORECAST, task="far", horizon=24)
    groups = [group(), group(task="far", values=(9.0,)), group("naive", (9.0,)), group("naive", (10.0,), task="far")]
    assert [row for row, *_ in picture.overview_rows([FORECAST, far], groups, {})] == [far]
    assert picture.curves([FORECAST, far], groups, {}) == {
        "rates": {
            "GRU (ours)": {3: 8.4, 24: 9.0},
            "coin": {3: 61.0, 24: 61.0},
            "last": {3: 9.0, 24: 10.0},
            "best published recurrent": {3: 8.45, 24: 8.45},
            "best published of any kind": {3: 8.1, 24: 8.1},
        }
    }


def test_the_pictures_are_the_same_every_time_small_and_carry_their_numbers():
    rows, groups = [ROW], [group(), group("lstm")]
    first = picture.overview(rows, groups, {})
    assert first == picture.overview(rows, groups, {})
    assert picture.digest(picture.content(rows, groups, {})).encode() in first
    other = [group(values=(8.3, 8.6)), group("lstm")]
    assert picture.digest(picture.content(rows, other, {})).encode() not in first
    assert all(name in first for name in (b"Chorales", b"GRU, ours", b"LSTM, ours", b"trivial"))
    assert len(first) < 50_000
