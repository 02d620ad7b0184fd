"""A fault of a process, a disk or a checkpoint loses only the steps since the last checkpoint.

The faults are real, and the programs are the actual commands. All runs have the same configuration, so each is compared
bit by bit with an uninterrupted run.
"""

import contextlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from experiments.runner import checkpoints, devices, loop
from experiments.runner.run_folder import RunFolder
from experiments.tasks.text.char_lm import CharLM
from tests.experiments.programs import SONG, compilation_cache, mounted, programs, wait_until

pytestmark = pytest.mark.faults

STEPS, KILLS = 400, 20
SETTINGS = {
    "train.steps": STEPS,
    "train.log_every": 1,
    "train.eval_every": 20,
    "train.checkpoint_every": 5,
    "model.dropout": 0.2,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The commands, with a shared compilation cache."""
    with programs(**compilation_cache(tmp_path_factory.mktemp("compiled"))) as started:
        yield started


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    text_file = tmp_path_factory.mktemp("text") / "song.txt"
    text_file.write_text(SONG * 40)
    overrides = SETTINGS | {"task.text_file": text_file}
    return ["--config=configs/char_lm.py:smoke", *(f"--config.{key}={value}" for key, value in overrides.items())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, run, options):
    """The folder of the uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run.run("train", *options, f"--workdir={folder}")
    return folder


def assert_same_run(folder, whole):
    """Asserts equal rows (byte for byte), final and best parameters, optimizer state, carry and scores."""
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    one, other = (json.loads((path / "summary.json").read_text()) for path in (folder, whole))
    assert (one["test"], one["validation"]) == (other["test"], other["validation"])
    found, expected = (state_of(path) for path in (folder, whole))
    assert found.progress.step == STEPS
    jax.tree.map(np.testing.assert_array_equal, (found.state, found.best), (expected.state, expected.best))


def state_of(folder):
    config = RunFolder(folder).load_config()
    task = CharLM(config.task, None)
    return loop.load_run(config, task, RunFolder(folder), devices.make_mesh(task.batch_size, 1))


def copied(whole, to):
    """Copies the uninterrupted run without its test score, with the checkpoints of its last steps."""
    shutil.copytree(whole, to)
    (to / "summary.json").unlink()
    return to


def newest(folder):
    return max((folder / "checkpoints").glob("step_*"), key=lambda path: int(path.name[5:]))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def begun_since(time_ns, folder):
    """Returns whether the current process is writing a checkpoint; leftovers of earlier processes do not count."""
    try:
        return any(path.stat().st_mtime_ns > time_ns for path in folder.glob(".step_*.tmp"))
    except FileNotFoundError:
        return False


@pytest.mark.timeout(1500)
def test_run_killed_twenty_times_equals_uninterrupted_run(run, options, whole, tmp_path):
    """Kills happen during startup, training and the writing of a checkpoint."""
    folder, chance = tmp_path / "killed", random.Random(0)
    written = folder / "checkpoints"
    during_a_checkpoint = 0
    for kill in range(KILLS):
        started = time.time_ns()
        process = run.start("train", *options, f"--workdir={folder}")
        before = set(written.glob("step_*"))
        if kill % 5 == 4:
            time.sleep(chance.uniform(0, 4))
        elif kill % 2:
            wait_until(lambda before=before: set(written.glob("step_*")) - before, process)
            time.sleep(chance.uniform(0, 0.3))
        else:
            wait_until(lambda started=started: begun_since(started, written), process, pause_s=0)
            time.sleep(chance.uniform(0, 0.06))
        run.kill(process)
        during_a_checkpoint += begun_since(started, written)
        if before:  # earlier checkpoints are not lost
            assert any(checkpoints.damage(path) is None for path in written.glob("step_*"))
    assert during_a_checkpoint >= 5
    out = run.run("train", *options, f"--workdir={folder}")
    assert 0 < int(out.split("resumed at step ")[1].split("\n")[0]) < STEPS
    assert_same_run(folder, whole)
    assert not list(written.glob(".*"))
    assert not (folder / "lock").exists()
    assert len(json.loads((folder / "environment.json").read_text())) >= KILLS - KILLS // 5


def test_signals_stop_after_a_checkpoint_and_the_folder_is_locked(run, options, whole, tmp_path):
    folder = tmp_path / "stopped"
    command = ("train", *options, f"--workdir={folder}")
    for number, status in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = run.start(*command)
        wait_until(lambda said=process.stdout: said.readline().split()[1:2] == ["train"], process)
        if number == signal.SIGTERM:
            error = run.run(*command, status=1)
            who = f"process {process.pid} on {platform.node()}"
            assert error == f"error: {folder} is in use: {who} is training there\n"
        process.send_signal(number)
        sent = time.monotonic()
        error = run.finish(process, status)
        assert time.monotonic() - sent < 10
        step = int(newest(folder).name[5:])
        line = f"stopped by {number.name} at step {step}, with a checkpoint; rerun the command to resume\n"
        assert error == line
        assert 0 < step < STEPS
        assert not (folder / "lock").exists()
    run.run(*command)
    assert_same_run(folder, whole)


def test_signal_before_the_first_step_exits_at_once(run, options, tmp_path):
    process = run.start("train", *options, f"--workdir={tmp_path / 'run'}")
    wait_until((tmp_path / "run" / "environment.json").exists, process)
    process.send_signal(signal.SIGINT)
    assert run.finish(process, -signal.SIGINT) == ""


def flip(checkpoint):
    path = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0x10
    path.write_bytes(content)


def cut(checkpoint):
    path = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)


