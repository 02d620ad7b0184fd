"""Streaming in chunks of any size against the whole waveform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import RecognizerConfig, SpokenDigitRecognizer
from experiments.tasks.speech.streaming import StreamingRecognizer

FRONT = LogMel(bands=12)
N = 5000
WAVEFORM = (np.random.default_rng(0).standard_normal(N) * np.linspace(0.01, 1, N)).astype(np.float32)


@pytest.fixture(scope="module", params=[0, 3])
def model(request):
    config = RecognizerConfig(hidden_size=6, num_layers=2, delta_frames=request.param)
    return SpokenDigitRecognizer(config, FRONT, 10, nnx.Rngs(0))


@pytest.fixture(scope="module")
def whole(model):
    """Returns the result for the first samples of the waveform in one call."""
    answer = jax.jit(lambda length: jax.nn.softmax(model(jnp.asarray(WAVEFORM)[None], length)[0]))
    return lambda samples: answer(jnp.array([samples]))


@pytest.mark.parametrize("size", [1, 79, 80, 333, 1600, 10_000])
def test_final_probabilities_equal_the_whole_waveform(model, whole, size):
    recognizer = StreamingRecognizer(model)
    for start in range(0, N, size):
        recognizer.accept(WAVEFORM[start : start + size])
    np.testing.assert_allclose(recognizer.probabilities(), whole(N), rtol=1e-4, atol=1e-6)


def test_intermediate_probabilities_do_not_change_later_ones(model, whole):
    asked, silent = StreamingRecognizer(model), StreamingRecognizer(model)
    assert asked.probabilities() is None
    answers = []
    for start in range(0, N, 700):
        asked.accept(WAVEFORM[start : start + 700])
        silent.accept(WAVEFORM[start : start + 700])
        answers.append(asked.probabilities())
        np.testing.assert_allclose(answers[-1], whole(min(start + 700, N)), rtol=1e-4, atol=1e-6)
    assert abs(answers[0] - answers[-1]).max() > 1e-4
    np.testing.assert_array_equal(asked.probabilities(), silent.probabilities())


def test_less_than_a_frame_has_no_probabilities(model):
    recognizer = StreamingRecognizer(model)
    recognizer.accept(np.zeros(199, np.float32))
    assert recognizer.probabilities() is None
    recognizer.accept(np.zeros(1, np.float32))
    assert recognizer.probabilities().sum() == pytest.approx(1.0, rel=1e-5)
