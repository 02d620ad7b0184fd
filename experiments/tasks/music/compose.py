"""Samples of a trained music model: a piano roll, its MIDI file and its picture."""

import io
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments import files
from experiments.figures import png
from experiments.tasks.music.model import Polyphony
from experiments.tasks.music.task import LOWEST_NOTE

TICKS_PER_BEAT = 480
VELOCITY = 80


def write_composition(
    model: Polyphony,
    opening: np.ndarray,
    length: int,
    temperature: float,
    key: jax.Array,
    beats_per_step: float,
    stem: pathlib.Path,
) -> tuple[pathlib.Path, pathlib.Path]:
    """Samples a piece as `compose` does. Writes <stem>.mid and <stem>.png and returns both paths."""
    roll = compose(model, opening, length, temperature, key)
    paths = stem.with_name(f"{stem.name}.mid"), stem.with_name(f"{stem.name}.png")
    files.write_bytes(paths[0], midi(roll, beats_per_step))
    files.write_bytes(paths[1], picture(roll, len(opening)))
    return paths


def compose(model: Polyphony, opening: np.ndarray, length: int, temperature: float, key: jax.Array) -> np.ndarray:
    """Continues an opening. Every sampled step is fed back to the model.

    Args:
      model: a trained model.
      opening: (T, 88), at least one step.
      length: the number of steps to sample.
      temperature: divides the logits; 0 selects every key with a probability above one half.
      key: PRNG key, consumed.

    Returns:
      uint8 (T + length, 88).
    """
    graphdef, params = nnx.split(model)

    @jax.jit
    def sample_step(params: Any, x: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        following, state = nnx.merge(graphdef, params).sample_step(x[None], state, temperature, key)
        return following[0], state

    steps, state = [np.asarray(step, np.float32) for step in opening], model.initial_state(1)
    for t in range(len(opening) + length - 1):
        following, state = sample_step(params, jnp.asarray(steps[t]), state, jax.random.fold_in(key, t))
        if t + 1 >= len(opening):
            steps.append(np.asarray(following))
    return np.stack(steps).astype(np.uint8)


def midi(roll: np.ndarray, beats_per_step: float) -> bytes:
    """Returns the MIDI file of a roll (T, 88) at 120 beats per minute. A key that keeps sounding is held."""
    import mido

    silence = np.zeros((1, roll.shape[1]), np.int8)
    changes = np.diff(np.concatenate([silence, roll.astype(np.int8), silence]), axis=0)
    track, delta = mido.MidiTrack(), 0
    for step in changes:
        for kind, keys in (("note_off", np.flatnonzero(step < 0)), ("note_on", np.flatnonzero(step > 0))):
            for played in keys:
                track.append(mido.Message(kind, note=LOWEST_NOTE + int(played), velocity=VELOCITY, time=delta))
                delta = 0
        delta += round(TICKS_PER_BEAT * beats_per_step)
    file = io.BytesIO()
    mido.MidiFile(tracks=[track], ticks_per_beat=TICKS_PER_BEAT).save(file=file)
    return file.getvalue()


def picture(roll: np.ndarray, opening: int) -> bytes:
    """Returns a PNG of a roll (T, 88): steps to the right, pitch upwards, a line after `opening` steps."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        axes.imshow(roll.T, aspect="auto", origin="lower", cmap="Greys", interpolation="nearest")
        axes.axvline(opening - 0.5, color="tab:red", linewidth=1, label="start of the sample")
        played = np.flatnonzero(roll.any(axis=0))
        low, high = (played.min(), played.max()) if len(played) else (0, roll.shape[1] - 1)
        octaves = [key for key in range(roll.shape[1]) if (key + LOWEST_NOTE) % 12 == 0]
        axes.set_yticks(octaves, [f"C{(key + LOWEST_NOTE) // 12 - 1}" for key in octaves])
        axes.set(xlabel="step", ylim=(low - 2.5, high + 2.5))
        axes.legend(loc="upper right")

    return png((max(6.0, len(roll) / 12), 4), draw)
