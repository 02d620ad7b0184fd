"""Recognition of a waveform that arrives in chunks of any size, with class probabilities at any time."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import RecognizerState, SpokenDigitRecognizer


class FrameStream:
    """Splits chunks of samples into the frames of the whole waveform.

    Example:
      >>> stream = FrameStream(LogMel())
      >>> stream.accept(np.zeros(150, np.float32)).shape, stream.accept(np.zeros(150, np.float32)).shape
      ((0, 200), (2, 200))
    """

    def __init__(self, front: LogMel):
        """Starts an empty stream."""
        self.front = front
        self.rest = np.zeros(0, np.float32)

    def accept(self, chunk: np.ndarray) -> np.ndarray:
        """Returns the frames (T, window) that the samples (N,) complete."""
        samples = np.concatenate([self.rest, chunk.astype(np.float32)])
        count = max(0, self.front.count(len(samples)))
        self.rest = samples[count * self.front.hop :]
        starts = np.arange(count)[:, None] * self.front.hop
        return samples[starts + np.arange(self.front.window)]


BLOCK_LENGTH = 16


class StreamingRecognizer:
    """Recognizes one waveform. After the last chunk, the result equals a call with the whole waveform.

    Frames are processed in blocks of one shape, compiled once. `probabilities` also includes the frames that do not
    fill a block yet.

    Example:
      >>> recognizer = StreamingRecognizer(model)
      >>> for chunk in microphone:
      ...     recognizer.accept(chunk)
      ...     print(recognizer.probabilities().argmax())
    """

    def __init__(self, model: SpokenDigitRecognizer):
        """Starts an empty stream."""
        self.graphdef, self.params = nnx.split(model)
        self.frames = FrameStream(model.front)
        self.pending = np.zeros((0, model.front.window), np.float32)
        self.state = model.initial_state(1)

    def accept(self, chunk: np.ndarray) -> None:
        """Processes samples (N,) float32 in [-1, 1]."""
        self.pending = np.concatenate([self.pending, self.frames.accept(chunk)])
        while len(self.pending) >= BLOCK_LENGTH:
            block, self.pending = self.pending[:BLOCK_LENGTH], self.pending[BLOCK_LENGTH:]
            self.state, _ = self._advance(block)

    def probabilities(self) -> np.ndarray | None:
        """Returns the class probabilities (O,) given all samples so far; None before the first whole frame."""
        state, logits = self._advance(self.pending)
        return np.asarray(jax.nn.softmax(logits[0])) if int(state.count[0]) else None

    def _advance(self, frames: np.ndarray) -> tuple[RecognizerState, jax.Array]:
        block = np.zeros((1, BLOCK_LENGTH, frames.shape[1]), np.float32)
        block[0, : len(frames)] = frames
        return _advance(self.graphdef, self.params, self.state, jnp.asarray(block), jnp.array([len(frames)], jnp.int32))


@jax.jit(static_argnums=0)
def _advance(
    graphdef: Any, params: Any, state: RecognizerState, frames: jax.Array, counts: jax.Array
) -> tuple[RecognizerState, jax.Array]:
    model = nnx.merge(graphdef, params)
    state = model.advance(state, frames, counts)
    return state, model.logits(state)
