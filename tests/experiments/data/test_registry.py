"""The registry of data sets against the real files."""

import re

import pytest

from experiments.data.fetch import fetch, is_intact
from experiments.data.registry import REGISTRY

ALL = [(dataset.name, file) for dataset in REGISTRY.values() for file in dataset.files]


@pytest.mark.parametrize("dataset", REGISTRY)
def test_available_files_pass_their_checksums(data_dir, dataset):
    names = [name for name in REGISTRY[dataset].files if (data_dir / dataset / name).is_file()]
    if not names:
        pytest.skip(f"{data_dir} holds no file of {dataset}")
    for name in names:
        assert fetch(dataset, name, data_dir) == data_dir / dataset / name


@pytest.mark.parametrize(
    ("dataset", "name"), [(dataset, name) for dataset, name in ALL if REGISTRY[dataset].files[name].contents]
)
def test_content_digests_match_the_stored_files(data_dir, dataset, name):
    """A file with a content digest is also accepted by that digest alone."""
    entry = REGISTRY[dataset].files[name]
    path = data_dir / dataset / name
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    by_contents_alone = type(entry)(name, type(entry.stored)(0, ""), entry.contents, (), False, "")
    assert is_intact(path, by_contents_alone)


def test_urls_and_digests_are_well_formed():
    for dataset, name in ALL:
        entry = REGISTRY[dataset].files[name]
        for digest in filter(None, (entry.stored, entry.contents)):
            assert digest.size > 0
            assert re.fullmatch(r"[0-9a-f]{64}", digest.sha256)
        for url in entry.urls:
            assert re.fullmatch(r"https://[a-z0-9.-]+/[\w./-]+", url), url
        assert entry.urls or entry.by_hand
        assert not entry.compress or entry.contents
    assert all(dataset.license and dataset.citation for dataset in REGISTRY.values())


def test_digests_are_unique():
    stored = [REGISTRY[dataset].files[name].stored for dataset, name in ALL]
    assert len(set(stored)) == len(stored) == 76


def test_urls_of_files_stored_in_another_form():
    assert REGISTRY["ptb"].files["ptb.char.train.txt.gz"].urls[0].endswith("/data/ptb.char.train.txt")
    assert REGISTRY["ptb"].files["ptb.char.train.txt.gz"].compress
    assert not REGISTRY["ptb"].files["ptb.train.txt"].compress
    assert REGISTRY["multi30k"].files["tok/val.lc.norm.tok.de.gz"].urls[0].endswith("/tok/val.lc.norm.tok.de")
    assert REGISTRY["multi30k"].files["raw/val.de.gz"].urls[0].endswith("/raw/val.de.gz")
    assert not REGISTRY["multi30k"].files["raw/val.de.gz"].compress
    assert not REGISTRY["mnist"].files["train-images-idx3-ubyte.gz"].compress
    assert REGISTRY["an4_mfcc"].files["an4_mfcc.npz"].urls == ()
