"""The export command, and the commands on an exported model."""

import json
import math
import os
import pathlib
import re
import shlex
import shutil

import pytest

from experiments import export, files
from experiments.reporting import card
from experiments.runner import devices, run
from experiments.runner.config import load, resolve
from experiments.runner.evaluation import Evaluator
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks import find
from tests.experiments.config_files import GENERATED, NAMES
from tests.experiments.programs import SONG, programs


def trained(name, path, data_dir, **changes):
    """Trains the smoke variant of a config to its end."""
    config = load(name).get_config("smoke")
    for section, values in changes.items():
        config[section].update(values)
    config, folder = resolve(config), RunFolder(path)
    task = find(config.task.name)(config.task, data_dir, path)
    with folder.claimed(config):
        origin = {"config": f"configs/{name}.py:smoke", "overrides": []}
        run.run(config, task, folder, run.prepare(config, task, 1), origin)
    return folder


def scores(folder, data_dir=None):
    """The test scores of a run or of an exported model, as `evaluate` computes them."""
    config, task = run.load_task(folder, data_dir)
    mesh = devices.make_mesh(task.batch_size, 1)
    found = run.load_parameters(config, task, folder, mesh)
    return Evaluator(task, found.graphdef, mesh)(found.params, "test")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on handwritten digits."""
    return trained("digits", tmp_path_factory.mktemp("runs") / "digits", None)


@pytest.fixture(scope="module")
def original(finished, tmp_path_factory):
    """The run's export."""
    target = RunFolder(tmp_path_factory.mktemp("models") / "digits")
    export.export(finished, target)
    return target


@pytest.fixture
def exported(original, tmp_path):
    """A copy of the export, to change."""
    return RunFolder(shutil.copytree(original.path, tmp_path / "models" / "digits"))


def test_export_has_the_parameters_and_the_scores_of_the_run(finished, exported):
    summary = finished.read_summary()
    assert sorted(path.name for path in exported.path.iterdir()) == [
        *("artifacts.json", "card.md", "config.json", "model.safetensors")
    ]
    assert scores(exported) == summary["test"]
    assert exported.load_config() == finished.load_config()
    config, task = run.load_task(exported, None)
    mesh = devices.make_mesh(task.batch_size, 1)
    assert run.load_parameters(config, task, exported, mesh).step == summary["validation"]["step"]


def test_bfloat16_halves_the_file_and_is_scored_anew(finished, exported, tmp_path):
    half = RunFolder(tmp_path / "half")
    export.export(finished, half, "bfloat16")
    assert half.weights.stat().st_size < 0.6 * exported.weights.stat().st_size
    found, summary = scores(half), finished.read_summary()
    assert found != summary["test"]
    rows = card_rows(half)
    for name, value in found.items():
        assert rows[name][:2] == [f"{value:.6g}", f"{summary['test'][name]:.6g}"]


def test_data_file_of_float32_raises(finished, tmp_path):
    with pytest.raises(UserError, match=r"^--data_file: expected --dtype=bfloat16 beside it, .*, got float32$"):
        export.export(finished, RunFolder(tmp_path / "model"), data_file="mine.txt")
    assert not list(tmp_path.iterdir())


