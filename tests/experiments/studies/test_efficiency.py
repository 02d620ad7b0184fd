"""Parameters and operations are counted by the equations."""

import jax
import pytest

from experiments.studies import efficiency


@pytest.mark.parametrize("name", ["gru", "lstm", "elman"])
def test_parameter_count_matches_the_cell(name):
    params = efficiency.CELLS[name].init(jax.random.key(0), input_size=3, hidden_size=4)
    assert efficiency.parameter_count(name, 3, 4) == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_gru_and_lstm_cost_three_to_four_at_equal_width_and_the_same_at_equal_parameters():
    shape = (32, 100, 64, 128)
    assert efficiency.operations("gru", shape) * 4 == efficiency.operations("lstm", shape) * 3
    assert efficiency.operations("gru", shape) == 6 * 32 * 100 * (64 + 128) * 3 * 128
    goal = efficiency.parameter_count("gru", 64, 128)
    for name in ("lstm", "elman"):
        width = efficiency.equal_width(name, 64, goal)
        assert efficiency.parameter_count(name, 64, width) == pytest.approx(goal, rel=0.01)


def test_table_has_ratios_to_the_gru():
    shared = {"shape": [32, 100, 64, 128], "equal": "width", "width": 128}
    gru = shared | {"cell": "gru", "parameters": 300, "operations": 3e9, "bytes": 2**20, "milliseconds": 10.0}
    lstm = shared | {"cell": "lstm", "parameters": 400, "operations": 4e9, "bytes": 2**21, "milliseconds": 15.0}
    line = efficiency.costs_table([gru, lstm]).splitlines()[-1]
    assert line == ("| 32, 100, 64, 128 | width | LSTM | 128 | 400 (1.33) | 4.00 (1.33) | 15.0 (1.50) | 2.0 (2.00) |")
