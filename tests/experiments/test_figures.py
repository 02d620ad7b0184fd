"""Figures: names are drawn literally in PNG and SVG files, and curves of any values are drawn."""

import numpy as np
import pytest

from experiments.figures import heat_map, learning_curve, png, verbatim
from experiments.studies.source_length import Group, plot

NAMES = [
    "a $x$ b",
    "$10 and $20",
    "$",
    "$$",
    "a^2_3",
    r"\alpha $\alpha$",
    r"a\$b",
    r"\\$ $",
    "{x} $}{$",
    "_private",
    "50 %",
]


def drawn(text, **options):
    return png((4, 1), lambda figure: figure.text(0.1, 0.5, text, **options))


@pytest.mark.parametrize("name", NAMES)
def test_dollar_signs_are_drawn_literally(name):
    assert drawn(verbatim(name)) == drawn(name, parse_math=False)


def test_unprintable_characters_are_drawn_as_escapes():
    assert verbatim("a\nb\tc\x00 \u2028 \udcff é") == r"a\nb\tc\x00 \u2028 \udcff é"


def test_heat_map_labels_are_drawn_literally():
    words = ["$x", "y$", "$z$", "\\frac", "▁$5$"]
    assert heat_map(np.eye(5), words, words)[:4] == b"\x89PNG"
    plain = heat_map(np.eye(2), ["$x$", "b"], ["a", "b"])
    assert plain != heat_map(np.eye(2), ["x", "b"], ["a", "b"])


@pytest.mark.filterwarnings("error")
def test_learning_curve_of_a_loss_of_zero_is_drawn(tmp_path):
    rows = [{"step": step, "split": split, "loss": 0.0} for step in (10, 20) for split in ("train", "validation")]
    learning_curve(rows, "loss", 10, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_run_of_any_name_has_a_legend_entry():
    names = ["runs/$a$", "_hidden", "a^b"]
    picture = plot({name: [Group(1, 3, 5, 20.0), Group(4, 9, 5, 10.0)] for name in names}).decode()
    assert all(name in picture for name in names)