def test_current_folder_is_not_replaced(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--to: expected a new folder or an earlier export, got the current folder$"):
        export.export(finished, RunFolder(pathlib.Path(".")))


def test_commands_of_a_card_quote_the_folder(finished, tmp_path):
    target = RunFolder(tmp_path / "my model")
    export.export(finished, target)
    text = target.card.read_text(encoding="utf-8")
    (command,) = [line for line in text.splitlines() if "experiments.evaluate" in line]
    assert shlex.split(command)[3:] == [f"--workdir={target.path}", "--split=test"]


def test_folder_may_have_a_name_that_is_not_utf8(finished, tmp_path):
    target = RunFolder(tmp_path / os.fsdecode(b"my\xffmodel"))
    export.export(finished, target)
    assert "my\\udcffmodel" in target.card.read_text(encoding="utf-8")


def card_rows(folder):
    """The rows of the table of scores in a card, by metric."""
    text = folder.card.read_text(encoding="utf-8").partition("## Score")[2].partition("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return {name: values for name, *values in cells[2:]}


def test_card_says_what_is_known(finished, exported):
    text, summary = exported.card.read_text(encoding="utf-8"), finished.read_summary()
    for name, value in summary["test"].items():
        assert card_rows(exported)[name][0] == f"{value:.6g}"
    for said in (
        "# digits\n",
        "`python -m experiments.train --config=configs/digits.py:smoke --workdir=runs/digits`",
        *(summary["commit"], summary["machine"], f"jax {summary['versions']['jax']}"),
        *("License of the data: none stated", card.COVERED, "## Not for\n"),
        "No run of this configuration is recorded",
    ):
        assert said in text


def test_card_shows_the_spread_over_recorded_seeds(finished, tmp_path):
    summary = finished.read_summary()
    record = {key: summary[key] for key in ("task", "config", "cell", "parameters", "steps", "minutes", "machine")}
    record |= {"versions": {}, "split": "test", "metric": "accuracy"}
    rows = [
        {"overrides": [], "seed": 0, "value": 1.0, "commit": "0" * 40},  # an older run of the same seed
        {"overrides": ["seed=1"], "seed": 1, "value": 92.0, "commit": "1" * 40},
        {"overrides": ["model.cell=gru"], "seed": 0, "value": 90.0, "commit": "2" * 40},
        {
            "overrides": [],
            "cell": "linear",
            "seed": 0,
            "value": 4.0,
            "commit": "6" * 40,
        },  # a baseline of the same config
        {"overrides": ["model.hidden_size=17"], "seed": 2, "value": 3.0, "commit": "3" * 40},
        {"overrides": ["model.gone=17"], "seed": 3, "value": 3.0, "commit": "4" * 40},
        {"overrides": [], "config": "configs/gone.py", "seed": 4, "value": 3.0, "commit": "5" * 40},
    ]
    (tmp_path / "results").mkdir()
    lines = "".join(json.dumps(record | row) + "\n" for row in rows)
    (tmp_path / "results" / f"{summary['task']}.jsonl").write_text(lines)
    export.export(finished, RunFolder(tmp_path / "model"), results=tmp_path / "results")
    assert card_rows(RunFolder(tmp_path / "model"))["accuracy"][1] == "91.0 ± 1.4"
    text = RunFolder(tmp_path / "model").card.read_text(encoding="utf-8")
    assert "mean ± standard deviation over seeds 0, 1, of commits 1111111, 2222222." in text


def test_export_is_replaced_but_no_other_folder(finished, exported, tmp_path):
    before = exported.weights.read_bytes()
    exported.weights.write_bytes(b"damaged")
    export.export(finished, exported)
    assert exported.weights.read_bytes() == before
    assert [path.name for path in exported.path.parent.iterdir()] == ["digits"]
    (exported.path / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    export.export(finished, RunFolder(tmp_path / "empty"))
    (tmp_path / "config").mkdir()
    shutil.copy(finished.config, tmp_path / "config")
    for path, held in (
        (exported.path, ".*, which holds notes.txt$"),
        (tmp_path / "config", ".*, which holds config.json$"),
        (finished.path, ".*, which holds checkpoints$"),
        (tmp_path / "file", "the file .*file$"),
    ):
        with pytest.raises(UserError, match=rf"^--to: expected a new folder or an earlier export, got {held}"):
            export.export(finished, RunFolder(path))
    assert (exported.path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("fault", ["write_json", "write_bytes"])
def test_failed_export_changes_nothing(finished, exported, tmp_path, monkeypatch, fault):
    def fail(path, content):
        raise OSError(28, "No space left on device", str(path))

    before = snapshot(exported.path)
    monkeypatch.setattr(files, fault, fail)
    for target in (exported.path, exported.path.with_name("new")):
        with pytest.raises(OSError, match="No space left"):
            export.export(finished, RunFolder(target))
    assert snapshot(exported.path) == before
    assert [path.name for path in exported.path.parent.iterdir()] == ["digits"]


def snapshot(path):
    return {
        entry.name: (entry.read_bytes(), entry.stat().st_mtime_ns) for entry in path.iterdir()
    }, path.stat().st_mtime_ns


def test_unfinished_run_is_refused(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.summary.unlink()
    with pytest.raises(UserError, match=r"run is not finished; rerun its command of train to finish it$"):
        export.export(folder, RunFolder(tmp_path / "model"))
    shutil.rmtree(folder.path)
    with pytest.raises(UserError, match=r"run is not a run folder: No such file or directory: .*config\.json$"):
        export.export(folder, RunFolder(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_export_of_an_export_is_refused(exported, tmp_path):
    with pytest.raises(UserError, match=r"^--workdir: expected a run, got the exported model "):
        export.export(exported, RunFolder(tmp_path / "again"))


def test_exported_model_is_not_trained(exported):
    with pytest.raises(UserError, match=r"^.*digits holds an exported model, which cannot be trained; choose another"):
        exported.check_config(exported.load_config())


def test_exported_model_has_the_best_parameters_only(exported):
    config, task = run.load_task(exported, None)
    with pytest.raises(UserError, match=r"^--parameters: expected best, .*, got latest$"):
        run.load_parameters(config, task, exported, devices.make_mesh(1), latest=True)


@pytest.mark.parametrize("name", ["model.safetensors", "card.md", "artifacts.json"])
def test_missing_file_of_an_export_is_named(exported, name):
    (exported.path / name).unlink()
    with pytest.raises(UserError, match=rf"digits is not a whole exported model: missing {re.escape(name)}$"):
        exported.load_config()


def test_model_of_another_size_is_named(exported):
    values = json.loads(exported.config.read_text())
    values["model"]["hidden_size"] += 1
    exported.config.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"model\.safetensors: .*: expected an array \(.*\), got \(.*\)$"):
        scores(exported)


def test_outputs_go_beside_runs_and_outside_exported_models(finished, exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert finished.output("sample_0", None) == finished.path / "sample_0"
    assert finished.output("sample_0", str(tmp_path / "a")) == tmp_path / "a" / "sample_0"
    assert exported.output("sample_0", None).absolute() == tmp_path / "digits_sample_0"
    assert exported.output("sample_0", str(tmp_path / "b")) == tmp_path / "b" / "digits_sample_0"
    monkeypatch.chdir(exported.path)
    with pytest.raises(UserError, match=r"^--output_dir: expected a folder outside the exported model, got "):
        RunFolder(exported.path).output("sample_0", None)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_smoke_variant_runs_to_the_end_and_its_export_has_its_scores(name, request, tmp_path):
    data_dir = None if name in GENERATED else str(request.getfixturevalue("data_dir"))
    folder, target = trained(name, tmp_path / "run", data_dir), RunFolder(tmp_path / "model")
    summary, task = folder.read_summary(), run.load_task(folder, data_dir)[1]
    assert summary is not None
    assert set(task.scoring.reported) <= set(summary["test"])
    assert all(math.isfinite(summary["test"][metric]) for metric in task.scoring.reported)
    assert summary["steps"] == folder.load_config().train.steps
    assert folder.learning_curve.read_bytes().startswith(b"\x89PNG")
    export.export(folder, target, data_dir=data_dir)
    assert scores(target, data_dir) == summary["test"]
    text, dataset = target.card.read_text(encoding="utf-8"), task.dataset
    assert dataset is None or f"License of the data: {dataset.license}." in text
    assert (name in {"adding", "copying", "event_xor"}) == ("The data are generated by the program." in text)
    # The model is built and its parameters are read without the data.
    config = target.load_config()
    task = find(config.task.name)(config.task, "/nowhere", target.path)
    assert run.load_parameters(config, task, target, devices.make_mesh(1)).step > 0


@pytest.mark.parametrize("name", NAMES)
def test_every_task_says_what_its_models_are_not_for_and_what_they_keep(name):
    kind = find(load(name).get_config("smoke").task.name)
    assert kind.not_for.endswith(".")
    assert not kind.artifact_names or (kind.learn.__doc__ or "").startswith("Returns the artifacts: ")


@pytest.mark.slow
def test_commands_use_an_exported_model_from_any_place_and_leave_it_unchanged(tmp_path):
    text, place = tmp_path / "song.txt", tmp_path / "elsewhere"
    text.write_text(SONG * 40)
    place.mkdir()
    with programs(PYTHONPATH=os.getcwd()) as started:
        smoke = ("--config=configs/char_lm.py:smoke", "--devices=1", f"--config.task.text_file={text}")
        started.run("train", *smoke, f"--workdir={tmp_path}/run")
        shown = started.run("sample", f"--workdir={tmp_path}/run", "--length=20")
        out = started.run("export", f"--workdir={tmp_path}/run", f"--to={place}/song")
        assert out.startswith(f"exported to {place}/song\n  artifacts.json")
        before = snapshot(place / "song")
        (place / "song").chmod(0o555)
        text.unlink()
        assert started.run("sample", f"--workdir={place}/song", "--length=20") == shown
        error = started.run("train", *smoke, f"--workdir={place}/song", status=1)
        assert error.endswith("holds an exported model, which cannot be trained; choose another --workdir\n")
        assert error.count("\n") == 1
        text.write_text(SONG * 40)
        value = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["nats_per_char"]
        out = started.run("evaluate", f"--workdir={place}/song", "--split=test")
        assert f"nats_per_char  {value:.6g}" in out
        assert snapshot(place / "song") == before
        (place / "song" / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
        error = started.run("sample", f"--workdir={place}/song", status=1)
        assert error.startswith(f"error: {place}/song/model.safetensors is damaged: ")
        assert error.count("\n") == 1
