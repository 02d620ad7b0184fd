"""New music from a trained model: a piano roll drawn step by step, as a MIDI file and as a picture."""

import io
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.figures import png
from experiments.tasks.music.model import Polyphony
from experiments.tasks.music.task import LOWEST_NOTE

TICKS_PER_BEAT = 480
VELOCITY = 80


def compose(model: Polyphony, opening: np.ndarray, length: int, temperature: float, key: jax.Array) -> np.ndarray:
    """Goes on from an opening, each drawn step fed back to the model.

    Args:
      model: predicts the keys of each next step.
      opening: (T, 88), at least one step.
      length: how many steps to draw.
      temperature: divides the logits; 0 takes every key that is likelier to sound than not.
      key: consumed.

    Returns:
      uint8 (T + length, 88).
    """
    graph, params = nnx.split(model)

    @jax.jit
    def draw(params: Any, x: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        drawn, state = nnx.merge(graph, params).draw(x[None], state, temperature, key)
        return drawn[0], state

    steps, state = [np.asarray(step, np.float32) for step in opening], model.initial_state(1)
    for place in range(len(opening) + length - 1):
        drawn, state = draw(params, jnp.asarray(steps[place]), state, jax.random.fold_in(key, place))
        if place + 1 >= len(opening):
            steps.append(np.asarray(drawn))
    return np.stack(steps).astype(np.uint8)


def midi(roll: np.ndarray, beats_per_step: float) -> bytes:
    """Returns a MIDI file of a roll (T, 88), at 120 beats a minute: a key that sounds on is held, not struck again."""
    import mido

    silence = np.zeros((1, roll.shape[1]), np.int8)
    changes = np.diff(np.concatenate([silence, roll.astype(np.int8), silence]), axis=0)
    track, waited = mido.MidiTrack(), 0
    for step in changes:
        for kind, keys in (("note_off", np.flatnonzero(step < 0)), ("note_on", np.flatnonzero(step > 0))):
            for played in keys:
                track.append(mido.Message(kind, note=LOWEST_NOTE + int(played), velocity=VELOCITY, time=waited))
                waited = 0
        waited += round(TICKS_PER_BEAT * beats_per_step)
    file = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=TICKS_PER_BEAT).save(file=file)
    return file.getvalue()


def picture(roll: np.ndarray, opening: int) -> bytes:
    """Draws a roll as a PNG: time to the right, pitch upwards; what comes after `opening` steps is the model's."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(roll.T, aspect="auto", origin="lower", cmap="Greys", interpolation="nearest")
        axes.axvline(opening - 0.5, color="tab:red", linewidth=1, label="from here on composed")
        played = np.flatnonzero(roll.any(axis=0))
        low, high = (played.min(), played.max()) if len(played) else (0, roll.shape[1] - 1)
        octaves = [key for key in range(roll.shape[1]) if (key + LOWEST_NOTE) % 12 == 0]
        axes.set_yticks(octaves, [f"C{(key + LOWEST_NOTE) // 12 - 1}" for key in octaves])
        axes.set(xlabel="step", ylim=(low - 2.5, high + 2.5))
        axes.legend(loc="upper right")

    return png((max(6.0, len(roll) / 12), 4), draw)