def half_delete(checkpoint):
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files[: len(files) // 2]:
        path.unlink()


def test_damaged_checkpoint_falls_back_to_the_one_before(run, options, whole, tmp_path):
    folder = copied(whole, tmp_path / "damaged")
    for hurt, said in ((flip, "is damaged in arrays"), (cut, "is damaged in arrays"), (half_delete, "lacks ")):
        last = newest(folder)
        hurt(last)
        (folder / "summary.json").unlink(missing_ok=True)
        process = run.start("train", *options, f"--workdir={folder}")
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, out + err
        assert err.startswith(f"warning: skipped a checkpoint: {last} {said}")
        assert err.endswith(f"; resuming from {last.parent / f'step_{STEPS - 5}'}\n")
        assert err.count("\n") == 1
        assert f"resumed at step {STEPS - 5}\n" in out
        assert_same_run(folder, whole)


def test_all_checkpoints_damaged_does_not_restart_silently(run, options, whole, tmp_path):
    folder = copied(whole, tmp_path / "damaged")
    for checkpoint in (folder / "checkpoints").iterdir():
        cut(checkpoint)
    before = contents(folder)
    error = run.run("train", *options, f"--workdir={folder}", status=1)
    assert error.startswith("error: no checkpoint can be used: ")
    assert error.count("\n") == 1
    assert contents(folder) == before


def fill(path):
    """Writes a file until the disk is full."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 12)):
            pass


def test_full_disk_keeps_earlier_checkpoints(run, options, whole, tmp_path):
    disk = tmp_path / "small"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=2m", "tmpfs"):
        folder, ballast = disk / "run", disk / "ballast"
        process = run.start("train", *options, f"--workdir={folder}")
        wait_until((folder / "checkpoints" / "step_10").exists, process)
        fill(ballast)
        error = run.finish(process, 1)
        assert error.startswith("error: the checkpoint of step ") or error.startswith(f"error: {folder}/")
        assert "No space left on device" in error
        assert error.count("\n") == 1
        assert checkpoints.damage(newest(folder)) is None
        ballast.unlink()
        run.run("train", *options, f"--workdir={folder}")
        assert_same_run(folder, whole)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs Linux to limit another process")
def test_file_size_limit_keeps_complete_rows(run, options, whole, tmp_path):
    """A limit on file sizes imitates a quota where no file system can be mounted."""
    folder = tmp_path / "limited"
    largest = max(path.stat().st_size for path in (whole / "checkpoints").rglob("*"))
    assert largest < (whole / "metrics.jsonl").stat().st_size
    limit = (largest + (whole / "metrics.jsonl").stat().st_size) // 2
    process = run.start("train", *options, f"--workdir={folder}")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
    error = run.finish(process, 1)
    assert error == f"error: {folder}/metrics.jsonl: File too large\n"
    assert (whole / "metrics.jsonl").read_bytes().startswith((folder / "metrics.jsonl").read_bytes())
    assert (folder / "metrics.jsonl").read_bytes().endswith(b"}\n")
    run.run("train", *options, f"--workdir={folder}")
    assert_same_run(folder, whole)


def test_read_only_folder_raises_and_is_unchanged(run, options, whole, tmp_path):
    folder = copied(whole, tmp_path / "fixed")
    before = contents(folder)
    with mounted(folder, "-o", "bind,ro", str(folder)):
        error = run.run("train", *options, f"--workdir={folder}", status=1)
    assert error == f"error: {folder} cannot be used as a run folder: Read-only file system\n"
    assert contents(folder) == before
