"""The entry points, run as a person runs them: in processes of their own, killed and started again."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.run_folder import RunFolder
from experiments.tasks.char_lm import CharLM
from experiments.training import devices, loop

ROOT = pathlib.Path(__file__).parents[2]
TEXT = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n" * 40
OPTIONS = ["--config=configs/char_lm.py:smoke", "--config.train.steps=60", "--config.train.eval_every=25"]


RUNNING = []


def start(module, *arguments):
    # stdout to a pipe: plain lines, no progress bar.
    process = subprocess.Popen(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    RUNNING.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_left_running():
    yield
    while RUNNING:
        process = RUNNING.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    RUNNING.remove(process)
    assert process.returncode == status, out + err
    return out if status == 0 else err


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    text_file = tmp_path_factory.mktemp("text") / "hamlet.txt"
    text_file.write_text(TEXT)
    return [*OPTIONS, f"--config.task.text_file={text_file}"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, options):
    """A run that nobody disturbed, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, finish(start("train", *options, f"--workdir={folder}"))


def final_run(folder):
    config = RunFolder(folder).load_config()
    task = CharLM(config.task, None)
    return loop.load(config, task, RunFolder(folder), devices.make_mesh(task.batch_size, 1))


@pytest.mark.slow
@pytest.mark.faults
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(tmp_path, options, finished):
    whole, broken = finished[0], tmp_path / "broken"
    process = start("train", *options, f"--workdir={broken}")
    deadline = time.monotonic() + 200
    while not (broken / "checkpoints" / "step_20").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    out = finish(start("train", *options, f"--workdir={broken}"))
    resumed = int(out.split("resumed at step ")[1].split("\n")[0])
    assert 20 <= resumed < 60
    assert (broken / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    one, other = (json.loads((folder / "summary.json").read_text()) for folder in (whole, broken))
    assert one["test"] == other["test"]
    assert one["validation"] == other["validation"]
    expected, found = final_run(whole), final_run(broken)
    assert int(found.state.step) == 60
    jax.tree.map(np.testing.assert_array_equal, (found.state, found.best), (expected.state, expected.best))


def test_a_run_folder_holds_what_is_promised(finished):
    folder, out = finished
    config = json.loads((folder / "config.json").read_text())
    assert config["train"] | {"steps": 60, "log_every": 10, "eval_every": 25, "checkpoint_every": 10} == config["train"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == [10, 20, 30, 40, 50, 60]
    assert [row["step"] for row in rows if row["split"] == "validation"] == [25, 50, 60]
    assert rows[-2]["loss"] < rows[0]["loss"]
    best = min((row for row in rows if row["split"] == "validation"), key=lambda row: row["nats_per_char"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["validation"] == {"metric": "nats_per_char", "value": best["nats_per_char"], "step": best["step"]}
    assert summary["overrides"][:2] == ["train.steps=60", "train.eval_every=25"]
    (first,) = json.loads((folder / "environment.json").read_text())
    assert first["from_step"] == 0
    assert first["versions"]["jax"]
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step_50", "step_60"]
    assert "a fresh run" in out.splitlines()[0]
    assert f"test nats_per_char  {summary['test']['nats_per_char']:.5g}" in out
    assert "\r" not in out
    assert "\x1b" not in out


def test_evaluate_agrees_with_training(finished):
    folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    values = {"validation": summary["validation"]["value"], "test": summary["test"]["nats_per_char"]}
    processes = [start("evaluate", f"--workdir={folder}", f"--split={split}") for split in values]
    for process, value in zip(processes, values.values(), strict=True):
        assert f"nats_per_char  {value:.6g}" in finish(process)


def test_sample_prints_the_same_text_for_the_same_seed(finished):
    folder, _ = finished
    arguments = ("sample", f"--workdir={folder}", "--prompt=To be", "--length=40")
    processes = [
        start(*arguments),
        start(*arguments),
        start(*arguments, "--seed=1"),
        start(*arguments[:2], "--prompt=Ω"),
    ]
    first, again, other = map(finish, processes[:3])
    assert first == again
    assert first.startswith("To be")
    assert len(first) == len("To be") + 40 + 1
    assert set(first) <= set(TEXT)
    assert first != other
    assert "--prompt: text must hold only the" in finish(processes[3], 1)


def test_a_finished_run_is_not_trained_again_and_repeats_from_its_config(finished, tmp_path):
    folder, out = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = finish(start("train", f"--config={folder}/config.json", f"--workdir={folder}"))
    assert again.splitlines()[-8:] == out.splitlines()[-8:]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    error = finish(start("train", f"--config={folder}/config.json", f"--workdir={folder}", "--config.seed=1"), 1)
    assert error == f"error: {folder} holds a run of another configuration: seed: 0, not 1\n"


REFUSED = [
    ("", 1, "error: --config: expected a config file such as configs/digits.py, got nothing"),
    ("configs/none.py", 2, "error: --config: expected a config file, got 'configs/none.py', which is not there"),
    ("configs/adding.py:big", 2, "error: ValueError: configs/adding.py: expected one of full, smoke, got 'big'"),
    ("configs/adding.py --config.model.hiden_size=3", 1, "error: model.hiden_size: unknown key (did you mean"),
    ("configs/adding.py --config.modle.hidden_size=3", 2, "error: modle: unknown key (did you mean 'model'?)"),
    ("configs/adding.py --config.model.hidden_size=big", 2, "error: flag --config.model.hidden_size=big: "),
    ("configs/adding.py --devices=3", 1, "error: devices: expected a number that divides the batch size 64, got 3"),
]


def test_what_cannot_be_is_refused_in_one_line(tmp_path):
    processes = [
        start("train", *(f"--config={config}".split() if config else ()), f"--workdir={tmp_path}/run")
        for config, _, _ in REFUSED
    ]
    for process, (_, status, message) in zip(processes, REFUSED, strict=True):
        error = finish(process, status)
        assert error.startswith(message)
        assert error.count("\n") == 1


def test_a_folder_with_other_things_in_it_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    error = finish(start("train", "--config=configs/adding.py:smoke", f"--workdir={tmp_path}"), 1)
    assert error == f"error: {tmp_path} is not empty and holds no run (there is no config.json in it)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
