"""Published figures are checked when they are read, and the best is chosen."""

import pathlib

import pytest

from experiments.reporting import published, records, tables
from experiments.reporting.published import Figure, Row, Target
from experiments.runner.config import load
from experiments.schema import UserError

RESULTS = pathlib.Path(__file__).parents[3] / "experiments" / "results"
PUBLISHED = """
[sources."A 2018"]
paper = "A, On chorales"
year = 2018
place = "Table 1"

[rows.jsb]
task = "jsb"
metric = "nll"
title = "Chorales"
measure = "nats"
digits = ".2f"
better = "less"
page = "music"
figures = [
  { model = "GRU", value = 8.43, source = "A 2018", kind = "recurrent", comparable = true, parameters = 300_000 },
]
trivial = [{ name = "guess", how = "by a coin", value = 61 }]
"""
TARGETS = """
[rows.jsb]
value = 8.43
at_most = 1_000

[speed]
cells = 0.75
options = 1.15
limit_float32 = 0.75
compile = 2.0
train_float32 = 0.98
train_bfloat16 = 0.45
train_autocast = 0.8
long_slowest = 1.15
long_recompute = 0.55
long_checkpoint = 0.15
loop = 1.05
layer."1, 2, 3, 4".forward_float32 = 0.65
"""


def folder(path, published_text=PUBLISHED, targets_text=TARGETS):
    (path / "published.toml").write_text(published_text)
    (path / "targets.toml").write_text(targets_text)
    return path


def figure(model, value, kind="recurrent", comparable=True, **fields):
    return Figure(model, value, "A 2018", kind, comparable, **fields)


def row(*figures, better="less", **fields):
    return Row("jsb", "nll", "Chorales", "nats", ".2f", better, "music", figures=figures, **fields)


def test_files_are_read_into_rows_sources_and_targets(tmp_path):
    found = published.read(folder(tmp_path))
    assert found.sources["A 2018"].text == "A, On chorales, 2018, Table 1"
    assert found.rows["jsb"].figures == (figure("GRU", 8.43, parameters=300_000),)
    assert found.rows["jsb"].trivial[0].value == 61.0
    assert found.rows["jsb"].target == Target(8.43, at_most=1000)
    speed = published.read_speed_targets(tmp_path)
    assert (speed.loop, speed.layer["1, 2, 3, 4"].forward_float32) == (1.05, 0.65)
    assert speed.layer["1, 2, 3, 4"].gradient_float32 is None


FIGURE = "published.toml: [rows.jsb] figures[0]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("comparable = true", "comparabel = true", f"{FIGURE} comparable: expected a value, got none"),
        (
            "parameters = 300",
            "parameter = 300",
            f"{FIGURE} parameter: unknown key (did you mean 'parameters'?); known are model,",
        ),
        ('source = "A 2018", ', "", f"{FIGURE} source: expected a value, got none"),
        ('source = "A 2018"', 'source = "B 2019"', f"{FIGURE}.source: expected one of A 2018, got 'B 2019'"),
        (
            'kind = "recurrent"',
            'kind = "recurent"',
            f"{FIGURE} kind: expected one of 'recurrent', 'other' (did you mean",
        ),
        ("value = 8.43", 'value = "8.43"', f"{FIGURE} value: expected a number, got '8.43'"),
        ('better = "less"', 'better = "fewer"', "published.toml: [rows.jsb] better: expected one of 'less', 'more'"),
        ('digits = ".2f"\n', "", "published.toml: [rows.jsb] digits: expected a value, got none"),
        (
            '".2f"',
            '"2 digits"',
            "published.toml: [rows.jsb] digits: expected a format such as .2f or .3g, got '2 digits'",
        ),
        (
            '"music"',
            '"music"\nhorizon = 3',
            "published.toml: [rows.jsb] horizon: expected a number with a series, and none",
        ),
        ("value = 8.43", "value = nan", f"{FIGURE} value: expected a finite number, got nan"),
        ("true,", "1,", f"{FIGURE} comparable: expected True or False, got 1"),
        ('place = "Table 1"', "", "published.toml: [sources.A 2018] place: expected a value, got none"),
        (
            'place = "Table 1"',
            'place = ""',
            "published.toml: [sources.A 2018] place: expected a table, page or section",
        ),
        (
            ", value = 61",
            "",
            "published.toml: [rows.jsb] trivial[0] value: expected exactly one of value, cell and study",
        ),
        ("true,", "true, like_for_like = false,", f"{FIGURE} like_for_like: expected a protocol that says why not"),
        ("[rows.jsb]", "[row.jsb]", "published.toml: expected the tables rows, sources, got sources, row"),
        ("[rows.jsb]", "[rows.jsb]\ntarget = 3", "published.toml: [rows.jsb] target: expected in targets.toml"),
        ("figures = [", "figures = 3 # [", "published.toml: expected TOML, got"),
    ],
)
def test_invalid_tables_raise_one_line(tmp_path, old, new, message):
    assert old in PUBLISHED
    with pytest.raises(UserError) as error:
        published.read(folder(tmp_path, PUBLISHED.replace(old, new, 1)))
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[rows.jsb]", "[rows.jbs]", "targets.toml: [rows.jbs]: expected the name of a row of published.toml"),
        ("at_most", "atmost", "targets.toml: [rows.jsb] atmost: unknown key (did you mean 'at_most'?)"),
        ("loop = 1.05", "", "targets.toml: [speed] loop: expected a value, got none"),
        ("forward_float32", "forward_f32", "targets.toml: [speed.layer.1, 2, 3, 4] forward_f32: unknown key"),
    ],
)
def test_invalid_targets_raise_one_line(tmp_path, old, new, message):
    folder(tmp_path, PUBLISHED, TARGETS.replace(old, new, 1))
    read = published.read if "rows" in message else published.read_speed_targets
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert str(error.value).startswith(message)


