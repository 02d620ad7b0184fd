"""The comparison of the cells shows the records of its configurations, the differences and what is clear of them."""

import dataclasses
import json

import gru_jax
from experiments.reporting import cells, document, records, tables
from experiments.reporting.cells import Comparison, Entry
from tests.experiments.reporting.test_document import make_report
from tests.experiments.reporting.test_records import RECORD
from tests.experiments.reporting.test_tables import ROW, group

DIGITS = dataclasses.replace(ROW, task="digits", metric="accuracy", better="more")


def comparison(**values):
    entries = [Entry(group(cell, found), 7, 2) for cell, found in values.items()]
    return Comparison(ROW, tuple(sorted(entries, key=lambda entry: entry.group.mean)))


def test_every_cell_has_a_name_and_changes_are_of_cells():
    assert list(tables.NAMES) == list(gru_jax.CELLS)
    assert set(cells.CHANGES) <= set(gru_jax.CELLS)


def test_runs_with_the_configuration_of_a_cell_are_found():
    """The GRU's own config is that of the comparison; a wider LSTM is not, and later runs of a seed count."""
    shared = RECORD | {"task": "digits", "metric": "accuracy"}
    found = [
        shared | {"config": "configs/digits.py", "value": 90.0},
        shared | {"config": "configs/digits.py", "overrides": ["seed=1"], "seed": 1, "value": 96.0},
        shared | {"config": "configs/digits.py", "overrides": ["model.cell=gru"], "value": 94.0},
        shared | {"config": "configs/digits.py", "overrides": ["model.cell=lstm"], "cell": "lstm", "value": 10.0},
        shared | {"config": "configs/cells.py:digits-mgu", "cell": "mgu", "value": 97.0},
        shared | {"config": "configs/cells.py:digits-indrnn", "cell": "indrnn", "metric": "loss", "value": 97.0},
    ]
    (only,) = cells.read(found, {"digits": DIGITS, "jsb": ROW})
    assert [(entry.cell, entry.group.values) for entry in only.entries] == [("mgu", [97.0]), ("gru", [94.0, 96.0])]
    assert [(entry.hidden_size, entry.num_layers) for entry in only.entries] == [(157, 1), (128, 1)]
    assert only.reference.cell == "gru"
    assert only.entries[0].group.command == (
        "python -m experiments.train --config=configs/cells.py:digits-mgu --workdir=runs/cells_digits-mgu_0"
    )
    assert cells.read(found[4:], {"digits": DIGITS}) == []


def test_records_of_the_comparison_are_on_its_page_only(tmp_path):
    lines = [RECORD, RECORD | {"config": "configs/cells.py:jsb-mgu", "cell": "mgu", "value": 1.0}]
    (tmp_path / "jsb.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    kept = [made for made in records.grouped(records.read(tmp_path)) if not cells.is_comparison(made)]
    assert [made.cell for made in kept] == ["gru"]


def test_differences_by_hand():
    found = comparison(gru=(8.0, 8.2), lstm=(8.3, 8.7), mgu=(8.15, 8.25), lem=(7.0, 7.2), lru=(9.0,))
    assert cells.verdict(found) == (
        "The GRU reaches 8.10 ± 0.14. Clearly better: LEM (-1.00). Not clearly different: MGU (+0.10), LSTM (+0.40). "
        "Worse, without a known spread: LRU (+0.90)."
    )
    assert cells.marked(found, found.entries[0]) == "7.10 ± 0.14 ▲"
    assert cells.marked(found, found.reference) == "8.10 ± 0.14"
    assert cells.verdict(comparison(gru=(8.0, 8.2), elman=(9.0, 9.1))).endswith("Clearly worse: Elman (+0.95).")
    assert cells.verdict(comparison(gru=(8.0, 8.2), mgu=(8.101,))).endswith("Equal: MGU (+0.00).")
    ratio = dataclasses.replace(ROW, digits=".3g")
    assert cells.difference(ratio, 0.004, 0.002) == "2 times"
    assert cells.difference(dataclasses.replace(ratio, digits=".2f"), 8.1, 8.1 + 1e-9) == "+0.00"


def test_cells_are_ordered_by_their_mean_rank_over_complete_tasks():
    first = {cell: (float(place),) for place, cell in enumerate(gru_jax.CELLS)}
    second = first | {"gru": (-1.0,), "lru": (-2.0,)}
    partial = comparison(gru=(3.0,), minlstm=(1.0,))
    order = cells.ranked([comparison(**first), comparison(**second), partial])
    assert order[:2] == ["gru", "lru"]
    assert sorted(order) == sorted(gru_jax.CELLS)
    assert cells.ranked([partial]) == ["minlstm", "gru"]


def test_table_and_section_by_hand(tmp_path):
    found = comparison(gru=(8.0, 8.2), lem=(7.0, 7.2))
    other = dataclasses.replace(comparison(gru=(5.0,), mgu=(6.0,)), row=dataclasses.replace(ROW, title="Hymns"))
    table = cells.overview([found, other]).splitlines()
    assert table[0] == "| cell | what changes against the GRU | layers | Chorales: nats ↓ | Hymns: nats ↓ |"
    assert table[2] == f"| LEM | {cells.CHANGES['lem']} | 2 | 7.10 ± 0.14 ▲ | – |"
    assert table[3] == "| GRU | – | 2 | 8.10 ± 0.14 | 5.00 |"
    report = dataclasses.replace(make_report(tmp_path, [group()]), comparisons=[found, other])
    (page,) = (page for page in document.PAGES if page.name == "cells")
    text = document.page(page, report)
    assert "| LEM | 2 × 7 | 1,000 | 7.10 ± 0.14 | 0, 1 | 2.0 | 0123456 |" in text
    assert found.entries[0].group.command in text
    assert "![The error of every cell on every task](../../experiments/results/cells.svg)" in text
    assert "cells.svg" not in document.page(page, make_report(tmp_path, [group()]))


def test_picture_is_reproducible_and_contains_its_description():
    found = [comparison(gru=(8.0, 8.2), lem=(7.0, 7.2)), comparison(gru=(1e-4,), lru=(0.17,))]
    picture = cells.picture(found, "digest")
    assert picture == cells.picture(found, "digest")
    assert all(text in picture for text in (b"digest", b"GRU", b"LEM", b"LRU", b"Chorales"))
    without = [*found, comparison(gru=(8.0,), lstm=(8.5,))]  # Tables of the results have these cells anyway.
    assert cells.drawn(without) == found
    assert len(cells.picture([], "")) < 20_000
