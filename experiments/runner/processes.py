"""Several processes that train one model, on one machine or on many: how they meet, agree, and end together.

Every process runs the same program in step with the others. The first writes all files but the arrays of checkpoints,
which each writes for its own devices; the run's folder therefore lies where all of them see it.
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
"""Seconds without a sign of life after which a process is taken for dead, and the others end."""
MEETING = 300
"""Seconds that processes wait for each other at the start, and wherever one has work that the others have not."""
PARTING = 10
"""Seconds that a process which fails waits for the others to fail with it."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """What a process is told of the others; None for what SLURM, Open MPI or Kubernetes tells it.

    Attributes:
      coordinator: host and port of the first process: "10.0.0.1:1234".
      num_processes: how many there are.
      process_id: which of them this is, from 0.
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
    """Joins the other processes, and leaves together with them.

    Must be entered before JAX starts its backend. What all processes raise is raised. Where this process fails alone,
    or another one is lost, it says so in a line and ends at once, with status 1; the others notice when they next
    exchange numbers, or within `HEARTBEAT` seconds, and end too.

    Args:
      cluster: what this process is told of the others.

    Raises:
      UserError: there is nobody to join.
    """
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.num_processes,
            cluster.process_id,
            initialization_timeout=MEETING,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except ValueError as error:
        raise UserError(
            "--multihost: expected SLURM, Open MPI or Kubernetes to have started this process, or --coordinator, "
            f"--num_processes and --process_id ({_first_line(error)})"
        ) from None
    except RuntimeError as error:
        raise UserError(f"--multihost: the processes did not meet: {_first_line(error)}") from None
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        _end(f"{_name()} lost another one: {_first_line(error)}; run again, the job goes on from its last checkpoint")
    except BaseException as error:
        try:
            wait_for_all("parting", PARTING)
        except jax.errors.JaxRuntimeError:
            if not isinstance(error, UserError):
                traceback.print_exception(error)
            _end(f"{_name()} failed, and the others with it: {_first_line(error)}")
        jax.distributed.shutdown()
        raise
    jax.distributed.shutdown()


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def wait_for_all(place: str, seconds: int = MEETING) -> None:
    """Waits until all processes have come to a place of the program; no name is used for two places, or twice."""
    if jax.process_count() > 1:
        barrier = ocp.multihost.get_barrier_sync_fn(processes=set(range(jax.process_count())))
        barrier(key=place, timeout_ms=1000 * seconds)


def of_first(value: int) -> int:
    """Returns the value that the first process gives."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


@contextlib.contextmanager
def own_folder(folder: RunFolder, config: ExperimentConfig) -> Iterator[RunFolder]:
    """Gives each process a folder to write to: the first the run's, claimed for it; the others one that is thrown away,
    as is what they print.

    Raises:
      UserError: the first process could not claim it.
    """
    with contextlib.ExitStack() as stack:
        if is_first():
            try:
                stack.enter_context(folder.claimed(config))
            except BaseException:
                of_first(False)
                raise
            of_first(True)
            yield folder
        elif of_first(True):
            stack.enter_context(
                contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w", encoding="utf-8")))
            )
            scratch = stack.enter_context(tempfile.TemporaryDirectory())
            yield RunFolder(pathlib.Path(scratch), shared=folder.path)
        else:
            raise UserError(f"{_name()}: the first process refused {folder.path}, and says why")


class Preemption:
    """Asked whether to stop, says whether a SIGTERM came to any process; all are told so at the same question.

    It has the face of `interruption.Interruption`. JAX notes the signal and has the processes agree.
    """

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return multihost_utils.reached_preemption_sync_point(self.asked)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def interrupted(self, step: int) -> Interrupted:
        """Returns the error that ends a program which a signal stopped at `step`."""
        message = f"stopped by SIGTERM at step {step}, where a checkpoint is written; run again, it goes on"
        return Interrupted(message, signal.SIGTERM)


def _name() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _end(line: str) -> NoReturn:
    """Ends this process without waiting for anybody."""
    print(f"error: {line}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
