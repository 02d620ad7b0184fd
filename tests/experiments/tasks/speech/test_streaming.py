"""A waveform in chunks of any size is answered as the whole is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import DigitRecogniser, DigitRecogniserConfig
from experiments.tasks.speech.streaming import StreamingRecogniser

FRONT = LogMel(bands=12)
N = 5000
WAVEFORM = (np.random.default_rng(0).standard_normal(N) * np.linspace(0.01, 1, N)).astype(np.float32)


@pytest.fixture(scope="module", params=[0, 3])
def model(request):
    config = DigitRecogniserConfig(hidden_size=6, num_layers=2, delta_frames=request.param)
    return DigitRecogniser(config, FRONT, 10, nnx.Rngs(0))


@pytest.fixture(scope="module")
def whole(model):
    """The answer to the first samples of the waveform at once."""
    answer = jax.jit(lambda length: jax.nn.softmax(model(jnp.asarray(WAVEFORM)[None], length)[0]))
    return lambda samples: answer(jnp.array([samples]))


@pytest.mark.parametrize("size", [1, 79, 80, 333, 1600, 10_000])
def test_the_last_answer_is_that_of_the_whole(model, whole, size):
    recogniser = StreamingRecogniser(model)
    for start in range(0, N, size):
        recogniser.accept(WAVEFORM[start : start + size])
    np.testing.assert_allclose(recogniser.probabilities(), whole(N), rtol=1e-4, atol=1e-6)


def test_an_answer_on_the_way_is_that_of_what_has_been_heard_and_changes_no_later_one(model, whole):
    asked, silent = StreamingRecogniser(model), StreamingRecogniser(model)
    assert asked.probabilities() is None
    answers = []
    for start in range(0, N, 700):
        asked.accept(WAVEFORM[start : start + 700])
        silent.accept(WAVEFORM[start : start + 700])
        answers.append(asked.probabilities())
        np.testing.assert_allclose(answers[-1], whole(min(start + 700, N)), rtol=1e-4, atol=1e-6)
    assert abs(answers[0] - answers[-1]).max() > 1e-4
    np.testing.assert_array_equal(asked.probabilities(), silent.probabilities())


def test_less_than_a_frame_is_no_answer_yet(model):
    recogniser = StreamingRecogniser(model)
    recogniser.accept(np.zeros(199, np.float32))
    assert recogniser.probabilities() is None
    recogniser.accept(np.zeros(1, np.float32))
    assert recogniser.probabilities().sum() == pytest.approx(1.0, rel=1e-5)
