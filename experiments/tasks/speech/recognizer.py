"""A streaming recognizer of spoken digits: log-mel frames, causal recurrent layers, class logits at any time."""

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
class RecognizerConfig(RecurrentConfig):
    """Extends `RecurrentConfig`; `dropout` also acts before the readout.

    Attributes:
      prior_frames: P, the weight of the learned mean spectrum in the running mean, in frames.
      hidden_bands: the most adjacent mel bands that are masked in training.
      delta_frames: D, the distance in frames of the difference features; 0 for none.
      pooling: the mean over the outputs of the recurrent layers: plain ("mean") or weighted by a learned gate
        ("gated"), which can ignore silence.
    """

    prior_frames: Positive = 10.0
    hidden_bands: Natural = 0
    delta_frames: Natural = 0
    pooling: Literal["mean", "gated"] = "mean"


class RecognizerState(NamedTuple):
    """The state between two chunks of waveforms. All arrays have a batch axis B first.

    Attributes:
      count: (B,) int32, the frames so far.
      sums: (B, M), the sum of their log-mel spectra.
      recent: (B, D, M), the last D normalized frames.
      recurrent: the state of the recurrent layers.
      output: (B, H), the weighted sum of the outputs of the last layer.
      weight: (B,), the sum of the weights.
    """

    count: jax.Array
    sums: jax.Array
    recent: jax.Array
    recurrent: Any
    output: jax.Array
    weight: jax.Array


class SpokenDigitRecognizer(nnx.Module):
    """Maps waveforms (B, N) to class logits (B, O), whole or in chunks with the same result.

    The mean of all frames so far is subtracted from each log-mel frame x_t. The running mean starts from a learned
    mean m of weight P. This makes loudness and microphone irrelevant and keeps the model causal:

        x̂_t = (x_t - (P m + Σ_{s≤t} x_s) / (P + t)) / 2

    The recurrent layers read x̂_t and, if D > 0, the difference 2 (x̂_t - x̂_{t-D}), with x̂ = 0 before the first frame.
    The readout gets the mean of the layers' outputs y_t, with weights σ(a · y_t + b) if pooling is gated.
    """

    def __init__(self, config: RecognizerConfig, front: LogMel, classes: int, rngs: nnx.Rngs):
        """Initializes the parameters from `rngs`."""
        self.config, self.front = config, front
        self.mean = nnx.Param(jnp.full((front.bands,), -8.0))
        self.recurrent = recurrent(config, front.bands * (2 if config.delta_frames else 1), rngs)
        self.readout = nnx.Linear(config.hidden_size, classes, rngs=rngs)
        gated = config.pooling == "gated"
        self.gate = nnx.Linear(config.hidden_size, 1, kernel_init=nnx.initializers.zeros, rngs=rngs) if gated else None

    def __call__(self, waveforms: jax.Array, lengths: jax.Array, *, key: jax.Array | None = None) -> jax.Array:
        """Classifies whole waveforms.

        Args:
          waveforms: (B, N) float.
          lengths: (B,) int, the samples of each, at least one window. Samples past a length have no effect.
          key: PRNG key for dropout, consumed; None for no dropout.

        Returns:
          logits (B, O).
        """
        key_frames, key_readout = (None, None) if key is None else jax.random.split(key)
        frames, state = self.front.frames(jnp.asarray(waveforms)), self.initial_state(len(waveforms))
        return self.logits(self.advance(state, frames, self.front.count(lengths), key=key_frames), key=key_readout)

    def initial_state(self, rows: int) -> RecognizerState:
        """Returns the state before the first frame of `rows` waveforms."""
        return RecognizerState(
            jnp.zeros((rows,), jnp.int32),
            jnp.zeros((rows, self.front.bands)),
            jnp.zeros((rows, self.config.delta_frames, self.front.bands)),
            self.recurrent.initial_state((rows,)),
            jnp.zeros((rows, self.config.hidden_size)),
            jnp.zeros((rows,)),
        )

    def advance(
        self, state: RecognizerState, frames: jax.Array, counts: jax.Array, *, key: jax.Array | None = None
    ) -> RecognizerState:
        """Returns the state after more frames.

        Args:
          state: from `initial_state` or a previous call.
          frames: (B, T, window) float.
          counts: (B,) int, the number of valid frames in each row. The rest has no effect.
          key: PRNG key for dropout and masked bands, consumed; None for neither.
        """
        key_bands, key_layers = (None, None) if key is None else jax.random.split(key)
        mask = (jnp.arange(frames.shape[1])[None] < counts[:, None])[..., None]
        xs = jnp.where(mask, self.front(jnp.where(mask, frames, 0.0)), 0.0)
        sums = state.sums[:, None] + jnp.cumsum(xs, axis=1)
        P = self.config.prior_frames
        total = P + state.count[:, None] + jnp.arange(1, frames.shape[1] + 1)[None]
        normalized = (xs - (P * self.mean[...][None, None] + sums) / total[..., None]) / 2
        normalized = hide_bands(normalized, self.config.hidden_bands, key_bands)
        latest = jnp.concatenate([state.recent, normalized], axis=1)
        features = with_differences(latest, self.config.delta_frames) if self.config.delta_frames else normalized
        ys, h = self.recurrent(
            features, state.recurrent, lengths=counts, deterministic=key_layers is None, rngs=key_layers
        )
        weights = mask * (1.0 if self.gate is None else jax.nn.sigmoid(self.gate(ys)))
        output, weight = state.output + (weights * ys).sum(axis=1), state.weight + weights[..., 0].sum(axis=1)
        recent = jax.vmap(self._last_frames)(latest, counts)
        return RecognizerState(state.count + counts, sums[:, -1], recent, h, output, weight)

    def _last_frames(self, latest: jax.Array, count: jax.Array) -> jax.Array:
        """Returns the last D valid frames (D, M) of D previous and `count` new ones."""
        return jax.lax.dynamic_slice_in_dim(latest, count, self.config.delta_frames)

    def logits(self, state: RecognizerState, *, key: jax.Array | None = None) -> jax.Array:
        """Returns the logits (B, O) of a state after at least one frame."""
        mean = state.output / jnp.where(state.weight > 0, state.weight, 1.0)[:, None]
        return self.readout(gru_jax.dropout(mean, self.config.dropout, key))


def with_differences(xs: jax.Array, delta_frames: int) -> jax.Array:
    """Concatenates x_t and 2 (x_t - x_{t-D}): (B, D + T, M) -> (B, T, 2M), with D = delta_frames."""
    latest = xs[:, delta_frames:]
    return jnp.concatenate([latest, 2 * (latest - xs[:, :-delta_frames])], axis=-1)


def hide_bands(xs: jax.Array, most: int, key: jax.Array | None) -> jax.Array:
    """Sets up to `most` adjacent bands of each row of xs (B, T, M) to 0; none without a key."""
    if key is None or most == 0:
        return xs
    B, _, M = xs.shape
    key_size, key_start = jax.random.split(key)
    size = jax.random.randint(key_size, (B, 1), 0, most + 1)
    start = jax.random.randint(key_start, (B, 1), 0, M - size + 1)
    bands = jnp.arange(M)[None]
    hidden = (bands >= start) & (bands < start + size)
    return jnp.where(hidden[:, None], 0.0, xs)
