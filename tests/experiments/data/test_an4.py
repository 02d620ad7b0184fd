"""The corpus is whole, and no speaker is in two parts of it."""

import numpy as np
import pytest

from experiments.data import an4
from experiments.data.fetch import DownloadError


def test_the_standard_split_and_the_held_out_speakers(data_file, data_dir):
    data_file("an4_mfcc", "an4_mfcc.npz")
    splits = an4.load(str(data_dir))
    assert {name: len(split) for name, split in splits.items()} == {"train": 848, "validation": 100, "test": 130}
    speakers = {name: {one.speaker for one in split} for name, split in splits.items()}
    assert {name: len(those) for name, those in speakers.items()} == {"train": 66, "validation": 8, "test": 10}
    assert speakers["validation"] == set(an4.VALIDATION_SPEAKERS)
    assert not speakers["train"] & speakers["validation"]
    assert not speakers["test"] & (speakers["train"] | speakers["validation"])
    assert sum(len(one.text.split()) for one in splits["test"]) == 773
    assert sum(len(one.cepstra) for one in splits["test"]) == 35_570
    assert set("".join(one.text for split in splits.values() for one in split)) == set(an4.ALPHABET)


def test_utterances_keep_their_own_frames_and_text(data_file, data_dir):
    path = data_file("an4_mfcc", "an4_mfcc.npz")
    first, second = an4.load(str(data_dir))["test"][:2]
    assert (first.name, first.speaker, first.text) == ("an406-fcaw-b", "fcaw", "RUBOUT G M E F THREE NINE")
    with np.load(path) as arrays:
        frames, (one, two) = arrays["test_feats"], arrays["test_lens"][:2]
    np.testing.assert_array_equal(first.cepstra, frames[:one])
    np.testing.assert_array_equal(second.cepstra, frames[one : one + two])


def test_where_the_corpus_is_missing_the_line_says_where_it_comes_from(tmp_path):
    with pytest.raises(DownloadError, match=r"an4_mfcc.npz is not at .*http://www.speech.cs.cmu.edu/databases/an4/"):
        an4.load(str(tmp_path))
