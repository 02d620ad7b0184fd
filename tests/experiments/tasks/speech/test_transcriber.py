"""The CTC loss against the enumeration of all paths."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.speech.ctc import BLANK
from experiments.tasks.speech.transcriber import Transcriber, TranscriberConfig, ctc_losses

T, V = 4, 3


def paths_of(labels, frames):
    """Returns every path with `frames` frames and the labeling `labels`: (P, frames)."""
    paths = itertools.product(range(V), repeat=frames)
    merged = ((path, [label for label, _ in itertools.groupby(path) if label != BLANK]) for path in paths)
    return np.array([path for path, labelling in merged if labelling == labels])


def brute_force(logits, labels, frames):
    scores = jax.nn.log_softmax(logits)[np.arange(frames)[None], paths_of(labels, frames)].sum(axis=1)
    return -jax.nn.logsumexp(scores)


CASES = [([1], 4), ([1, 2], 4), ([1, 1], 4), ([2, 1, 2], 4), ([], 4), ([2, 2], 3), ([1, 2], 2)]


def batch():
    labels = np.full((len(CASES), 3), 2, np.int32)  # labels in the padding, which must be ignored
    for row, (case, _) in enumerate(CASES):
        labels[row, : len(case)] = case
    lengths = np.array([frames for _, frames in CASES])
    return jnp.asarray(lengths), jnp.asarray(labels), jnp.asarray([len(case) for case, _ in CASES])


def test_loss_and_gradient_equal_the_sum_over_paths():
    logits = jax.random.normal(jax.random.key(0), (len(CASES), T, V))
    lengths, labels, counts = batch()

    def losses(logits):
        values = ctc_losses(jax.nn.log_softmax(logits), lengths, labels, counts)
        return values.sum(), values

    def every_path(logits):
        values = jnp.stack([brute_force(logits[row], *case) for row, case in enumerate(CASES)])
        return values.sum(), values

    (gradient, values), (expected_gradient, expected) = (
        jax.jit(jax.grad(objective, has_aux=True))(logits) for objective in (losses, every_path)
    )
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-5)


def test_probabilities_of_all_labelings_sum_to_one():
    log_probs = jax.nn.log_softmax(jax.random.normal(jax.random.key(1), (T, V)))
    labellings = [
        labels
        for count in range(T + 1)
        for labels in itertools.product(range(1, V), repeat=count)
        if len(paths_of(list(labels), T))
    ]
    padded = np.zeros((len(labellings), T), np.int32)
    for row, labels in enumerate(labellings):
        padded[row, : len(labels)] = labels
    counts = jnp.asarray([len(labels) for labels in labellings])
    rows = len(labellings)
    losses = ctc_losses(jnp.tile(log_probs, (rows, 1, 1)), jnp.full((rows,), T), jnp.asarray(padded), counts)
    assert math.fsum(np.exp(-np.asarray(losses, np.float64))) == pytest.approx(1.0, rel=1e-5)


def test_padding_changes_neither_loss_nor_gradient():
    config = TranscriberConfig(hidden_size=5, num_layers=2)
    model = Transcriber(config, 3, V, nnx.Rngs(0))
    graph, params = nnx.split(model)
    lengths, labels, counts = jnp.array([4, 6]), jnp.array([[1, 2, 0], [2, 0, 0]]), jnp.array([2, 1])
    xs = jax.random.normal(jax.random.key(0), (2, 6, 3))

    @jax.jit
    @jax.value_and_grad
    def loss(params, xs, labels):
        log_probs = nnx.merge(graph, params)(xs, lengths)
        return ctc_losses(log_probs, lengths, labels, counts).sum()

    clean = loss(params, xs, labels)
    dirty = loss(params, xs.at[0, 4:].set(jnp.nan), labels.at[0, 2].set(1).at[1, 1:].set(2))
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert np.isfinite(clean[0])


def test_log_probabilities_are_normalized_and_dropout_acts_only_in_training():
    config = TranscriberConfig(hidden_size=5, input_dropout=0.5)
    model = Transcriber(config, 3, V, nnx.Rngs(0))
    assert model.softmax.kernel.shape == (10, V)
    xs, lengths = jax.random.normal(jax.random.key(0), (2, 6, 3)), jnp.array([6, 3])
    still = model(xs, lengths)
    np.testing.assert_allclose(jnp.exp(still).sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_array_equal(still, model(xs, lengths))
    assert abs(still - model(xs, lengths, key=jax.random.key(1))).max() > 1e-3
