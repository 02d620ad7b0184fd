"""jiwer's rates in percent, against counts by hand."""

import pytest

from experiments.decoding.error_rates import error_rates


def test_errors_are_summed_over_utterances_before_they_are_divided():
    # Words: 1 substitution of 3, 1 deletion of 1. Characters: 1 of 8 with the spaces, 2 of 2.
    rates = error_rates(["A BB CCC", "GO"], ["A BX CCC", ""])
    assert rates == {"wer": pytest.approx(100 * 2 / 4), "cer": pytest.approx(100 * 3 / 10)}


def test_insertions_count_too():
    assert error_rates(["GO"], ["GO NO GO"]) == {"wer": pytest.approx(200.0), "cer": pytest.approx(300.0)}
    assert error_rates(["YES", "NO"], ["YES", "NO"]) == {"wer": 0.0, "cer": 0.0}
