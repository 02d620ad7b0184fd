"""Artifacts: a run folder is usable without its data, and changed or moved data is detected."""

import dataclasses
import hashlib
import io
import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.runner import devices, loop
from experiments.runner.config import load, resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.logging import Display
from experiments.runner.run import load_trained
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks import base, find
from experiments.tasks.forecasting.task import Forecasting, ForecastingConfig
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.generate import generate
from tests.experiments.config_files import GENERATED, NAMES
from tests.experiments.programs import SONG, programs

TEXT = SONG * 8


def configuration(path):
    return resolve(
        {
            "task": {"name": "char_lm", "text_file": str(path), "length": 8, "batch_size": 4, "validation_streams": 2},
            "model": {"hidden_size": 8, "embedding_size": 4},
            "optimizer": {"learning_rate": 0.05},
            "train": {"steps": 4, "log_every": 4, "eval_every": 4, "checkpoint_every": 4},
        }
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run next to its text file."""
    place = tmp_path_factory.mktemp("whole")
    (place / "song.txt").write_text(TEXT)
    config, folder = configuration(place / "song.txt"), RunFolder(place / "run")
    task, mesh = CharLM(config.task, None), devices.make_mesh(4, 1)
    with folder.claimed(config):
        folder.save_artifacts(task)
        loop.train(config, task, folder, loop.load_run(config, task, folder, mesh), mesh, Display(4, 0, io.StringIO()))
    return place


@pytest.fixture
def place(whole, tmp_path):
    """A copy of the run, without the text."""
    shutil.copytree(whole / "run", tmp_path / "run")
    return tmp_path


def sampled(folder):
    task, model = load_trained(str(folder), None, (CharLM,))
    return "".join(generate(model, task.vocabulary, "To be", 30, 1.0, jax.random.key(0)))


def loss_of(folder, path):
    """The validation loss, as `evaluate` computes it with the text at a path."""
    config = RunFolder(folder).load_config()
    task, mesh = CharLM(CharLM.with_user_path(config.task, str(path)), None, folder), devices.make_mesh(4, 1)
    task.check_data(folder, "--data_file")
    run = loop.load_run(config, task, RunFolder(folder), mesh)
    return Evaluator(task, run.graphdef, mesh)(run.best, "validation")["loss"], run.progress.best_value


def test_artifacts_are_readable_json(whole):
    content = json.loads((whole / "run" / "artifacts.json").read_text(encoding="utf-8"))
    assert content.pop("sha256") == base.digest_of(content)
    assert content == {
        "data": {
            "description": "song.txt, 680 characters",
            "sha256": hashlib.sha256((whole / "song.txt").read_bytes()).hexdigest(),
        },
        "artifacts": {"vocabulary": "".join(sorted(set(TEXT))), "split_starts": [581, 612]},
    }


def test_copied_folder_samples_the_same_text(whole, place, monkeypatch):
    expected = sampled(whole / "run")
    monkeypatch.setattr("experiments.tasks.text.char_lm.read_text", None)  # nothing is read
    assert sampled(place / "run") == expected


def test_moved_text_is_evaluated_at_its_new_path(whole, place):
    (place / "moved.txt").write_text(TEXT)
    loss, recorded = loss_of(place / "run", place / "moved.txt")
    np.testing.assert_allclose(loss, recorded, rtol=1e-6)
    with pytest.raises(
        UserError, match=r"gone.txt: no such file; .* If it was moved, give its new path with --data_file$"
    ):
        loss_of(place / "run", place / "gone.txt")


@pytest.mark.parametrize("text", [TEXT.replace("b", "x"), TEXT + "é", TEXT[:-1], TEXT[::-1]])
def test_changed_text_raises_one_line(place, text):
    path = place / "song.txt"
    path.write_text(text, encoding="utf-8")
    before = sampled(place / "run")
    recorded, found = r"song.txt, 680 characters \(sha256 \w+...\)", rf"song.txt, {len(text)} characters"
    with pytest.raises(
        UserError, match=rf"^.*run: expected the data .*, {recorded}, got {found} .* with --data_file, .*$"
    ):
        loss_of(place / "run", path)
    assert sampled(place / "run") == before


def test_run_resumes_with_moved_text_but_no_other_change(place):
    folder, moved = RunFolder(place / "run"), configuration(place / "moved.txt")
    folder.check_config(moved)
    with folder.claimed(moved):
        pass
    assert folder.load_config() == moved
    other = dataclasses.replace(moved, task=dataclasses.replace(moved.task, length=9))
    with pytest.raises(UserError, match=r"another configuration: task.length: 8, not 9$"):
        folder.check_config(other)
    with pytest.raises(UserError, match=r"another configuration: task\.text_file: "):
        folder.check_config(dataclasses.replace(moved, task=CharLM.with_user_path(moved.task, "")))
    folder.artifacts.unlink()
    with pytest.raises(UserError, match=r"another configuration: task\.text_file: "):
        folder.check_config(configuration(place / "song.txt"))


def test_run_without_artifacts_gets_them_with_a_warning(whole, place):
    expected = sampled(whole / "run")
    (place / "run" / "artifacts.json").unlink()
    with pytest.warns(UserWarning, match=r"run has no fingerprint of its data; assuming song.txt, 680 "):
        assert sampled(place / "run") == expected
    assert (place / "run" / "artifacts.json").read_bytes() == (whole / "run" / "artifacts.json").read_bytes()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": {}, "artifacts": {}}', '{"data": null, "artifacts": []}'])
def test_damaged_artifacts_raise(place, text):
    (place / "run" / "artifacts.json").write_text(text)
    with pytest.raises(UserError, match=r"^.*artifacts\.json is damaged: .*$"):
        sampled(place / "run")


def test_changed_artifacts_raise(place):
    path = place / "run" / "artifacts.json"
    path.write_text(path.read_text().replace("581", "580"))
    with pytest.raises(UserError, match=r"artifacts\.json is damaged: its values have another sha256 than recorded$"):
        sampled(place / "run")


def test_artifacts_of_an_earlier_version_have_no_digest(place):
    path, expected = place / "run" / "artifacts.json", sampled(place / "run")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    assert sampled(place / "run") == expected


def test_missing_artifact_raises(place):
    path = place / "run" / "artifacts.json"
    content = json.loads(path.read_text())
    del content["artifacts"]["vocabulary"], content["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"artifacts\.json is damaged: it lacks vocabulary$"):
        sampled(place / "run")


@pytest.mark.parametrize("name", NAMES)
def test_every_task_builds_its_model_from_artifacts(name, request, tmp_path):
    config = resolve(load(name).get_config("smoke"))
    kind = find(config.task.name)
    data_dir = None if name in GENERATED else str(request.getfixturevalue("data_dir"))
    task = kind(config.task, data_dir)
    task.save_artifacts(tmp_path)
    shapes = nnx.eval_shape(lambda: nnx.state(task.model(config.model, nnx.Rngs(0))))
    alone = kind(config.task, str(tmp_path / "nowhere"), tmp_path)
    assert nnx.eval_shape(lambda: nnx.state(alone.model(config.model, nnx.Rngs(0)))) == shapes
    assert json.loads(json.dumps(task.artifacts)) == alone.artifacts
    again = kind(config.task, data_dir, tmp_path)
    again.check_data(tmp_path, "--data_file")
    one, other = (next(iter(each.eval_batches("validation"))) for each in (task, again))
    jax.tree.map(np.testing.assert_array_equal, one, other)


def write_series(path, values):
    path.write_text("\n".join(["a,b", *(f"{a!r},{b!r}" for a, b in values.tolist())]) + "\n")


def test_later_rows_do_not_move_the_splits(tmp_path):
    path, values = tmp_path / "own.csv", np.random.default_rng(0).normal(size=(60, 2))
    config = ForecastingConfig(dataset="csv", csv_file=str(path), date_column="", window=6, horizon=2, batch_size=4)
    write_series(path, values)
    before = Forecasting(config, None)
    before.save_artifacts(tmp_path)
    write_series(path, np.concatenate([values, 100 + values]))
    after = Forecasting(config, None, tmp_path)
    with pytest.warns(UserWarning, match=r"own.csv has 60 rows more than .* was trained on; they are not used"):
        after.check_data(tmp_path, "--data_file")
    for split in ("train", "validation", "test"):
        for one, other in zip(before.eval_batches(split), after.eval_batches(split), strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)
    values[3, 1] += 1e-9
    write_series(path, values)
    with pytest.raises(UserError, match=r"trained on, own.csv, 60 rows of a, b \(sha256 .*, got own.csv, 60 rows"):
        Forecasting(config, None, tmp_path).check_data(tmp_path, "--data_file")


@pytest.mark.slow
def test_commands_handle_a_changed_and_moved_text(tmp_path):
    text, folder, moved = tmp_path / "song.txt", tmp_path / "run", tmp_path / "moved" / "[1]"
    text.write_text(SONG * 40)
    smoke = ["--config=configs/char_lm.py:smoke", "--devices=1", "--config.train.steps=20"]
    with programs() as run:
        run.run("train", *smoke, f"--config.task.text_file={text}", f"--workdir={folder}")
        value = json.loads((folder / "summary.json").read_text())["test"]["nats_per_char"]
        shown = run.run("sample", f"--workdir={folder}", "--length=20")
        moved.parent.mkdir()
        folder.rename(moved)
        text.write_text(SONG.replace("b", "x") * 40)
        assert run.run("sample", f"--workdir={moved}", "--length=20") == shown
        for command in (["evaluate"], ["train", *smoke, f"--config.task.text_file={text}"]):
            error = run.run(*command, f"--workdir={moved}", status=1)
            assert error.startswith(
                f"error: {moved}: expected the data that it was trained on, song.txt, 3,400 characters"
            )
            assert error.count("\n") == 1
        (tmp_path / "back.txt").write_text(SONG * 40)
        back = f"--data_file={tmp_path / 'back.txt'}"
        assert f"nats_per_char  {value:.6g}" in run.run("evaluate", f"--workdir={moved}", "--split=test", back)
        (moved / "summary.json").unlink()
        out = run.run("train", *smoke, f"--config.task.text_file={tmp_path / 'back.txt'}", f"--workdir={moved}")
        assert "resumed at step 20" in out
