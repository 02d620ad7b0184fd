"""Training one model with several processes, on one machine or many: connecting, synchronizing and ending together.

All processes run the same program in lockstep. The first process writes all files except the arrays of checkpoints,
which each process writes for its own devices. The run folder must therefore be on a file system that all of them share.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from typing import NoReturn, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from experiments.runner.config import ExperimentConfig
from experiments.runner.interruption import Interrupted
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError

HEARTBEAT = 30
"""Seconds without a heartbeat after which a process is considered dead and the others exit."""
BARRIER_TIMEOUT = 300
"""Seconds that processes wait for each other at the start and wherever only one of them has work."""
EXIT_TIMEOUT = 10
"""Seconds that a failing process waits for the others to fail as well."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The arguments of `jax.distributed.initialize`. None is detected from SLURM, Open MPI or Kubernetes.

    Attributes:
      coordinator: host and port of the first process: "10.0.0.1:1234".
      num_processes: number of processes.
      process_id: index of this process, from 0.
    """

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None

    def __post_init__(self):
        given = [value is not None for value in (self.coordinator, self.num_processes, self.process_id)]
        if any(given) and not all(given):
            raise UserError(
                "--coordinator, --num_processes, --process_id: expected all three, or none where SLURM, Open MPI or "
                f"Kubernetes started the processes, got {sum(given)}"
            )
        count, number = self.num_processes, self.process_id
        if count is not None and number is not None and not 0 <= number < count:
            raise UserError(f"--process_id: expected from 0 to {count - 1}, got {number}")


@contextlib.contextmanager
def joined(cluster: Cluster) -> Iterator[None]:
    """Connects to the other processes, and exits together with them.

    Must be entered before JAX initializes its backend. An error that all processes raise is raised. If this process
    fails alone, or another one is lost, it prints one line and exits at once with status 1. The others notice at their
    next collective operation, or within `HEARTBEAT` seconds, and exit too.

    Args:
      cluster: the addresses of the processes.

    Raises:
      UserError: the processes could not connect.
    """
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.num_processes,
            cluster.process_id,
            initialization_timeout=BARRIER_TIMEOUT,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise UserError(
            "--multihost: expected SLURM, Open MPI or Kubernetes to have started this process, or --coordinator, "
            f"--num_processes and --process_id ({_first_line(error)})"
        ) from None
    except RuntimeError as error:
        raise UserError(f"--multihost: the processes could not connect: {_first_line(error)}") from None
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        _end(f"{_name()} lost another process: {_first_line(error)}; rerun the job to resume from the last checkpoint")
    except BaseException as error:
        try:
            wait_for_all("parting", EXIT_TIMEOUT)
        except jax.errors.JaxRuntimeError:
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            _end(f"{_name()} failed, and the others with it: {_first_line(error)}")
        jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def is_first() -> bool:
    """Returns whether this is the first process, which writes the files."""
    return jax.process_index() == 0


def wait_for_all(place: str, seconds: int = BARRIER_TIMEOUT) -> None:
    """Waits until all processes call it with the same `place`, a name that is used once."""
    if jax.process_count() > 1:
        barrier = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        barrier(key=place, timeout_ms=1000 * seconds)


def broadcast_from_first(value: int) -> int:
    """Returns the value of the first process on all processes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def own_folder(folder: RunFolder, config: ExperimentConfig) -> Iterator[RunFolder]:
    """Yields a folder to write to: the claimed run folder for the first process, a temporary one for the others.

    The others' standard output is discarded.

    Raises:
      UserError: the first process could not claim the run folder.
    """
    with contextlib.ExitStack() as stack:
        if is_first():
            try:
                stack.enter_context(folder.claimed(config))
            except BaseException:
                broadcast_from_first(False)
                raise
            broadcast_from_first(True)
            yield folder
        elif broadcast_from_first(True):
            stack.enter_context(
                contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
            )
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            yield RunFolder(pathlib.Path(scratch), shared=folder.path)
        else:
            raise UserError(f"{_name()}: the first process could not use {folder.path}; its message says why")


class Preemption:
    """Called, returns whether any process has received SIGTERM. All processes get the same answer from the same call.

    It has the interface of `interruption.Interruption`; JAX records the signal and synchronizes the processes.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> bool:
        self.calls += 1
        return multihost_utils.reached_preemption_sync_point(self.calls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def interrupted(self, step: int) -> Interrupted:
        """Returns the error to raise after a signal stopped training at `step`."""
        message = f"stopped by SIGTERM at step {step}, with a checkpoint; rerun the command to resume"
        return Interrupted(message, signal.SIGTERM)


def _name() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _end(line: str) -> NoReturn:
    """Prints an error and exits this process without waiting for the others."""
    print(f"error: {line}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
