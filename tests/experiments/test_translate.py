"""The translate command and its pictures of attention."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from flax import nnx

from experiments import translate
from experiments.figures import heat_map
from experiments.schema import UserError
from experiments.tasks.translation.model import EncoderDecoderConfig
from experiments.tasks.translation.multi30k import Multi30k, Multi30kConfig, Translation
from experiments.tasks.translation.subwords import END, Subwords
from tests.experiments.programs import programs

LINES = ["zwei männer stehen am herd", "ein mann steht am see", "zwei hunde stehen im schnee"] * 5


def test_alignments_are_labeled_with_subwords(tmp_path):
    for language in ("de", "en"):
        (tmp_path / f"subwords.{language}.model").write_bytes(Subwords.train(LINES, 28).model)
    task = Multi30k(Multi30kConfig(), None, tmp_path)
    model = task.model(EncoderDecoderConfig(hidden_size=6, embedding_size=4, attention_size=5), nnx.Rngs(0))
    codes = task.subwords[0].encode("ein see")
    weights, source, target = task.alignment(model, Translation(codes, codes[:2], ""))
    assert source == [*task.subwords[0].pieces(codes), "end"]
    assert target == [*source[:2], "end"]
    assert weights.shape == (3, len(source))
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    picture = heat_map(weights, source, target)
    assert picture.startswith(b"\x89PNG")
    assert picture != heat_map(weights[:, ::-1], source, target)
    assert END not in codes


@pytest.mark.slow
def test_trained_runs_translate(data_dir, data_file, tmp_path):
    data_file("multi30k", "raw/train.de.gz")
    smoke = ["--config=configs/multi30k.py:smoke", f"--data_dir={data_dir}", "--devices=1", "--config.train.steps=10"]
    attends, sums_up = tmp_path / "attends", tmp_path / "sums_up"
    with programs() as run:
        run.run("train", *smoke, f"--workdir={attends}")
        assert {"subwords.de.model", "subwords.en.model"} <= {path.name for path in attends.iterdir()}
        run.run(
            "train",
            *smoke,
            f"--workdir={sums_up}",
            "--config.model.attention=none",
            "--config.model.attention_size=256",
        )
        told = ["--beam_width=3", f"--heat_maps={tmp_path / 'maps'}", "Zwei Männer", "Ein Hund"]
        out = run.run("translate", f"--workdir={attends}", *told)
        assert len(out.splitlines()) == 2
        assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == ["1.png", "2.png"]
        error = run.run("translate", f"--workdir={sums_up}", *told, status=1)
        assert error == "error: --heat_maps: expected a run with attention, got one without\n"
        study = ["--split=validation", f"--folder={tmp_path / 'study'}", f"--data_dir={data_dir}"]
        out = run.run("studies.source_length", f"--workdir={attends},{sums_up}", *study)
    names = "| words of the source | sentences | with attention | without attention |"
    rows = [line.split("|")[1:-1] for line in out.splitlines()]
    assert out.splitlines()[0] == names
    assert sum(int(row[1]) for row in rows[2:-1]) == 100 == int(rows[-1][1])
    found = json.loads((tmp_path / "study" / "source_length.json").read_text())
    assert "nrefs:1|case:lc|eff:no|tok:13a|smooth:exp" in found["signature"]
    assert (found["split"], found["direction"]) == ("validation", "de-en")
    assert b"without attention" in (tmp_path / "study" / "source_length.svg").read_bytes()
    text = (tmp_path / "study" / "source_length.md").read_text()
    assert "BLEU of the validation split" in text
    assert names in text


def test_closed_standard_input_raises(monkeypatch):
    monkeypatch.setattr(translate.run, "load_trained", lambda *_: (None, None))
    monkeypatch.setattr(translate, "HEAT_MAPS", SimpleNamespace(value=None))
    monkeypatch.setattr(translate, "WORKDIR", SimpleNamespace(value="runs/x"))
    monkeypatch.setattr(translate.sys, "stdin", None)
    with pytest.raises(UserError, match=r"^expected sentences as arguments or on standard input, which is closed$"):
        translate.main(["translate"])


def test_standard_input_is_utf8_split_at_line_ends():
    data = "\ufeffzwei Männer\r\nein\u2028See\x0b\x85 am\n\nHerd".encode()
    assert translate.input_lines(data) == ["zwei Männer", "ein\u2028See\x0b\x85 am", "", "Herd"]
    with pytest.raises(UserError, match=r"standard input:2: expected UTF-8 text, got byte 0xff \(byte 3 of the line"):
        translate.input_lines(b"ein See\nam\xff")
