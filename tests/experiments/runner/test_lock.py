"""One process at a time, whatever became of the one before. Needs real processes: the lock is the system's."""

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


def test_another_process_is_refused_and_told_who_holds_it(tmp_path, holder):
    expected = f"is in use: process {holder.pid} on {platform.node()} is at work there"
    with pytest.raises(UserError, match=expected), locked(tmp_path / "lock"):
        pass
    assert json.loads((tmp_path / "lock").read_text()) == {"pid": holder.pid, "host": platform.node()}


def test_what_a_killed_process_left_is_taken_over(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "lock").exists()
    with locked(tmp_path / "lock"):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "lock").exists()


def test_a_lock_of_another_host_is_refused_and_stays(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 7, "host": "elsewhere"}')
    with pytest.raises(UserError, match=r"process 7 on elsewhere .* if it is gone, delete that file"):
        locked(tmp_path / "lock").__enter__()
    assert (tmp_path / "lock").exists()


def test_a_torn_lock_file_is_nobodys(tmp_path):
    (tmp_path / "lock").write_text('{"pid": 7, "ho')
    with locked(tmp_path / "lock"):
        pass
    assert not (tmp_path / "lock").exists()


def test_it_is_let_go_of_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), locked(tmp_path / "lock"):
        raise RuntimeError
    with locked(tmp_path / "lock"):
        pass
