"""The display: aligned lines in a pipe, a progress bar in a terminal, no colors."""

import io
import re

import pytest

from experiments.runner.logging import Display, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def show(stream):
    display = Display(1000, 90, stream)
    display.line("task: first line")
    for step in (91, 100):
        display.advance(step, 1 / step)
    display.row(100, "train", {"loss": 0.5, "accuracy": 12.5, "grad_norm": 3.0, "learning_rate": 1e-3})
    display.row(100, "validation", {"loss": 0.25, "accuracy": 99.987})
    display.row(1000, "validation", {"loss": 0.00012, "accuracy": 100.0})
    display.close()
    return stream.getvalue()


def test_pipe_gets_plain_lines_in_columns():
    first, train, *rows = show(io.StringIO()).splitlines()
    assert first == "task: first line"
    assert re.fullmatch(r" 100/1000  train       loss 0\.5000 +accuracy 12\.50 +\d+\.\d steps/s  \d+:\d\d left", train)
    assert rows == [
        " 100/1000  validation  loss 0.2500             accuracy 99.99",
        "1000/1000  validation  loss 1.20e-04           accuracy 100.00",
    ]
    assert train.index("accuracy") == rows[0].index("accuracy")


def test_terminal_gets_a_progress_bar_without_colors():
    out = show(Terminal())
    assert re.search(r"\r 10%.* 100/1000 .* left, loss 0\.0100", out)
    assert " 100/1000  validation  loss 0.2500             accuracy 99.99\n" in out
    assert " train " not in out
    assert "\x1b[3" not in out


def test_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in show(Terminal())


def test_metric_equal_to_the_loss_is_shown_once():
    stream = io.StringIO()
    display = Display(10, 0, stream)
    display.row(5, "validation", {"loss": 0.5, "mse": 0.5})
    display.row(6, "train", {"skipped": 3})
    assert stream.getvalue() == " 5/10  validation  mse 0.5000\n 6/10  train       skipped 3\n"


@pytest.mark.parametrize(("seconds", "shown"), [(7, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown
