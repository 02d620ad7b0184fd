"""A waveform that comes in chunks, as the frames that the whole would have.

Recognition while a waveform comes in: chunks of any size go in, the answer so far can be asked for at any time.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.tasks.speech.features import LogMel
from experiments.tasks.speech.recognizer import DigitRecogniser, Heard


class FrameStream:
    """Keeps the samples that the next frame still needs.

    Example:
      >>> stream = FrameStream(LogMel())
      >>> stream.accept(np.zeros(150, np.float32)).shape, stream.accept(np.zeros(150, np.float32)).shape
      ((0, 200), (2, 200))
    """

    def __init__(self, front: LogMel):
        """Starts before the first sample."""
        self.front = front
        self.rest = np.zeros(0, np.float32)

    def accept(self, chunk: np.ndarray) -> np.ndarray:
        """Takes samples (N,), any number of them; returns the frames (T, window) that they complete."""
        samples = np.concatenate([self.rest, chunk.astype(np.float32)])
        count = max(0, self.front.count(len(samples)))
        self.rest = samples[count * self.front.hop :]
        starts = np.arange(count)[:, None] * self.front.hop
        return samples[starts + np.arange(self.front.window)]


BLOCK_LENGTH = 16


class StreamingRecogniser:
    """Hears one waveform; after its last chunk the answer is that of the whole waveform at once.

    Frames are heard in blocks of one shape, compiled once; those that wait for a block to be full are heard when the
    answer is asked for, without being forgotten.

    Example:
      >>> recogniser = StreamingRecogniser(model)
      >>> for chunk in microphone:
      ...     recogniser.accept(chunk)
      ...     print(recogniser.probabilities().argmax())
    """

    def __init__(self, model: DigitRecogniser):
        """Starts before the first sample."""
        self.graph, self.params = nnx.split(model)
        self.frames = FrameStream(model.front)
        self.waiting = np.zeros((0, model.front.window), np.float32)
        self.heard = model.silence(1)

    def accept(self, chunk: np.ndarray) -> None:
        """Takes samples (N,) float32 in [-1, 1], any number of them."""
        self.waiting = np.concatenate([self.waiting, self.frames.accept(chunk)])
        while len(self.waiting) >= BLOCK_LENGTH:
            block, self.waiting = self.waiting[:BLOCK_LENGTH], self.waiting[BLOCK_LENGTH:]
            self.heard, _ = self._hear(block)

    def probabilities(self) -> np.ndarray | None:
        """Returns those of each class (O,) after all samples so far; None where they do not make one frame yet."""
        heard, logits = self._hear(self.waiting)
        return np.asarray(jax.nn.softmax(logits[0])) if int(heard.count[0]) else None

    def _hear(self, frames: np.ndarray) -> tuple[Heard, jax.Array]:
        block = np.zeros((1, BLOCK_LENGTH, frames.shape[1]), np.float32)
        block[0, : len(frames)] = frames
        return _advance(self.graph, self.params, self.heard, jnp.asarray(block), jnp.array([len(frames)], jnp.int32))


@jax.jit(static_argnums=0)
def _advance(graph: Any, params: Any, heard: Heard, frames: jax.Array, counts: jax.Array) -> tuple[Heard, jax.Array]:
    model = nnx.merge(graph, params)
    heard = model.hear(heard, frames, counts)
    return heard, model.answer(heard)
