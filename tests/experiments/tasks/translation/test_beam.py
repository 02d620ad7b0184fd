"""Greedy and beam search against the enumeration of all sequences."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.translation.beam import beam_search, greedy_search

BEGIN, END, V, LENGTH, ROWS = 0, 1, 3, 3, 4
EVERY = sum((V - 1) ** k for k in range(LENGTH)) + (V - 1) ** LENGTH  # complete and truncated sequences

# The logits after every history. The state is the index of a history in this table.
TABLE = np.random.default_rng(0).normal(0, 2, (V ** (LENGTH + 1) * 2, V)).astype(np.float32)


def step(symbols, state):
    state = V * state + symbols
    return jnp.asarray(TABLE)[state], state


STATE = jnp.asarray([1, 2, 1, 1])


def enumerate_sequences(state):
    """Returns {symbols: log-probability} of every sequence, in double precision."""
    found = {}
    for symbols in itertools.product(range(V), repeat=LENGTH):
        total, last, place = 0.0, BEGIN, int(state)
        for t, symbol in enumerate(symbols):
            place = V * place + last
            logits = TABLE[place].astype(np.float64)
            total += logits[symbol] - math.log(np.exp(logits).sum())
            last = symbol
            if symbol == END:
                symbols = symbols[: t + 1]
                break
        found[symbols] = total
    return found


@functools.partial(jax.jit, static_argnames=("length", "width", "length_penalty"))
def search(state, width, length=LENGTH, length_penalty=0.0):
    return beam_search(step, state, begin=BEGIN, end=END, length=length, width=width, length_penalty=length_penalty)


def test_searches_work_with_float64_enabled():
    options = {"begin": BEGIN, "end": END, "length": LENGTH}
    single = greedy_search(step, STATE, **options), beam_search(step, STATE, **options, width=2)
    with jax.enable_x64(True):
        double = greedy_search(step, STATE, **options), beam_search(step, STATE, **options, width=2)
    for one, other in zip(single, double, strict=True):
        np.testing.assert_array_equal(one.symbols, other.symbols)
        np.testing.assert_allclose(one.log_probabilities, other.log_probabilities, rtol=1e-5)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_full_width_equals_exhaustive_search(length_penalty):
    found = search(STATE, EVERY, length_penalty=length_penalty)
    for row, state in enumerate(STATE):
        expected = enumerate_sequences(state)
        assert len(expected) == EVERY
        ranked = sorted(expected, key=lambda symbols: -expected[symbols] / len(symbols) ** length_penalty)
        symbols = [tuple(s[:n]) for s, n in zip(found.symbols[row].tolist(), found.lengths[row].tolist(), strict=True)]
        assert symbols == ranked
        np.testing.assert_allclose(
            found.log_probabilities[row], [expected[s] for s in ranked], rtol=1e-5, err_msg=f"row {row}"
        )


def test_width_one_equals_greedy_search():
    greedy = jax.jit(lambda state: greedy_search(step, state, begin=BEGIN, end=END, length=LENGTH))(STATE)
    beam = search(STATE, 1)
    np.testing.assert_array_equal(greedy.symbols, beam.symbols)
    np.testing.assert_array_equal(greedy.lengths, beam.lengths)
    np.testing.assert_allclose(greedy.log_probabilities, beam.log_probabilities, rtol=1e-6)
    for row, state in enumerate(STATE):
        place, last, best = int(state), BEGIN, []
        while len(best) < LENGTH and last != END:
            place = V * place + last
            last = int(TABLE[place].argmax())
            best.append(last)
        assert greedy.symbols[row, 0].tolist() == best + [END] * (LENGTH - len(best))
        assert greedy.lengths[row, 0] == len(best)
        np.testing.assert_allclose(greedy.log_probabilities[row, 0], enumerate_sequences(state)[tuple(best)], rtol=1e-5)


def test_surplus_hypotheses_have_probability_zero():
    found = search(STATE[:1], 5, length=1)
    assert np.isneginf(found.log_probabilities[0]).tolist() == [False] * V + [True] * (5 - V)
    assert sorted(found.symbols[0, :V, 0].tolist()) == list(range(V))


def test_narrow_beams_return_sorted_exact_log_probabilities():
    found = search(STATE, 2)
    for row, state in enumerate(STATE):
        expected = enumerate_sequences(state)
        for symbols, n, total in zip(
            found.symbols[row].tolist(), found.lengths[row].tolist(), found.log_probabilities[row], strict=True
        ):
            assert symbols[n:] == [END] * (LENGTH - n)
            np.testing.assert_allclose(total, expected[tuple(symbols[:n])], rtol=1e-5)
        assert found.log_probabilities[row, 0] >= found.log_probabilities[row, 1]


def test_rows_are_independent():
    together = search(STATE, 2)
    alone = search(STATE[1:2], 2)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1:2], b, rtol=1e-6), together, alone)