def test_best_comparable_recurrent_figure_is_chosen():
    best = figure("LSTM", 8.3)
    figures = (figure("GRU", 8.43), best, figure("Elman", 8.9), figure("TCN", 8.1, "other"))
    assert row(*figures).best_comparable is best
    assert row(*figures).best_of_any_kind is figures[3]
    assert row(*figures, better="more").best_comparable is figures[2]


def test_larger_gru_or_lstm_is_chosen_if_it_is_better():
    small, larger, exotic = (
        figure("GRU", 8.4),
        figure("zoneout LSTM", 8.0, comparable=False),
        figure("LEM", 7.5, comparable=False),
    )
    assert row(small, larger, exotic).best_larger is larger
    assert row(small, larger, exotic).best_of_any_kind is exotic
    assert row(small, figure("GRU", 8.5, comparable=False)).best_larger is None
    assert row(larger).best_larger is larger


def test_figures_with_another_protocol_are_never_chosen():
    other = figure("RNN-NADE", 5.56, like_for_like=False, protocol="keys in order")
    assert row(other).best_of_any_kind is row(other).best_comparable is None
    assert row(other, figure("GRU", 8.43)).best_of_any_kind == figure("GRU", 8.43)


@pytest.mark.parametrize(
    ("better", "strict", "value", "parameters", "reached"),
    [
        ("less", False, 8.43, 1000, True),
        ("less", True, 8.43, 1000, False),
        ("less", False, 8.44, 1000, False),
        ("more", False, 8.44, 1000, True),
        ("more", True, 8.42, 1000, False),
        ("less", False, 8.0, 1001, False),
    ],
)
def test_target_is_reached(better, strict, value, parameters, reached):
    made = row(better=better, target=Target(8.43, strict, 1000))
    assert made.reaches_target(value, parameters) is reached


@pytest.fixture(scope="module")
def real():
    return published.read(RESULTS)


@pytest.mark.parametrize(
    ("name", "comparable", "larger", "any_kind"),
    [
        ("smnist", ("LEM", 99.5), None, ("S4", 99.63)),
        ("smnist_256", ("LEM", 99.5), None, ("S4", 99.63)),
        ("psmnist", ("LMU", 97.15), None, ("S4", 98.7)),
        ("jsb", ("GRU", 8.43), None, ("TCN", 8.10)),
        ("nottingham", ("Elman", 3.13), None, ("TCN", 3.07)),
        ("musedata", ("GRU", 5.99), None, ("GRU", 5.99)),
        ("musedata_ordered", ("RNN-NADE", 5.60), None, ("RNN-NADE", 5.60)),
        ("piano_midi", ("RNN-HF", 7.66), None, ("RNN-HF", 7.66)),
        ("ptb_char", ("LSTM", 1.36), ("Mogrifier LSTM", 1.12), ("Mogrifier LSTM", 1.12)),
        ("etth1_multi_336_mse", ("LSTMa", 1.424), None, ("PatchTST/64", 0.422)),
        ("etth1_multi_720_mse", ("LSTMa", 1.96), None, ("NLinear", 0.44)),
        ("exchange_rate_24_rse", ("TPA-LSTM", 0.0444), None, ("TPA-LSTM", 0.0444)),
        ("multi30k_deen", None, None, None),
        ("multi30k_ende", ("GRU with attention", 38.1), None, ("Transformer-Tiny", 41.02)),
    ],
)
def test_best_figures_of_published_toml(real, name, comparable, larger, any_kind):
    found = real.rows[name]
    chosen = (found.best_comparable, found.best_larger, found.best_of_any_kind)
    assert [figure and (figure.model, figure.value) for figure in chosen] == [comparable, larger, any_kind]


def test_recurrent_figures_of_our_size_are_comparable(real):
    """Figures with up to 1.25 times our parameters are comparable; more than twice as many are not."""
    groups = records.grouped(records.read(RESULTS))
    seen = 0
    for name, found in real.rows.items():
        gru = tables.representative(found, tables.groups_of(found, groups), "gru")
        for one in found.figures:
            if gru is None or one.parameters is None or one.kind != "recurrent":
                continue
            seen += 1
            if one.parameters <= 1.25 * gru.parameters:
                assert one.comparable, (name, one)
            if one.parameters > 2 * gru.parameters:
                assert not one.comparable, (name, one)
    assert seen > 30


def test_every_source_is_cited_and_rows_are_unique(real):
    cited = {figure.source for found in real.rows.values() for figure in found.figures}
    assert cited == set(real.sources)
    keys = [(found.task, found.metric, found.setting, found.overrides) for found in real.rows.values()]
    assert len(set(keys)) == len(keys)


def test_rows_trained_on_validation_data_match_their_configs(real):
    """`trained_on_validation` matches the config of the representative runs."""
    groups = records.grouped(records.read(RESULTS))
    for name, found in real.rows.items():
        gru = tables.representative(found, tables.groups_of(found, groups), "gru")
        if gru is None:
            continue
        file, _, variant = gru.config.partition(":")
        config = load(pathlib.PurePath(file).stem).get_config(*filter(None, [variant]))
        trains = config.task.get("train_on_validation", False) or "task.train_on_validation=True" in gru.overrides
        assert found.trained_on_validation == bool(trains), name
