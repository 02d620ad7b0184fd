"""The recognizer of spoken digits: causality, padding, chunks, normalization."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import RecognizerConfig, SpokenDigitRecognizer, hide_bands, with_differences

FRONT = LogMel(bands=12)


def make(**options: Any):
    config = RecognizerConfig(**{"hidden_size": 6, "num_layers": 2} | options)
    return SpokenDigitRecognizer(config, FRONT, 10, nnx.Rngs(0))


def sounds(samples, rows=2):
    return jax.random.normal(jax.random.key(1), (rows, samples)) * 0.1


@pytest.mark.parametrize("options", [{}, {"delta_frames": 3}, {"pooling": "gated"}])
def test_padding_changes_neither_logits_nor_gradients(options):
    graph, params = nnx.split(make(**options))
    waveforms, lengths = sounds(1000), jnp.array([1000, 555])

    @jax.jit
    def objective(params, waveforms):
        def loss(params):
            logits = nnx.merge(graph, params)(waveforms, lengths)
            return jnp.square(logits).sum(), logits

        return jax.grad(loss, has_aux=True)(params)

    clean = objective(params, waveforms.at[1, 555:].set(0))
    dirty = objective(params, waveforms.at[1, 555:].set(jnp.nan))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    alone = jax.jit(lambda cut: nnx.merge(graph, params)(cut, jnp.array([555])))(waveforms[1:, :555])
    np.testing.assert_allclose(alone, clean[1][1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"cell": "gru"}, {"cell": "lstm"}, {"delta_frames": 3}, {"delta_frames": 10}, {"pooling": "gated"}]
)
def test_chunks_equal_the_whole(options):
    model = make(**options)
    frames = FRONT.frames(sounds(1640))
    hear = jax.jit(lambda heard, frames, counts: model.advance(heard, frames, counts))
    whole = hear(model.initial_state(2), frames, jnp.array([19, 14]))
    pieces = hear(model.initial_state(2), frames[:, :8], jnp.array([8, 8]))
    pieces = hear(pieces, frames[:, 8:16], jnp.array([8, 6]))
    pieces = hear(pieces, frames[:, 11:], jnp.array([0, 0]))
    pieces = hear(pieces, frames[:, 16:], jnp.array([3, 0]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), whole, pieces)
    assert whole.count.tolist() == [19, 14]


def test_gated_pooling_is_a_weighted_mean():
    gated, plain = make(pooling="gated"), make()  # identical except for the gate
    frames = FRONT.frames(sounds(1000))
    heard, outputs = plain.initial_state(2), []
    hear = jax.jit(lambda heard, frame: plain.advance(heard, frame, jnp.array([1, 1])))
    for t in range(frames.shape[1]):
        after = hear(heard, frames[:, t : t + 1])
        outputs.append(after.output - heard.output)
        heard = after
    ys = np.stack(outputs, axis=1, dtype=np.float64)
    assert gated.gate is not None
    for kernel in (np.zeros(6), np.linspace(-30, 40, 6)):
        gated.gate.kernel[...] = jnp.asarray(kernel, jnp.float32)[:, None]
        weights = 1 / (1 + np.exp(-ys @ kernel))[..., None]
        mean = (weights * ys).sum(axis=1) / weights.sum(axis=1)
        expected = mean @ np.asarray(plain.readout.kernel[...]) + np.asarray(plain.readout.bias[...])
        np.testing.assert_allclose(gated(sounds(1000), jnp.array([1000, 1000])), expected, rtol=1e-3, atol=1e-5)
    assert weights.min() < 0.3 < 0.7 < weights.max()


def test_differences_span_delta_frames():
    xs = jnp.array([0, 0, 1, 3, 6, 10], jnp.float32)[None, :, None]
    expected = [[1, 2], [3, 6], [6, 10], [10, 14]]
    np.testing.assert_array_equal(with_differences(xs, 2)[0], expected)


@pytest.mark.parametrize("delta_frames", [0, 2])
def test_recognizer_is_causal(delta_frames):
    model = make(delta_frames=delta_frames)
    frames = FRONT.frames(sounds(1000, rows=1))

    @jax.jit
    @jax.grad
    def gradient(frames):
        return model.advance(model.initial_state(1), frames, jnp.array([5])).output.sum()

    slopes = np.asarray(gradient(frames))[0]
    assert (slopes[5:] == 0).all()
    assert (abs(slopes[:5]).max(axis=1) > 0).all()


def test_loudness_has_no_effect_without_the_prior():
    """A tenfold amplitude adds log 100 to each band and to the running mean. Only the prior makes a difference."""
    lengths = jnp.array([4000, 4000])
    pair = sounds(4000, rows=1) * jnp.array([[1.0], [10.0]])
    (soft, loud), (quieter, louder) = (
        np.asarray(jax.jit(make(prior_frames=weight))(pair, lengths)) for weight in (1e-3, 100.0)
    )
    np.testing.assert_allclose(soft, loud, rtol=1e-2, atol=1e-3)
    assert abs(quieter - louder).max() > 1e-2


def test_hidden_bands_are_adjacent_and_differ_between_rows():
    xs = jnp.ones((64, 3, 12))
    np.testing.assert_array_equal(hide_bands(xs, 4, None), xs)
    np.testing.assert_array_equal(hide_bands(xs, 0, jax.random.key(0)), xs)
    hidden = np.asarray(hide_bands(xs, 4, jax.random.key(0))) == 0
    assert (hidden == hidden[:, :1]).all()
    counts = hidden[:, 0].sum(axis=1)
    assert set(counts.tolist()) == {0, 1, 2, 3, 4}
    edges = np.abs(np.diff(np.pad(hidden[:, 0].astype(int), ((0, 0), (1, 1))), axis=1)).sum(axis=1)
    assert (edges[counts > 0] == 2).all()
    assert len(np.unique(hidden[:, 0], axis=0)) > 10
