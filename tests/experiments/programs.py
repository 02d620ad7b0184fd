"""Runs commands in their own processes."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SONG = "To be, or not to be, that is the question:\nWhether 'tis nobler in the mind to suffer\n"


class Programs:
    """Starts commands, and kills those still running at the end."""

    def __init__(self, **environment: str):
        """Args: **environment: environment variables of all commands."""
        self.environment = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
        self.running: list[subprocess.Popen[str]] = []

    def start(
        self,
        module: str,
        *arguments: object,
        stdout: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        """Starts `python -m experiments.<module>`.

        Args:
          module: name of the module.
          *arguments: arguments of the command line.
          stdout: where the output goes; a pipe by default.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
            cwd=ROOT,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )
        self.running.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """Waits for the expected exit status. Returns stdout if it is 0, else stderr."""
        out, err = process.communicate(timeout=500)
        self.running.remove(process)
        assert process.returncode == status, f"{out}{err}"
        return out if status == 0 else err

    def run(self, module: str, *arguments: object, status: int = 0) -> str:
        return self.finish(self.start(module, *arguments), status)

    def kill(self, process: subprocess.Popen[str]) -> None:
        """Kills a process by SIGKILL and checks that it was still running."""
        process.kill()
        self.finish(process, -signal.SIGKILL)

    def stop_all(self) -> None:
        while self.running:
            process = self.running.pop()
            process.kill()
            process.communicate()


@contextlib.contextmanager
def programs(**environment: str) -> Iterator[Programs]:
    """Yields a `Programs`. Its commands handle SIGINT even if the tests, in a shell's background, ignore it."""
    started, before = Programs(**environment), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield started
    finally:
        signal.signal(signal.SIGINT, before)
        started.stop_all()


def wait_until(condition: Callable[[], object], process: subprocess.Popen[str], pause_s: float = 0.002) -> None:
    """Waits for a condition while a process runs. Fails if the process ends first."""
    deadline = time.monotonic() + 400
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "nothing happened for 400 seconds"
        time.sleep(pause_s)


def compilation_cache(folder: pathlib.Path) -> Mapping[str, str]:
    """Returns environment variables for a shared compilation cache."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@contextlib.contextmanager
def mounted(folder: pathlib.Path, *options: str) -> Iterator[None]:
    """Mounts a file system on a folder, with the options of `mount`. Skips the test if that is not allowed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a file system")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
