"""Augmentations of speech against their definitions."""

import numpy as np
import pytest

from experiments.tasks.speech.augmentation import (
    augmented,
    hide_spans,
    impulse_response,
    resampled,
    span,
    spectral_change,
)
from experiments.tasks.speech.features import hertz, mel

BANK = {"coefficients": 13, "bands": 40, "low_hz": 130.0, "high_hz": 6800.0}


def spectrum(cepstra, bands=40):
    """The smooth log spectrum behind cepstra, band by band."""
    k = np.arange(len(cepstra))
    waves = np.cos(np.pi * k[:, None] * (np.arange(bands) + 0.5) / bands)
    return np.where(k == 0, 1, 2) * cepstra @ waves


def test_resampling_interpolates_linearly():
    signal = np.stack([np.arange(11.0), 2 * np.arange(11.0)], axis=1).astype(np.float32)
    np.testing.assert_array_equal(resampled(signal, 1.0), signal)
    faster = resampled(signal, 1.25)
    assert faster.shape == (9, 2)
    np.testing.assert_allclose(faster[:, 0], np.linspace(0, 10, 9), rtol=1e-6)
    np.testing.assert_allclose(faster[:, 1], 2 * faster[:, 0], rtol=1e-6)
    assert len(resampled(signal[:, 0], 0.5)) == 22
    assert len(resampled(signal[:1, 0], 1.5)) == 1


def test_spectral_change_without_change_is_the_identity():
    np.testing.assert_allclose(spectral_change(**BANK), np.eye(13), atol=1e-6)


def test_formants_move_by_the_warp():
    """A bump at 1500 Hz, smooth enough for 13 cepstra, moves to 1500 / 1.2 Hz in the spectrum L(1.2 f)."""
    centers = hertz(np.linspace(mel(130.0), mel(6800.0), 42)[1:-1])
    bump = np.exp(-(((mel(centers) - mel(1500.0)) / 300) ** 2))
    k = np.arange(13)
    cepstra = bump @ np.cos(np.pi * (np.arange(40)[:, None] + 0.5) * k / 40) / 40
    np.testing.assert_allclose(spectrum(cepstra), bump, atol=0.05)
    warped = spectrum(cepstra @ spectral_change(**BANK, warp=1.2))
    assert centers[np.argmax(warped)] == pytest.approx(1500 / 1.2, rel=0.04)
    np.testing.assert_allclose(warped, np.exp(-(((mel(1.2 * centers) - mel(1500.0)) / 300) ** 2)), atol=0.08)


def test_hidden_bands_are_nearly_zero():
    flat = np.zeros(13)
    flat[0] = 1.0
    hidden = spectrum(flat @ spectral_change(**BANK, hidden=slice(10, 20)))
    assert abs(hidden[13:17]).max() < 0.1
    assert abs(np.delete(hidden, slice(7, 23)) - 1).max() < 0.15


def test_spans_are_inside_and_vary():
    rng = np.random.default_rng(0)
    spans = [span(rng, 10, 4) for _ in range(300)]
    assert {one.stop - one.start for one in spans} == {0, 1, 2, 3, 4}
    assert min(one.start for one in spans) == 0
    assert max(one.stop for one in spans) == 10
    assert span(rng, 0, 4) == slice(0, 0)


def test_hidden_spans_respect_their_share():
    frames = np.ones((50, 3), np.float32)
    rng = np.random.default_rng(0)
    counts = [int((hide_spans(frames, rng, 1, 20, share=0.1) == 0).all(axis=1).sum()) for _ in range(100)]
    assert set(counts) == {0, 1, 2, 3, 4, 5}
    assert (frames == 1).all()
    np.testing.assert_array_equal(hide_spans(frames, rng, 0, 20, share=0.1), frames)


