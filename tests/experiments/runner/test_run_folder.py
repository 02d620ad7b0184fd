"""Run folders of any name; damaged files raise one line that names the file."""

import json

import pytest

from experiments.runner import environment
from experiments.runner.run_folder import SUMMARY, RunFolder
from experiments.schema import UserError
from tests.experiments.programs import programs, wait_until


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", RunFolder.read_config),
        ("summary.json", RunFolder.read_summary),
        ("environment.json", RunFolder.read_environment),
    ],
)
@pytest.mark.parametrize("text", ["", '{"task": ', "3", "null"])
def test_damaged_file_is_named(tmp_path, name, read, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"^.*{name} is damaged: .*$"):
        read(RunFolder(tmp_path))


def test_json_of_the_wrong_type_raises(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    (tmp_path / "environment.json").write_text("{}")
    with pytest.raises(UserError, match=r"expected a JSON object, got \[\]"):
        RunFolder(tmp_path).load_config()
    with pytest.raises(UserError, match=r"expected a JSON array, got \{\}"):
        environment.append(RunFolder(tmp_path), 0, {})


@pytest.mark.parametrize("start", [5, {"from_step": 0, "machine": "a CPU"}])
def test_environment_with_another_entry_raises_at_the_start(tmp_path, start):
    (tmp_path / "environment.json").write_text(json.dumps([start]))
    with pytest.raises(UserError, match=r"environment\.json is damaged: expected a start, got "):
        environment.append(RunFolder(tmp_path), 0, {})


def test_summary_with_a_missing_key_raises(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_summary() is None
    folder.summary.write_text("{" + ", ".join(f'"{name}": 0' for name in SUMMARY[:-1]) + "}")
    with pytest.raises(UserError, match=r"summary\.json is damaged: missing commit"):
        folder.read_summary()


def test_resumed_run_names_each_machine_once(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.read_environment() == []
    for step, machine in enumerate(("a GPU", "a CPU", "a CPU", "a GPU")):
        environment.append(folder, step, {"machine": machine, "commit": "f" * 40})
    assert [start["from_step"] for start in folder.read_environment()] == [0, 1, 2, 3]
    assert environment.machines(folder) == "a GPU, then a CPU"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["[lr=0.1]", "a\\b *?{c}:%20é"])
def test_run_resumes_in_a_folder_of_any_name(tmp_path, name):
    folder = RunFolder(tmp_path / "runs" / name)
    command = ("train", "--config=configs/adding.py:smoke", "--devices=1", f"--workdir={folder.path}")
    endless = [f"--config.train.{key}={value}" for key, value in (("steps", 100000), ("eval_every", 100000))]
    with programs() as run:
        steps = [0]
        for _ in range(2):
            process = run.start(*command, *endless, "--config.train.checkpoint_every=10")
            wait_until(lambda: newest_step(folder) > steps[-1], process)
            process.terminate()
            assert run.finish(process, 143).startswith("stopped by SIGTERM at step ")
            steps.append(newest_step(folder))
        out = run.run("evaluate", f"--workdir={folder.path}", "--parameters=latest")
    assert out.startswith(f"adding_10, validation split, parameters of step {steps[2]}\n")
    assert [start["from_step"] for start in folder.read_environment()] == steps[:2]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]


def newest_step(folder):
    steps = folder.checkpoints.iterdir() if folder.checkpoints.exists() else []
    return max((int(path.name[5:]) for path in steps if path.name.startswith("step_")), default=0)
