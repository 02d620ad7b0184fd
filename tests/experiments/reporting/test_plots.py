"""Plots show the right rows and values at the right positions."""

import dataclasses
import math

import pytest

from experiments.reporting import plots
from experiments.reporting.published import Figure
from tests.experiments.reporting.test_tables import ROW, group

FORECAST = dataclasses.replace(ROW, series="rates", horizon=3)


def test_scale_is_the_logarithm_of_the_error():
    row = dataclasses.replace(ROW, better="more", figures=(Figure("TCN", 99.0, "A 2018", "other", True),))
    assert plots.position(row, 0.0, trivial=0.0) == 0
    assert plots.position(row, 99.0, trivial=0.0) == 1
    assert plots.position(row, 90.0, trivial=0.0) == pytest.approx(0.5)  # the errors are 100, 10 and 1
    assert plots.position(row, 99.9, trivial=0.0) == pytest.approx(1.5)
    assert plots.position(row, 100.0, trivial=0.0) == math.inf
    assert plots.position(ROW, 8.1, trivial=61.0) == 1
    assert plots.position(ROW, 122.0, trivial=61.0) == pytest.approx(-math.log(2) / math.log(61 / 8.1))


def test_rows_without_both_ends_of_the_scale_are_not_shown():
    unpublished = dataclasses.replace(ROW, figures=())
    untrivial = dataclasses.replace(ROW, trivial=())
    hopeless = dataclasses.replace(ROW, trivial=(dataclasses.replace(ROW.trivial[0], value=8.0),))
    minor = dataclasses.replace(ROW, headline=False)
    shown = plots.overview_rows([ROW, unpublished, untrivial, hopeless, minor], [group()], {})
    assert [(row, [g.cell for g in ours], trivial) for row, ours, trivial in shown] == [(ROW, ["gru"], [61.0])]
    assert plots.overview_rows([ROW], [], {}) == []


def test_overview_shows_the_longest_horizon_and_curves_show_all():
    far = dataclasses.replace(FORECAST, task="far", horizon=24)
    groups = [group(), group(task="far", values=(9.0,)), group("naive", (9.0,)), group("naive", (10.0,), task="far")]
    assert [row for row, *_ in plots.overview_rows([FORECAST, far], groups, {})] == [far]
    assert plots.curves([FORECAST, far], groups, {}) == {
        "rates": {
            "GRU (ours)": {3: 8.4, 24: 9.0},
            "coin": {3: 61.0, 24: 61.0},
            "last": {3: 9.0, 24: 10.0},
            "best published recurrent": {3: 8.45, 24: 8.45},
            "best published of any kind": {3: 8.1, 24: 8.1},
        }
    }


def test_overview_is_reproducible_small_and_contains_its_digest():
    rows, groups = [ROW], [group(), group("lstm")]
    first = plots.overview(rows, groups, {})
    assert first == plots.overview(rows, groups, {})
    assert plots.digest(plots.overview_content(rows, groups, {})).encode() in first
    other = [group(values=(8.3, 8.6)), group("lstm")]
    assert plots.digest(plots.overview_content(rows, other, {})).encode() not in first
    assert all(name in first for name in (b"Chorales", b"GRU (ours)", b"LSTM (ours)", b"trivial"))
    assert len(first) < 50_000
