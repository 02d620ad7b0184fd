"""The distribution over chords: normalization, masks, samples."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.schema import UserError
from experiments.tasks.music.model import Polyphony, PolyphonyConfig, masks

K = 4
CONFIGS = {
    "independent": PolyphonyConfig(hidden_size=6),
    "direct": PolyphonyConfig(hidden_size=6, chord="ordered"),
    "hidden": PolyphonyConfig(hidden_size=6, chord="ordered", chord_size=7),
}
CHORDS = np.array(list(itertools.product((0.0, 1.0), repeat=K)), np.float32)


@pytest.fixture(params=CONFIGS, scope="module")
def model(request):
    made = Polyphony(CONFIGS[request.param], K, nnx.Rngs(3))
    grown = jax.tree.map(lambda leaf: 2 * leaf, nnx.state(made, nnx.Param))  # so that keys depend on each other
    nnx.update(made, grown)
    return made


@pytest.fixture(scope="module")
def rolls():
    return jax.random.bernoulli(jax.random.key(0), 0.5, (2, 5, K)).astype(jnp.float32)


def log_probabilities(model, rolls):
    """Returns the log-probability of every chord after each step of `rolls`: (2^K, B, T)."""

    def one(chord):
        following = jnp.broadcast_to(chord, rolls.shape)
        return -optax.sigmoid_binary_cross_entropy(model(rolls, following)[0], following).sum(axis=-1)

    return np.asarray(jax.vmap(one)(CHORDS), np.float64)


def test_probabilities_of_all_chords_sum_to_one(model, rolls):
    np.testing.assert_allclose(np.exp(log_probabilities(model, rolls)).sum(axis=0), 1.0, rtol=1e-5)


def test_logits_depend_on_lower_keys_and_all_previous_steps(model, rolls):
    following = 1 - rolls

    def slope(argument):
        jacobian = jax.jacobian(lambda *given: model(*given)[0].sum(axis=0), argument)(rolls, following)
        return np.abs(np.asarray(jacobian)).sum(axis=2)  # (T, K, T, K)

    own, past = slope(1), slope(0)
    for t, s in itertools.product(range(5), repeat=2):
        assert (past[t, :, s] > 0).all() == (s <= t)
        seen = own[t, :, s] > 0
        if s != t or model.below is None:
            assert not seen.any()
        else:
            np.testing.assert_array_equal(seen, np.tri(K, k=-1, dtype=bool))


def test_chords_are_sampled_with_their_probabilities(model, rolls):
    count, state = 4000, model.initial_state(1)
    _, state = model(rolls[:1, :3], rolls[:1, 1:4], state)
    expected = np.exp(log_probabilities(model, rolls)[:, 0, 3])
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, count, axis=0), state)
    drawn, _ = model.sample_step(jnp.repeat(rolls[:1, 3], count, axis=0), many, 1.0, jax.random.key(1))
    found = (np.asarray(drawn)[:, None] == CHORDS[None]).all(axis=-1).mean(axis=0)
    np.testing.assert_array_less(np.abs(found - expected), 5 * np.sqrt(expected * (1 - expected) / count) + 1e-6)


def test_masks_of_three_keys():
    below, into, out_of = masks(3, 2)  # units of degree 1 and 2
    np.testing.assert_array_equal(below, [[0, 1, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(into, [[1, 1], [0, 1], [0, 0]])
    np.testing.assert_array_equal(out_of, [[0, 1, 1], [0, 0, 1]])


def test_chord_size_with_independent_keys_raises():
    with pytest.raises(UserError, match="chord_size"):
        PolyphonyConfig(chord_size=5).check()
