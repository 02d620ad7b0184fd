"""Tables show the values of the records and the figures of the rows."""

import dataclasses

import pytest

from experiments.reporting import tables
from experiments.reporting.published import Figure, Published, Row, Source, Target, Trivial
from experiments.reporting.records import Group

ROW = Row(
    "jsb",
    "nll",
    "Chorales",
    "nats",
    ".2f",
    "less",
    "music",
    headline=True,
    figures=(
        Figure("GRU", 8.5, "A 2018", "recurrent", True, parameters=300_000),
        Figure("LSTM", 8.45, "A 2018", "recurrent", True, parameters=300_000),
        Figure("GRU", 8.2, "B 2020", "recurrent", False, parameters=2_700_000, budget="big", reported=True),
        Figure("TCN", 8.1, "A 2018", "other", True),
        Figure("NADE", 5.0, "B 2020", "recurrent", True, protocol="keys in order", like_for_like=False),
    ),
    trivial=(Trivial("coin", "a guess", value=61.0), Trivial("last", "a copy", cell="naive")),
    target=Target(8.43, at_most=1000),
)
SOURCES = {"A 2018": Source("A", "Table 1", 2018), "B 2020": Source("B", "page 3")}


def group(cell="gru", values=(8.3, 8.5), overrides=(), task="jsb", metric="nll", setting="jsb"):
    shared = {
        "parameters": 1000,
        "minutes": 2.0,
        "machine": "two cores",
        "commit": "0123456789",
        "overrides": [*overrides],
    }
    runs = tuple(shared | {"seed": seed, "value": value} for seed, value in enumerate(values))
    return Group(task, metric, cell, f"configs/music.py:{setting}", overrides, runs)


@pytest.mark.parametrize(
    ("mean", "deviation", "digits", "expected"),
    [
        (97.685, 0.5783, ".2f", "97.69 ± 0.58"),
        (95.8333, 1.0024, ".2f", "95.8 ± 1.0"),
        (95.648, 1.398, ".2f", "95.6 ± 1.4"),
        (8.33806, 0.00433, ".3f", "8.338 ± 0.004"),
        (0.02604, 0.000153, ".3f", "0.0260 ± 0.0002"),
        (80.326, 0.0081, ".1f", "80.326 ± 0.008"),
        (6.2551, 0.4218, ".3f", "6.26 ± 0.42"),
        (1234.5, 123.4, ".2f", "1234 ± 123"),
        (1.7054e-05, 1.12e-06, ".3g", "1.71e-05 ± 0.11e-05"),
        (2.92e-05, 9.8e-06, ".3g", "2.92e-05 ± 0.98e-05"),
        (0.1687, 9.7e-05, ".3g", "0.16870 ± 0.00010"),
        (0.05297, 0.03805, ".3g", "0.053 ± 0.038"),
        (1.00016, 5.5e-05, ".3g", "1.00016 ± 0.00006"),
        (98.41, None, ".2f", "98.41"),
        (100.0, 0.0, ".2f", "100.00"),
        (1.7e-05, None, ".3g", "1.7e-05"),
    ],
)
def test_mean_and_deviation_have_the_same_digits(mean, deviation, digits, expected):
    assert tables.spread(mean, deviation, digits) == expected


def test_overview_by_hand():
    groups = [group(), group("elman", (9.0,)), group("naive", (8.3,))]
    line = tables.overview([ROW], groups, {}).splitlines()[-1]
    assert line == (
        "| Chorales | nats ↓ | 8.40 ± 0.14 | – | 9.00 | LSTM 8.45 (300K) [A 2018]; larger: GRU 8.2† (2.7M, big) "
        "[B 2020] **better than ours** | TCN 8.1 (size unknown) [A 2018] **better than ours** "
        "| 8.30 (last) **better than ours** |"
    )


def test_readme_table_by_hand():
    other = dataclasses.replace(ROW, title="Hymns", figures=ROW.figures[2:3], page="speech")
    lines = tables.readme([ROW, other], [group()], {}, "docs/results").splitlines()[2:]
    assert lines == [
        "| [Chorales](docs/results/music.md) | nats ↓ | 8.40 ± 0.14 | LSTM 8.45 [A 2018] "
        "| TCN 8.1 [A 2018] **better than ours** | 61.00 (coin) |",
        "| [Hymns](docs/results/speech.md) | nats ↓ | 8.40 ± 0.14 | larger: GRU 8.2† [B 2020] **better than ours** "
        "| the same | 61.00 (coin) |",
    ]


@pytest.mark.parametrize(
    ("better", "value", "mark"),
    [("less", 8.39, tables.BETTER), ("less", 8.404, tables.EQUAL), ("less", 8.5, ""), ("more", 8.5, tables.BETTER)],
)
def test_values_that_beat_or_equal_ours_are_marked(better, value, mark):
    row = dataclasses.replace(ROW, better=better)
    assert tables.verdict(row, value, group()) == mark
    assert tables.verdict(row, value, None) == ""


def test_rows_without_a_comparable_figure_have_a_note():
    assert tables.recurrent(dataclasses.replace(ROW, figures=()), None) == "none known"
    assert tables.recurrent(dataclasses.replace(ROW, figures=ROW.figures[-1:]), None) == "none like for like"
    assert tables.any_kind(dataclasses.replace(ROW, figures=ROW.figures[:1]), None) == "the same"