def test_augmentation_respects_its_bounds():
    waveform = np.sin(np.arange(4000) * 0.3).astype(np.float32)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(augmented(waveform, rng, 0, 0, 0, -300), waveform, atol=1e-6)
    lengths = [len(augmented(waveform, rng, 0.2, 0, 0, -300)) for _ in range(30)]
    assert 4000 / 1.2 - 1 <= min(lengths) < 3600
    assert 4500 < max(lengths) <= 4000 / 0.8
    levels = [abs(augmented(waveform, rng, 0, 0, 20, -300)).max() for _ in range(50)]
    assert 0.099 <= min(levels) < 0.3
    assert 3 < max(levels) <= 10.01
    noise = augmented(waveform, rng, 0, 0, 0, -20) - waveform
    level = 20 * np.log10(noise.std() / waveform.std())
    assert -50.5 < level < -19.5
    first = augmented(waveform, np.random.default_rng(1), 0.1, 0.5, 10, -20)
    np.testing.assert_array_equal(first, augmented(waveform, np.random.default_rng(1), 0.1, 0.5, 10, -20))
    assert first.dtype == np.float32


def test_silence_before_and_after_has_probability_one_half_and_only_noise():
    waveform, rng = np.sin(0.5 + np.arange(1000) * 0.3).astype(np.float32), np.random.default_rng(0)
    befores, afters = [], []
    for _ in range(100):
        longer = augmented(waveform, rng, 0, 0, 0, -300, silence=40)
        before = int(np.flatnonzero(abs(longer) > 1e-3)[0])
        befores.append(before)
        afters.append(len(longer) - 1000 - before)
        np.testing.assert_allclose(longer[before : before + 1000], waveform, atol=1e-6)
        assert abs(np.delete(longer, np.s_[before : before + 1000])).max(initial=0) < 1e-6
    for stretches in (befores, afters):
        assert 35 <= sum(size == 0 for size in stretches) <= 65
    assert 35 <= sum((a == 0) == (b == 0) for a, b in zip(befores, afters, strict=True)) <= 65
    assert 37 < max(befores + afters) <= 40
    noisy = augmented(waveform, np.random.default_rng(6), 0, 0, 0, -20, silence=40)
    assert len(noisy) > 1000
    assert (noisy != 0).all()
    noisier = np.random.default_rng(6).uniform(-1, 1, 4)[3]
    silent = augmented(waveform, np.random.default_rng(6), 0, 0, 0, -20, silence=20_000)[-5000:]
    level = 20 * np.log10(silent.std() / np.sqrt(np.mean(np.square(waveform))))
    assert level == pytest.approx(-20 - 15 * (1 + noisier), abs=0.3)  # relative to the sound without the silence


def test_impulse_responses_have_decaying_echoes_and_energy_one():
    rng = np.random.default_rng(8)
    drawn = np.stack([impulse_response(rng, 0.5) for _ in range(4000)])
    np.testing.assert_allclose((drawn**2).sum(axis=1), 1)
    echoes = (drawn / drawn[:, :1])[:, 1:]  # relative to the direct sound
    np.testing.assert_allclose(echoes.std(axis=0), 0.5 * 0.85 ** np.arange(16), rtol=0.06)
    np.testing.assert_array_equal(impulse_response(rng, 0.0), [1.0] + [0.0] * 16)


def test_color_convolves_with_an_impulse_response_of_the_same_length():
    click = np.zeros(40, np.float32)
    click[3] = 1.0
    heard = augmented(click, np.random.default_rng(9), 0, 0, 0, -300, color=0.5)
    assert heard.shape == click.shape
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard[:3], 0, atol=1e-6)
    np.testing.assert_allclose((heard**2).sum(), 1, rtol=1e-5)
    assert (abs(heard[4:20]) > 0).all()  # 16 echoes, and nothing after them
    np.testing.assert_allclose(heard[20:], 0, atol=1e-6)


def test_tilt_raises_or_lowers_high_frequencies():
    rng = np.random.default_rng(0)
    low = [augmented(np.ones(100, np.float32), rng, 0, 0.5, 0, -300) for _ in range(50)]
    assert 0.5 <= min(one.min() for one in low) < 0.6
    assert 1.4 < max(one.max() for one in low) <= 1.5
