"""The train command and the commands that use its runs, in their own processes."""

import contextlib
import json
import os
import pty
import re
import shutil
import termios

import pytest

from experiments.runner.config import catalogue
from tests.experiments.programs import ROOT, SONG, programs

OPTIONS = ["--config=configs/char_lm.py:smoke", "-config.train.steps=60", "--config.train.eval_every", "25"]


@pytest.fixture(scope="module")
def run():
    with programs() as started:
        yield started


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    text_file = tmp_path_factory.mktemp("text") / "hamlet.txt"
    text_file.write_text(SONG * 40)
    return [*OPTIONS, f"--config.task.text_file={text_file}"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, run, options):
    """A finished run and its output."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, run.run("train", *options, "--tensorboard", f"--workdir={folder}")


def test_run_folder_has_all_files(finished):
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
    assert summary["config"] == "configs/char_lm.py:smoke"
    assert summary["overrides"][:2] == [
        "train.steps=60",
        "train.eval_every=25",
    ]  # regardless of the syntax of the flags
    (first,) = json.loads((folder / "environment.json").read_text())
    assert summary["commit"] == first["commit"]
    assert first["from_step"] == 0
    assert first["versions"]["jax"]
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step_50", "step_60"]
    assert "a fresh run" in out.splitlines()[0]
    assert f"test nats_per_char  {summary['test']['nats_per_char']:.5g}" in out
    assert "\r" not in out
    assert "\x1b" not in out
    events = [path.parent.name for path in (folder / "tensorboard").rglob("events.out.tfevents.*")]
    assert sorted(events) == ["train", "validation"]


def everything_from(terminal):
    """Reads the output of a terminal until its last program exits."""
    seen = b""
    with os.fdopen(terminal, "rb", buffering=0) as shown, contextlib.suppress(OSError):  # EIO marks the end
        while piece := shown.read(4096):
            seen += piece
    return seen.decode()


def test_saved_config_repeats_the_run_exactly_and_terminal_shows_a_bar(run, finished, tmp_path):
    folder, _ = finished
    terminal, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 100))
    process = run.start("train", f"--config={folder}/config.json", f"--workdir={tmp_path}/again", stdout=inside)
    os.close(inside)
    seen = everything_from(terminal)
    run.finish(process)
    assert re.search(r"\r[ 0-9]+% .*/60 .* left, loss \d", seen)
    assert re.search(r"60/60  validation  nats_per_char \d\.\d{4} ", seen)
    assert not re.search(r"\x1b\[[0-9;]*m", seen)  # no colors
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == (folder / "metrics.jsonl").read_bytes()
    one, other = (json.loads((path / "summary.json").read_text()) for path in (folder, tmp_path / "again"))
    assert (one["test"], one["validation"]) == (other["test"], other["validation"])
    assert (tmp_path / "again" / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_evaluate_agrees_with_training(run, finished):
    folder, _ = finished
    summary = json.loads((folder / "summary.json").read_text())
    values = {"validation": summary["validation"]["value"], "test": summary["test"]["nats_per_char"]}
    processes = [run.start("evaluate", f"--workdir={folder}", f"--split={split}") for split in values]
    for process, value in zip(processes, values.values(), strict=True):
        assert f"nats_per_char  {value:.6g}" in run.finish(process)


def test_sample_prints_the_same_text_for_the_same_seed(run, finished):
    folder, _ = finished
    arguments = ("sample", f"--workdir={folder}", "--prompt=To be", "--length=40")
    processes = [
        run.start(*arguments),
        run.start(*arguments),
        run.start(*arguments, "--seed=1"),
        run.start(*arguments[:2], "--prompt=Ω"),
    ]
    first, again, other = map(run.finish, processes[:3])
    assert first == again
    assert first.startswith("To be")
    assert len(first) == len("To be") + 40 + 1
    assert set(first) <= set(SONG)
    assert first != other
    assert "--prompt: expected only the" in run.finish(processes[3], 1)


def test_sample_refuses_flags_without_effect(run, finished):
    folder, _ = finished
    for flag, told in (
        ("--opening=3", "error: --opening: expected a model of music, got one of text\n"),
        ("--output_dir=.", "error: --output_dir: expected a model of music, got one of text\n"),
    ):
        assert run.run("sample", f"--workdir={folder}", flag, status=1) == told
    hot = run.run("sample", f"--workdir={folder}", "--temperature=1e39", status=2)
    assert hot.startswith("error: flag --temperature=1e+39: expected a number of at most 1e+30")


def test_finished_run_is_not_trained_again(run, finished, tmp_path):
    folder, out = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    again = run.run("train", f"--config={folder}/config.json", f"--workdir={folder}")
    assert again.splitlines()[-8:] == out.splitlines()[-8:]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    variant = run.run("train", f"--config={folder}/config.json:smoke", f"--workdir={folder}", status=2)
    assert variant == "error: --config: expected no variant of a .json file, got 'smoke'\n"
    other_seed = f"--config={folder}/config.json", f"--workdir={folder}", "--config.seed=1"
    error = run.run("train", *other_seed, status=1)
    assert error == f"error: {folder} holds a run of another configuration: seed: 0, not 1\n"


def test_finished_run_gets_event_files(run, finished):
    pytest.importorskip("tensorboardX")
    folder, _ = finished
    run.run("train", f"--config={folder}/config.json", f"--workdir={folder}", "--tensorboard")
    assert {path.name for path in (folder / "tensorboard").iterdir()} == {"train", "validation"}
    shutil.rmtree(folder / "tensorboard")


REFUSED = [
    ("", 1, "error: --config: expected a config file such as configs/digits.py, got nothing"),
    ("configs/none.py", 2, "error: --config: expected a config file, got 'configs/none.py', which does not exist"),
    ("configs", 2, "error: --config: expected a config file, got 'configs', which is not a file"),
    ("configs/adding.py:big", 2, "error: ValueError: configs/adding.py: expected one of "),
    ("configs/adding.py --config.model.hiden_size=3", 1, "error: model.hiden_size: unknown key (did you mean"),
    ("configs/adding.py --config.modle.hidden_size=3", 2, "error: modle: unknown key (did you mean 'model'?)"),
    ("configs/adding.py --config.model.hidden_size=big", 2, "error: flag --config.model.hidden_size=big: "),
    ("configs/adding.py --config.model.bidirectional False", 2, "error: expected flags alone, such as --config.seed=1"),
    ("configs/adding.py --config.model.hidden_size=10000000", 1, "error: model: expected parameters that fit into "),
    ("configs/adding.py --flagfile=none", 2, "error: Unable to open flagfile: "),
    ("configs/adding.py --process_id=1", 1, "error: --coordinator, --num_processes, --process_id: expected --multi"),
    ("configs/adding.py --workdir=", 1, "error: --workdir: expected a run folder, such as runs/digits, got "),
    ("configs/adding.py --devices=3", 1, "error: devices: expected a number that divides the batch size 64, got 3"),
]


def test_invalid_flags_print_one_line(run, tmp_path):
    processes = [
        run.start("train", f"--workdir={tmp_path}/run", *(f"--config={config}".split() if config else ()))
        for config, _, _ in REFUSED
    ]
    for process, (_, status, message) in zip(processes, REFUSED, strict=True):
        error = run.finish(process, status)
        assert error.startswith(message)
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()  # so that the corrected command can create it


def test_unreadable_config_file_is_named(run, tmp_path):
    written = {
        "syntax.py": ("def get_config(:", "error: --config: expected a config file that runs, got SyntaxError: "),
        "package.py": ("import nothing_there", "error: --config: expected a config file that runs, got ModuleNotFound"),
        "none.py": (
            "def get_config(): pass",
            f"error: --config: expected get_config of {tmp_path}/none.py to return a ",
        ),
        "list.json": (
            "[]",
            f"error: {tmp_path}/list.json: expected the configuration of a run, a JSON obj",
        ),
        "cut.json": (
            "{",
            f"error: {tmp_path}/cut.json: expected the configuration of a run in JSON, got ",
        ),
    }
    for name, (text, _) in written.items():
        (tmp_path / name).write_text(text)
    started = [run.start("train", f"--config={tmp_path}/{name}", f"--workdir={tmp_path}/run") for name in written]
    for process, (_, message) in zip(started, written.values(), strict=True):
        error = run.finish(process, 2)
        assert error.startswith(message)
        assert error.count("\n") == 1


def test_folder_with_other_files_is_an_error(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    error = run.run("train", "--config=configs/adding.py:smoke", f"--workdir={tmp_path}", status=1)
    assert error == f"error: {tmp_path} is not empty and holds no run (there is no config.json in it)\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_invalid_data_is_reported_with_its_position(run, tmp_path):
    (tmp_path / "text").write_bytes(SONG.encode() * 4 + b"To be\xff\n")
    named = tmp_path / "tiny_shakespeare" / "input.txt"
    named.parent.mkdir()
    named.write_text(SONG)
    command = "train", "--config=configs/char_lm.py:smoke", f"--workdir={tmp_path}/run"
    malformed = run.start(*command, f"--config.task.text_file={tmp_path}/text")
    corrupted = run.start(*command, f"--data_dir={tmp_path}")
    place = f"byte 6 of the line, offset {4 * len(SONG) + 5} of all"
    error = f"error: task.text_file: {tmp_path}/text:9: expected UTF-8 text, got byte 0xff ({place})\n"
    assert run.finish(malformed, 1) == error
    assert run.finish(corrupted, 1).startswith(f"error: {named}: expected the recorded file with sha256 ")
    assert not (tmp_path / "run").exists()


def test_list_prints_every_config_and_help_only_the_projects_flags(run):
    listing, help_text = run.start("train", "--list"), run.start("train", "--help")
    lines = run.finish(listing).splitlines()
    assert "\n".join(lines) == catalogue()
    shown = [re.fullmatch(r"configs/(\w+)\.py +(\S.*)", line).group(1) for line in lines]
    assert shown == sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
    text = run.finish(help_text)
    flags = set(re.findall(r"^  --(?:\[no\])?(\w+):", text, re.MULTILINE))
    assert {"config", "workdir", "data_dir", "devices", "record", "tensorboard", "list"} <= flags
    assert not {"logtostderr", "verbosity", "pdb", "only_check_args"} & flags
    assert "python -m experiments.train --config=configs/digits.py --workdir=runs/digits" in text
