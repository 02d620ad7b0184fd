"""A classifier of waveforms that may come in pieces: log-mel frames, recurrent layers, one answer at any time."""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import gru_jax
from experiments.schema import Natural, Positive
from experiments.tasks.recurrent import RecurrentConfig, recurrent
from experiments.tasks.speech.features import LogMel


@dataclasses.dataclass(frozen=True)
class DigitRecogniserConfig(RecurrentConfig):
    """As `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      prior_frames: the weight, in frames, of the learnt mean spectrum in what each frame is compared with.
      hidden_bands: in training, the most neighbouring mel bands that are hidden.
      delta_frames: D, over how many frames each frame's change is heard beside it; 0 for no changes.
      pooling: what an output of the recurrent layers counts for in the answer: "mean", as much as any; "gated", as much
        as a gate on it lets through, so that silence may count for nothing.
    """

    prior_frames: Positive = 10.0
    hidden_bands: Natural = 0
    delta_frames: Natural = 0
    pooling: Literal["mean", "gated"] = "mean"


class Heard(NamedTuple):
    """What is kept of the waveforms so far: arrays with a first axis B.

    Attributes:
      count: (B,) int32, frames.
      level: (B, M), the sum of their log-mel spectra.
      recent: (B, D, M), the last D of them, as compared with their mean.
      state: of the recurrent layers.
      output: (B, H), the weighted sum of the highest layer's outputs.
      weight: (B,), the sum of their weights.
    """

    count: jax.Array
    level: jax.Array
    recent: jax.Array
    state: Any
    output: jax.Array
    weight: jax.Array


class DigitRecogniser(nnx.Module):
    """Waveforms (B, N) -> class logits (B, O), whole or piece by piece with the same result.

    A frame's log-mel spectrum x_t is compared with the mean of all frames up to it, which begins as a learnt mean m of
    weight P, so that neither loudness nor the microphone matters, and no frame waits for a later one:

        x̂_t = (x_t - (P m + Σ_{s≤t} x_s) / (P + t)) / 2

    The recurrent layers hear x̂_t and its change 2 (x̂_t - x̂_{t-D}), x̂ before the first frame being 0; without changes
    x̂_t alone. The answer is read from the mean of the recurrent layers' outputs y_t, weighted by σ(a · y_t + b) where
    pooling is gated.
    """

    def __init__(self, config: DigitRecogniserConfig, front: LogMel, classes: int, rngs: nnx.Rngs):
        """Makes fresh parameters from `rngs`."""
        self.config, self.front = config, front
        self.mean = nnx.Param(jnp.full((front.bands,), -8.0))
        self.recurrent = recurrent(config, front.bands * (2 if config.delta_frames else 1), rngs)
        self.readout = nnx.Linear(config.hidden_size, classes, rngs=rngs)
        gated = config.pooling == "gated"
        self.gate = nnx.Linear(config.hidden_size, 1, kernel_init=nnx.initializers.zeros, rngs=rngs) if gated else None

    def __call__(self, waveforms: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Classifies whole waveforms.

        Args:
          waveforms: (B, N).
          lengths: (B,), samples of each, at least one window; what waveforms holds past them has no effect.
          key: for dropout, consumed; None for none.
        """
        key_heard, key_readout = (None, None) if key is None else jax.random.split(key)
        frames = self.front.frames(jnp.asarray(waveforms))
        heard = self.hear(self.silence(len(waveforms)), frames, self.front.count(lengths), key=key_heard)
        return self.answer(heard, key=key_readout)

    def silence(self, rows: int) -> Heard:
        """Returns what is kept before the first frame of `rows` waveforms."""
        return Heard(
            jnp.zeros((rows,), jnp.int32),
            jnp.zeros((rows, self.front.bands)),
            jnp.zeros((rows, self.config.delta_frames, self.front.bands)),
            self.recurrent.initial_state((rows,)),
            jnp.zeros((rows, self.config.hidden_size)),
            jnp.zeros((rows,)),
        )

    def hear(self, heard: Heard, frames: jax.Array, counts: jax.Array, *, key: jax.Array | None = None) -> Heard:
        """Takes in more frames.

        Args:
          heard: what is kept of the frames before.
          frames: (B, T, window).
          counts: (B,), how many of the T frames are there; what stands past them has no effect.
          key: for dropout and hidden bands, consumed; None for none.
        """
        key_bands, key_layers = (None, None) if key is None else jax.random.split(key)
        live = (jnp.arange(frames.shape[1])[None] < counts[:, None])[..., None]
        xs = jnp.where(live, self.front(jnp.where(live, frames, 0.0)), 0.0)
        sums = heard.level[:, None] + jnp.cumsum(xs, axis=1)
        P = self.config.prior_frames
        seen = P + heard.count[:, None] + jnp.arange(1, frames.shape[1] + 1)[None]
        compared = (xs - (P * self.mean[...][None, None] + sums) / seen[..., None]) / 2
        compared = hide_bands(compared, self.config.hidden_bands, key_bands)
        latest = jnp.concatenate([heard.recent, compared], axis=1)
        features = with_changes(latest, self.config.delta_frames) if self.config.delta_frames else compared
        ys, state = self.recurrent(
            features, heard.state, lengths=counts, deterministic=key_layers is None, rngs=key_layers
        )
        weights = live * (1.0 if self.gate is None else jax.nn.sigmoid(self.gate(ys)))
        output, weight = heard.output + (weights * ys).sum(axis=1), heard.weight + weights[..., 0].sum(axis=1)
        recent = jax.vmap(self._recent)(latest, counts)
        return Heard(heard.count + counts, sums[:, -1], recent, state, output, weight)

    def _recent(self, latest: jax.Array, count: jax.Array) -> jax.Array:
        """Takes the last D frames (D, M) of the D before and `count` new ones; what follows them is padding."""
        return jax.lax.dynamic_slice_in_dim(latest, count, self.config.delta_frames)

    def answer(self, heard: Heard, *, key: jax.Array | None = None) -> jax.Array:
        """Returns the logits (B, O) of what has been heard, at least one frame."""
        mean = heard.output / jnp.where(heard.weight > 0, heard.weight, 1.0)[:, None]
        return self.readout(gru_jax.dropout(mean, self.config.dropout, key))


def with_changes(xs: jax.Array, delta_frames: int) -> jax.Array:
    """Puts x_t and 2 (x_t - x_{t-D}) side by side: (B, D + T, M) -> (B, T, 2M), D = delta_frames."""
    latest = xs[:, delta_frames:]
    return jnp.concatenate([latest, 2 * (latest - xs[:, :-delta_frames])], axis=-1)


def hide_bands(xs: jax.Array, most: int, key: jax.Array | None) -> jax.Array:
    """Sets up to `most` neighbouring bands of each row of xs (B, T, M) to 0; none without a key."""
    if key is None or most == 0:
        return xs
    B, _, M = xs.shape
    key_size, key_start = jax.random.split(key)
    size = jax.random.randint(key_size, (B, 1), 0, most + 1)
    start = jax.random.randint(key_start, (B, 1), 0, M - size + 1)
    bands = jnp.arange(M)[None]
    hidden = (bands >= start) & (bands < start + size)
    return jnp.where(hidden[:, None], 0.0, xs)
