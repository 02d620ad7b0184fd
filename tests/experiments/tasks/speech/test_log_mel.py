"""Log-mel spectra of tones and of streams."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.speech.features import LogMel, hertz, mel
from experiments.tasks.speech.streaming import FrameStream

FRONT = LogMel()


def tone(frequency, samples=1000):
    return jnp.asarray(np.sin(2 * np.pi * frequency * np.arange(samples) / 8000), jnp.float32)


@pytest.mark.parametrize("frequency", [300.0, 1000.0, 2500.0])
def test_tone_is_loudest_in_the_band_of_its_frequency(frequency):
    spectra = np.asarray(FRONT(FRONT.frames(tone(frequency))))
    centers = hertz(np.linspace(mel(60.0), mel(4000.0), 42))[1:-1]
    assert spectra.shape == (11, 40)
    nearest = np.argmin(abs(centers - frequency))
    assert (abs(spectra.argmax(axis=1) - nearest) <= 1).all()


def test_values_equal_a_discrete_fourier_transform():
    frame = np.random.default_rng(0).standard_normal(200).astype(np.float32)
    n, k = np.arange(200), np.arange(129)[:, None]
    windowed = frame * (0.5 - 0.5 * np.cos(2 * np.pi * n / 199))
    energies = abs((windowed * np.exp(-2j * np.pi * k * n / 256)).sum(axis=1)) ** 2 / 200
    expected = np.log(energies @ FRONT.filters(256) + 1e-8)
    np.testing.assert_allclose(FRONT(jnp.asarray(frame)), expected, rtol=1e-4, atol=1e-4)


def test_filters_are_triangles_that_sum_to_one():
    bank = LogMel(window=1024, bands=20)
    filters = bank.filters(1024)
    bins = np.arange(513) * 8000 / 1024
    centers = hertz(np.linspace(mel(60.0), mel(4000.0), 22))[1:-1]
    between = (bins >= centers[0]) & (bins <= centers[-1])
    np.testing.assert_allclose(filters[between].sum(axis=1), 1.0, rtol=1e-5)
    assert (filters[bins < 60] == 0).all()
    assert (filters.max(axis=0) > 0.7).all()


def test_silence_is_finite_and_tenfold_amplitude_adds_log_100():
    silence = FRONT(FRONT.frames(jnp.zeros(400)))
    np.testing.assert_allclose(silence, np.log(1e-8), rtol=1e-6)
    soft, loud = (np.asarray(FRONT(FRONT.frames(gain * tone(1000.0)))) for gain in (1.0, 10.0))
    np.testing.assert_allclose(loud.max(axis=1) - soft.max(axis=1), np.log(100), rtol=1e-4)


@pytest.mark.parametrize(("samples", "frames"), [(199, 0), (200, 1), (279, 1), (280, 2), (1000, 11)])
def test_incomplete_frames_are_dropped(samples, frames):
    assert FRONT.count(samples) == frames
    assert FRONT.frames(jnp.zeros((2, samples))).shape == (2, frames, 200)


@pytest.mark.parametrize("size", [1, 37, 80, 200, 999, 5000])
def test_stream_has_the_frames_of_the_whole_waveform(size):
    waveform = np.random.default_rng(0).standard_normal(1234).astype(np.float32)
    stream = FrameStream(FRONT)
    pieces = [stream.accept(waveform[start : start + size]) for start in range(0, 1234, size)]
    np.testing.assert_array_equal(np.concatenate(pieces), FRONT.frames(jnp.asarray(waveform)))
    assert stream.accept(np.zeros(0, np.float32)).shape == (0, 200)
