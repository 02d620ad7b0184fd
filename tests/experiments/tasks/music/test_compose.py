"""Samples of music, their MIDI files and pictures."""

import io

import jax
import jax.numpy as jnp
import mido
import numpy as np
import pytest
from flax import nnx

from experiments.tasks.music import compose
from experiments.tasks.music.model import Polyphony, PolyphonyConfig

ROLL = np.zeros((4, 88), np.uint8)
ROLL[0:2, 39] = 1  # middle C for two steps
ROLL[1, 43] = 1  # E for one
ROLL[3, 39] = 1  # C again at the end


def test_midi_file_contains_the_roll():
    file = mido.MidiFile(file=io.BytesIO(compose.midi(ROLL, beats_per_step=0.5)))
    now, played = 0, []
    for message in file.tracks[0]:
        now += message.time
        if message.type in ("note_on", "note_off"):
            played.append((now / file.ticks_per_beat, message.type, message.note))
    assert played == [
        (0.0, "note_on", 60),
        (0.5, "note_on", 64),
        (1.0, "note_off", 60),
        (1.0, "note_off", 64),
        (1.5, "note_on", 60),
        (2.0, "note_off", 60),
    ]


def test_pictures_of_empty_and_full_rolls():
    for roll in (ROLL, np.zeros_like(ROLL)):
        assert compose.picture(roll, 1).startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def model():
    return Polyphony(PolyphonyConfig(hidden_size=8, chord="ordered", chord_size=100), 88, nnx.Rngs(0))


def test_composition_continues_its_opening(model):
    roll = compose.compose(model, ROLL[:3], 5, 0.0, jax.random.key(0))
    assert roll.shape == (8, 88)
    np.testing.assert_array_equal(roll[:3], ROLL[:3])
    rolls = jnp.asarray(roll[None], jnp.float32)
    logits, _ = model(rolls[:, :-1], rolls[:, 1:])
    np.testing.assert_array_equal(roll[3:], np.asarray(logits)[0, 2:] > 0)


def test_samples_follow_the_key_and_the_probabilities(model):
    first, again, other = (
        compose.compose(model, ROLL[:1], 30, temperature=1.0, key=jax.random.key(seed)) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    rolls = jnp.asarray(first[None], jnp.float32)
    logits, _ = model(rolls[:, :-1], rolls[:, 1:])
    expected = np.asarray(jax.nn.sigmoid(logits))[0].mean()
    assert first[1:].mean() == pytest.approx(expected, abs=4 * np.sqrt(0.25 / (30 * 88)))
