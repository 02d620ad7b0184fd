"""The models in pretrained/: their cards say what evaluation gives, and they are used without any data."""

import os
import re

import numpy as np
import pytest

from experiments import tasks
from experiments.export import CONTENTS
from experiments.reporting import card, published
from experiments.runner import devices
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import RESULTS
from experiments.runner.run import load_parameters, load_task
from experiments.runner.run_folder import RunFolder
from tests.experiments.programs import ROOT, programs

MODELS = ROOT / "pretrained"
NAMES = ("digits", "etth1", "fsdd", "jsb", "tiny_shakespeare")
LARGEST_MB = 12
DATA = {"etth1": "ett/ETTh1.csv", "fsdd": "fsdd/fsdd.tar.gz", "jsb": "poly_music/JSB_Chorales.mat"} | {
    "tiny_shakespeare": "tiny_shakespeare/input.txt"
}
"""The file that evaluation needs. The digits are part of scikit-learn."""


def task_of(folder):
    """The task, made from the folder without its data."""
    config = folder.load_config()
    return tasks.find(config.task.name)(config.task, "/nowhere", folder.path)


def score_table(folder):
    """The columns of the table of scores in a card, by metric."""
    text = folder.card.read_text(encoding="utf-8").partition("## Score")[2].partition("\n## ")[0]
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"
    ]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def test_models_are_few_and_small():
    assert tuple(sorted(path.name for path in MODELS.iterdir() if path.is_dir())) == NAMES
    found = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in found) <= LARGEST_MB * 10**6
    assert [path.name for path in found if path.parent != MODELS and not CONTENTS.fullmatch(path.name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_card_says_where_the_model_comes_from(name):
    folder = RunFolder(MODELS / name)
    text, task = folder.card.read_text(encoding="utf-8"), task_of(folder)
    for said in (
        f" Data: {task.recorded.description}. Cell: ",
        f"\nLicense of the data: {task.dataset.license}.\n",
        *(card.COVERED, task.recorded.sha256, f"\n## Not for\n\n{task.not_for}\n"),
        f"--workdir=pretrained/{name} --split=test",
    ):
        assert said in text
    assert re.search(r"\n\| commit \| [0-9a-f]{40} \|\n", text)  # of a clean commit
    assert re.search(
        r"\n\| command \| `python -m experiments\.train --config=configs/\w+\.py\S* --workdir=\S+` \|\n", text
    )


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_changes_no_digit_of_the_result_tables(name):
    folder = RunFolder(MODELS / name)
    rows, table, task = published.read(RESULTS).rows.values(), score_table(folder), task_of(folder)
    digits = {row.metric: row.digits for row in rows if row.task == task.result_name}
    assert set(digits) == set(task.scoring.reported)
    for metric, form in digits.items():
        values = [float(table[metric][column]) for column in ("this model", "in float32") if column in table[metric]]
        assert len({f"{value:{form}}" for value in values}) == 1


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == NAMES[-1] else ()) for name in NAMES]
)
def test_card_shows_the_scores_of_evaluation(name, request):
    data_dir = None
    if name in DATA:
        request.getfixturevalue("data_file")(*DATA[name].split("/", 1))  # skips the test if it is missing
        data_dir = str(request.getfixturevalue("data_dir"))
    folder = RunFolder(MODELS / name)
    config, task = load_task(folder, data_dir)
    mesh = devices.make_mesh(task.batch_size, 1)
    found = load_parameters(config, task, folder, mesh)
    metrics = Evaluator(task, found.graphdef, mesh)(found.params, "test")
    shown = {metric: float(row["this model"]) for metric, row in score_table(folder).items()}
    assert shown.keys() == metrics.keys()
    for metric, value in metrics.items():  # cards have six digits
        np.testing.assert_allclose(shown[metric], value, rtol=1e-5, err_msg=metric)


@pytest.mark.slow
def test_commands_use_the_models_without_data(tmp_path, write_digit):
    series = tmp_path / "mine.csv"
    rows = [f"{np.sin(2 * np.pi * hour / 24):.6f}" for hour in range(400)]
    series.write_text("\n".join(["load", *rows]) + "\n")
    before = {path: path.stat().st_mtime_ns for path in [MODELS, *MODELS.rglob("*")]}
    out = tmp_path / "out"
    with programs(PYTHONPATH=os.fspath(ROOT), GRU_JAX_DATA=str(tmp_path / "nowhere")) as run:
        text = run.run("sample", f"--workdir={MODELS}/tiny_shakespeare", "--prompt=ROMEO:", "--length=40")
        assert text.startswith("ROMEO:")
        assert len(text) == len("ROMEO:") + 40 + 1
        shown = run.run("sample", f"--workdir={MODELS}/jsb", "--length=8", f"--output_dir={out}")
        assert shown == f"wrote {out}/jsb_sample_0.mid\nwrote {out}/jsb_sample_0.png\n"
        assert (out / "jsb_sample_0.mid").read_bytes()[:4] == b"MThd"
        shown = run.run(
            "transcribe", f"--workdir={MODELS}/fsdd", "--alternatives=10", write_digit(tmp_path / "some.wav")
        )
        assert sorted(re.findall(r"([a-z]+) [0-9.]+ %", shown)) == sorted(
            ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
        )
        command = ("forecast", f"--workdir={MODELS}/etth1", f"--csv={series}", "--column=load", "--date_column=")
        shown = run.run(*command, "--backtest", f"--output_dir={out}")
        assert "mean absolute error" in shown
        assert len((out / "etth1_forecast.csv").read_text().splitlines()) == 1 + 24
    assert {path: path.stat().st_mtime_ns for path in [MODELS, *MODELS.rglob("*")]} == before


@pytest.fixture
def write_digit():
    """Writes a WAV file of a rising tone, as long as a spoken digit."""

    def write(path):
        import wave

        times = np.arange(4000) / 8000
        samples = (8000 * np.sin(2 * np.pi * (300 + 400 * times) * times)).astype("<i2")
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8000)
            file.writeframes(samples.tobytes())
        return path

    return write
