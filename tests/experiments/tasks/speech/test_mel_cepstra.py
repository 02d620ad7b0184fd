"""Mel-cepstra against their formula."""

import math

import numpy as np
import pytest

from experiments.tasks.speech.features import MelCepstra, hertz, mel

FRONT = MelCepstra()


def noise(samples=2000, seed=0):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples)


def test_values_equal_the_formula():
    waveform = noise(410 + 160)
    x = 32768 * waveform
    y = np.array([x[n] - 0.97 * (x[n - 1] if n else 0.0) for n in range(len(x))])
    n = np.arange(410)
    frame = y[160:570] * (0.54 - 0.46 * np.cos(2 * np.pi * n / 409))
    power = [abs((frame * np.exp(-2j * np.pi * k * n / 512)).sum()) ** 2 for k in range(257)]
    low, step = float(mel(130.0)), float(mel(6800.0) - mel(130.0)) / 41
    logs = []
    for band in range(40):
        left, center, right = (float(hertz(low + step * (band + i))) for i in range(3))
        total = 0.0
        for k, energy in enumerate(power):
            f = k * 16000 / 512
            slope = (f - left) / (center - left) if f < center else (right - f) / (right - center)
            total += energy * max(slope, 0.0) * 2 / (right - left)
        logs.append(math.log(total))
    expected = [
        sum((0.5 if b == 0 else 1.0) * logs[b] * math.cos(math.pi * k * (b + 0.5) / 40) for b in range(40)) / 40
        for k in range(13)
    ]
    cepstra = FRONT(waveform)
    assert (cepstra.shape, cepstra.dtype) == ((2, 13), np.float32)
    np.testing.assert_allclose(cepstra[1], expected, rtol=1e-5, atol=1e-5)


def test_gain_adds_a_constant_to_every_frame():
    change = FRONT(noise()) - FRONT(noise() / 10)
    np.testing.assert_allclose(change, np.broadcast_to(change[:1], change.shape), atol=1e-5)
    assert change[0, 0] == pytest.approx(math.log(100) * 39.5 / 40, rel=1e-5)


def test_frames_are_one_hop_apart():
    np.testing.assert_allclose(FRONT(noise()[160:])[1:], FRONT(noise())[2:], atol=1e-6)
    assert len(FRONT(noise(410))) == 1
    assert len(FRONT(noise(410 + 159))) == 1
    assert len(FRONT(noise(410 + 160))) == 2


def test_waveform_starts_after_silence():
    np.testing.assert_allclose(FRONT(np.concatenate([np.zeros(160), noise()]))[1], FRONT(noise())[0], atol=1e-6)


def test_digital_silence_is_finite():
    np.testing.assert_array_equal(FRONT(np.zeros(1000)), np.zeros((4, 13), np.float32))