def test_rows_trained_on_validation_data_are_marked():
    row = dataclasses.replace(ROW, trained_on_validation=True)
    assert "| Chorales (trained on validation data too) |" in tables.overview([row], [group()], {})


def test_trivial_baselines_come_from_records_and_recorded_scores():
    row = dataclasses.replace(ROW, trivial=(Trivial("last", "", cell="naive"), Trivial("keys", "", study="jsb.keys")))
    pairs = tables.baselines(row, [group("naive", (9.5,))], {"jsb.keys": 10.49})
    assert [(trivial.name, value) for trivial, value in pairs] == [("last", 9.5), ("keys", 10.49)]
    assert tables.baselines(row, [], {}) == []


def test_details_of_a_task_by_hand():
    published = Published({"jsb": ROW}, SOURCES)
    text = tables.details("jsb", published, [group(), group("lstm", (8.6,))], {})
    assert (
        "Published nats: GRU 8.5, LSTM 8.45 [A 2018, Table 1; 300K]; GRU 8.2† [B 2020, page 3; 2.7M, big]; "
        "TCN 8.1 [A 2018, Table 1; size unknown]; NADE 5 [B 2020, page 3; size unknown; keys in order; not compared]."
    ) in text
    assert "Trivial baselines: coin 61.00 (a guess)." in text
    assert "The project's target: ≤ 8.43, with at most 1,000 parameters." in text
    assert "| cell | parameters | nats | runs | reaches ≤ 8.43 | minutes | machine | commit | configuration |" in text
    row = "| GRU | 1,000 | 8.40 ± 0.14 | 0, 1 | yes | 2.0 | two cores | 0123456 | `configs/music.py:jsb` |"
    assert row in text
    assert "| LSTM | 1,000 | 8.60 | 0 | no |" in text
    assert "python -m experiments.train --config=configs/music.py:jsb" in text


def test_rows_select_groups_by_their_overrides():
    chord = ("model.chord=independent",)
    ordered = dataclasses.replace(ROW, without=chord)
    independent = dataclasses.replace(ROW, overrides=chord)
    one, other = group(), group(overrides=chord, values=(7.0,))
    assert tables.groups_of(ordered, [one, other]) == [one]
    assert tables.groups_of(independent, [one, other]) == [other]
    assert tables.groups_of(ROW, [one, other]) == [one, other]


def test_rows_leave_variants_to_the_rows_that_they_belong_to():
    one, lstm, other = group(), group("lstm", setting="jsb-lstm"), group(setting="transposed-lstm")
    assert tables.groups_of(dataclasses.replace(ROW, elsewhere=("transposed",)), [one, lstm, other]) == [one, lstm]
    assert tables.groups_of(dataclasses.replace(ROW, elsewhere=("jsb",)), [one, lstm, other]) == [other]


def test_group_without_overrides_represents_a_cell_regardless_of_score():
    worse, better = group(values=(9.0,)), group(values=(1.0,), overrides=("model.dropout=0.1",))
    assert tables.representative(ROW, [worse, better], "gru") is worse
    assert tables.representative(ROW, [better], "gru") is better
    assert tables.representative(ROW, [better], "lstm") is None


def test_group_with_the_setting_of_the_row_represents_a_cell():
    row = dataclasses.replace(ROW, setting="jsb")
    own, lstm, other = group(), group("lstm", setting="jsb-lstm"), group(values=(1.0,), setting="transposed")
    for groups in ([own, lstm, other], [other, lstm, own]):
        assert tables.representative(row, groups, "gru") is own
        assert tables.representative(row, groups, "lstm") is lstm
    assert tables.representative(row, [other], "gru") is None
    assert tables.representative(ROW, [own, other], "gru") is other


def test_budgets_compare_cells_with_the_gru_of_the_same_setting():
    def run(cell, setting, value, machine="a CPU"):
        made = group(cell, (value,), setting=setting)
        return dataclasses.replace(made, records=tuple(record | {"machine": machine} for record in made.records))

    groups = [
        run("gru", "jsb", 8.0),
        run("gru", "other", 7.0),
        run("lstm", "jsb-lstm", 9.0),
        run("elman", "jsb-elman", 9.5, "a GPU"),
        run("lstm", "jsb", 1.0),
    ]
    lines = tables.budgets(groups).splitlines()
    assert lines[2:] == ["| jsb | nll | LSTM | 8 | 9 | 2.0 | 2.0 |", "| jsb | nll | Elman | 8 | 9.5 | – | – |"]
    assert tables.budgets(groups[:2]) == ""


def test_protocols_have_a_line_for_every_figure():
    lines = tables.protocols([ROW]).splitlines()[2:]
    assert len(lines) == 5
    assert lines[0] == "| Chorales | nats | GRU | 8.5 | recurrent | 300K | comparable | A 2018 |  | yes |"
    assert lines[2].startswith("| Chorales | nats | GRU | 8.2† | recurrent | 2.7M, big | not comparable |")
    assert lines[4].endswith("| B 2020 | keys in order | no |")
