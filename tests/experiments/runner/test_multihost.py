"""Several processes on one machine train as one, and end together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.runner.processes import HEARTBEAT, Cluster
from experiments.schema import UserError

ROOT = pathlib.Path(__file__).parents[3]
TEXT = "So long as men can breathe, or eyes can see,\nSo long lives this, and this gives life to thee.\n" * 40
# Plain gradient descent with a small learning rate keeps rounding differences small. Adam amplifies differences in
# summation order. At a rate of 0.3, a difference in the eighth digit after 20 steps grows to the fifth digit after 100.
OPTIONS = ["--config=configs/char_lm.py:smoke", "--config.model.dropout=0.0", "--devices=1"]
OPTIONS += ["--config.optimizer.name=sgd", "--config.optimizer.learning_rate=0.02"]
# The limit is generous, since a busy machine with two cores starts four processes slowly.
pytestmark = pytest.mark.timeout(1500)
LONG = ["--config.train.steps=100000", "--config.train.log_every=1000", "--config.train.eval_every=100000"]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "sonnet.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def start(text_file, tmp_path):
    """Starts a job with several processes: `start(2, *options)`. Kills the remaining ones at the end."""
    running = []

    def job(count, *options, workdir=tmp_path / "run"):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "experiments.train", *OPTIONS, *options]
        command += [f"--workdir={workdir}", f"--config.task.text_file={text_file}"]
        for number in range(count):
            several = [
                "--multihost",
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ]
            running.append(
                subprocess.Popen(
                    command + several * (count > 1),
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"JAX_PLATFORMS": "cpu"},
                )
            )
        return running[-count:]

    yield job
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def finish(job):
    """Waits for a job to succeed. Returns the output of its first process."""
    printed = [process.communicate(timeout=900) for process in job]
    assert [process.returncode for process in job] == [0] * len(job), printed
    assert all(line.startswith("[Gloo]") for out, _ in printed[1:] for line in out.splitlines())
    return printed[0][0]


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def wait_for(path, job):
    deadline = time.monotonic() + 500
    while not path.exists():
        assert all(process.poll() is None for process in job), [process.communicate() for process in job]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_same_rows(found, expected):
    assert [(row["step"], row["split"]) for row in found] == [(row["step"], row["split"]) for row in expected]
    for row, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(row["loss"], other["loss"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.faults
def test_several_processes_train_as_one(start, tmp_path):
    finish(start(1, workdir=tmp_path / "one"))
    expected = rows_of(tmp_path / "one")
    for count in (2, 4):
        out = finish(start(count, workdir=tmp_path / str(count)))
        assert f"on {count} cpu devices of {count} processes" in out
        assert_same_rows(rows_of(tmp_path / str(count)), expected)
        assert sorted(path.name for path in (tmp_path / str(count)).iterdir()) == sorted(
            path.name for path in (tmp_path / "one").iterdir()
        )


@pytest.mark.slow
@pytest.mark.faults
def test_killed_process_ends_the_job_which_resumes_with_another_process_count(start, tmp_path):
    steps = ["--config.train.steps=100", "--config.train.log_every=20", "--config.train.eval_every=100"]
    job = start(2, *steps)
    wait_for(tmp_path / "run" / "checkpoints" / "step_20", job)
    job[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, error = job[0].communicate(timeout=10 * HEARTBEAT)
    assert time.monotonic() - killed < HEARTBEAT + 10
    assert job[0].returncode == 1
    (line,) = [line for line in error.splitlines() if line.startswith("error: ")]
    assert "process 0 of 2 lost another process" in line
    assert "rerun the job to resume from the last checkpoint" in line
    out = finish(start(1, *steps))
    assert "on 1 cpu device, " in out
    assert 20 <= int(out.split("resumed at step ")[1].split("\n")[0]) < 100
    finish(start(1, *steps, workdir=tmp_path / "whole"))
    assert_same_rows(rows_of(tmp_path / "run"), rows_of(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.faults
def test_other_processes_exit_if_the_first_is_killed(start, tmp_path):
    job = start(2, *LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "step_10", job)
    job[0].send_signal(signal.SIGKILL)
    _, error = job[1].communicate(timeout=10 * HEARTBEAT)
    assert job[1].returncode != 0
    assert "lost another process" in error or "another task died" in error


@pytest.mark.slow
@pytest.mark.faults
def test_signal_to_one_process_stops_all_at_the_same_step(start, tmp_path):
    job = start(2, *LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "step_10", job)
    job[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=200)[1] for process in job]
    assert [process.returncode for process in job] == [143, 143], errors
    lines = [line for error in errors for line in error.splitlines() if line.startswith("stopped by SIGTERM at step")]
    assert len(lines) == 2
    assert lines[0] == lines[1]
    step = lines[0].split("at step ")[1].split(",")[0]
    assert (tmp_path / "run" / "checkpoints" / f"step_{step}").exists()


@pytest.mark.slow
@pytest.mark.faults
def test_error_of_the_first_process_ends_all_with_one_line_each(start, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{")
    job = start(2)
    for process in job:
        _, error = process.communicate(timeout=100)
        assert process.returncode == 1, error
        assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost:1", 2, None), "expected all three, or none"),
        ((None, 2, 0), "expected all three, or none"),
        (("localhost:1", 2, 2), "--process_id: expected from 0 to 1, got 2"),
        (("localhost:1", 2, -1), "--process_id: expected from 0 to 1, got -1"),
    ],
)
def test_cluster_needs_all_arguments_or_none(arguments, message):
    with pytest.raises(UserError, match=message):
        Cluster(*arguments)
    assert Cluster() == Cluster(None, None, None)
