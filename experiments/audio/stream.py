"""A waveform that comes in chunks, as the frames that the whole would have."""

import numpy as np

from experiments.audio.log_mel import LogMel


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
