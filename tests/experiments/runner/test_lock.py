"""The lock of a run folder, with real processes, since the lock is the operating system's."""

import json
import os
import platform
import signal
import subprocess
import sys
import textwrap

import pytest

from experiments.runner.run_folder import locked
from experiments.schema import UserError

HOLDER = textwrap.dedent(
    """
    import pathlib, sys
    from experiments.runner.run_folder import locked
    with locked(pathlib.Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
    """
)


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_held_lock_raises_and_names_its_owner(tmp_path, holder):
    expected = f"is in use: process {holder.pid} on {platform.node()} is training there"
    with pytest.raises(UserError, match=expected), locked(tmp_path / "lock"):
        pass
    assert json.loads((tmp_path / "lock").read_text()) == {"pid": holder.pid, "host": platform.node()}


def test_lock_of_killed_process_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_lock_of_another_host_raises_and_is_kept(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 7, "host": "elsewhere"}')
    with pytest.raises(UserError, match=r"process 7 on elsewhere .* delete that file if the process has ended"):
        locked(tmp_path / "lock").__enter__()
    assert (tmp_path / "lock").exists()


@pytest.mark.parametrize("text", ['{"pid": 7, "ho', "{}", "[1]", "3"])
def test_incomplete_lock_file_is_taken_over(tmp_path, text):
    (tmp_path / "lock").write_text(text)
    with locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    with locked(tmp_path / "lock"):
        pass
