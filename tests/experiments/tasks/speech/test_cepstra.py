"""Features of cepstra against their formulas; feature files of both byte orders."""

import struct

import numpy as np
import pytest

from experiments.schema import UserError
from experiments.tasks.speech.features import deltas, read_cepstra, stacked, standardized, with_deltas


def ramp(T=9):
    t = np.arange(T, dtype=np.float32)
    return np.stack([2 * t + 1, np.full(T, 5.0, np.float32), t * t], axis=1)


def test_deltas_equal_regression_slopes():
    slopes = deltas(ramp())
    assert slopes.dtype == np.float32
    np.testing.assert_allclose(slopes[2:-2, 0], 2.0, rtol=1e-6)
    np.testing.assert_array_equal(slopes[:, 1], 0.0)
    np.testing.assert_allclose(slopes[2:-2, 2], 2 * np.arange(2, 7), rtol=1e-6)
    # At the edge, the first frame is repeated: (1 (3 - 1) + 2 (5 - 1)) / 10.
    assert slopes[0, 0] == pytest.approx(1.0)
    assert deltas(np.ones((1, 3), np.float32)).tolist() == [[0.0, 0.0, 0.0]]


def test_deltas_and_second_deltas_are_appended():
    frames = ramp()
    both = with_deltas(frames)
    np.testing.assert_array_equal(both[:, :3], frames)
    np.testing.assert_array_equal(both[:, 3:6], deltas(frames))
    np.testing.assert_allclose(both[4, 6:], [0, 0, 2], atol=1e-6)


def test_coefficients_are_standardized_per_utterance():
    frames = standardized(ramp())
    np.testing.assert_allclose(frames.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(frames.std(axis=0), [1, 0, 1], rtol=1e-5)


def test_frames_are_stacked_and_padded_with_zeros():
    frames = np.arange(10, dtype=np.float32).reshape(5, 2)
    np.testing.assert_array_equal(stacked(frames, 3), [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 0, 0]])
    np.testing.assert_array_equal(stacked(frames, 1), frames)


@pytest.mark.parametrize("order", [">", "<"])
def test_feature_files_are_read_in_either_byte_order(tmp_path, order):
    frames = np.random.default_rng(0).standard_normal((7, 13)).astype(np.float32)
    path = tmp_path / "one.mfc"
    path.write_bytes(struct.pack(f"{order}i", frames.size) + frames.astype(f"{order}f4").tobytes())
    read = read_cepstra(path, 13)
    np.testing.assert_array_equal(read, frames)
    assert read.dtype == np.float32
    with pytest.raises(UserError, match=r"one.mfc: expected a Sphinx feature file with 12 cepstra per frame"):
        read_cepstra(path, 12)


@pytest.mark.parametrize("content", [b"", b"RIFF", struct.pack(">i", 14) + bytes(13 * 4), b"RIFF" + bytes(4000)])
def test_other_files_raise(tmp_path, content):
    path = tmp_path / "other.mfc"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"got {len(content)} bytes in another format$"):
        read_cepstra(path, 13)


def test_missing_file_raises(tmp_path):
    with pytest.raises(UserError, match=r"none.mfc: expected a readable file \(No such file or directory\)"):
        read_cepstra(tmp_path / "none.mfc", 13)
