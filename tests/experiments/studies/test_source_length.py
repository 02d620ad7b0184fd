"""Translations are grouped and scored by the length of their source."""

import dataclasses

import pytest

from experiments.schema import UserError
from experiments.studies.source_length import FINDINGS, by_length, parse_edges, plot, section, table
from experiments.tasks.translation.multi30k import sacrebleu_metrics

SOURCES = ["a b", "a b c", "a b c d e f", "a b c d e f g h"]
REFERENCES = ["two men stand there", "a dog runs away", "one two three four five six", "a man is on the street"]
TRANSLATIONS = ["two men stand there", "a dog runs away", "one two three four five six", "a woman sits by a lake"]


def groups(edges):
    return by_length(SOURCES, REFERENCES, TRANSLATIONS, edges, sacrebleu_metrics(True)["bleu"])


def test_each_group_has_the_bleu_of_its_sentences():
    short, long = groups([3, 4])
    assert (short.least, short.most, short.sentences) == (2, 3, 2)
    assert (long.least, long.most, long.sentences) == (6, 8, 2)
    assert short.bleu == pytest.approx(100)
    expected = sacrebleu_metrics(True)["bleu"].corpus_score(TRANSLATIONS[2:], [REFERENCES[2:]]).score
    assert long.bleu == expected < 90
    (whole,) = groups([])
    assert (whole.least, whole.most, whole.sentences) == (2, 8, 4)


def test_table_has_a_row_per_group_and_plot_a_line_per_run():
    columns = {"attends": groups([3]), "sums_up": groups([3])}
    long = f"{groups([3])[1].bleu:.2f}"
    assert table(columns).splitlines() == [
        "| words of the source | sentences | attends | sums_up |",
        "| --- | --- | --- | --- |",
        "| 2–3 | 2 | 100.00 | 100.00 |",
        f"| 6–8 | 2 | {long} | {long} |",
    ]
    assert b"sums_up" in plot(columns)
    assert plot(columns) != plot({"attends": columns["attends"]})


@pytest.mark.parametrize(
    ("names", "split", "told"),
    [
        (["with attention", "without attention"], "test", True),
        (["with attention", "without attention"], "validation", False),
        (["with attention"], "test", False),
        (["with attention", "runs/other"], "test", False),
    ],
)
def test_findings_are_of_the_two_runs_that_they_describe(names, split, told):
    found = {"direction": "de-en", "split": split, "signature": "s", "command": "c", "machine": "m", "commit": "0" * 40}
    columns = {name: [dataclasses.asdict(group) for group in groups([3])] for name in names}
    assert (FINDINGS in section(found | {"columns": columns})) == told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["4", "x"], r"--edges: expected numbers of words, got '4,x'"),
        (["4", "4"], r"--edges: expected numbers above 0 that increase, got '4,4'"),
        (["0", "4"], r"--edges: expected numbers above 0 that increase, got '0,4'"),
    ],
)
def test_invalid_edges_raise(values, message):
    with pytest.raises(UserError, match=message):
        parse_edges(values)
    assert parse_edges([" 4", "8"]) == [4, 8]
