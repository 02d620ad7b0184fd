"""The seeds of one configuration, trained side by side by one program.

Seeds are spread over the devices, which then need not wait for each other as they do over one run's rows. Where a
device has more than one, an accelerator, which a small network leaves mostly idle, works on all at once (`vmap`). On a
CPU they take their turns within the program: products of many small matrices cost it more than they save. What a run
writes is what it writes alone.
"""

import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.sweeps.grid import Member
from experiments.tasks.base import Batch, Task
from experiments.training import devices
from experiments.training.display import Display
from experiments.training.loop import Run, Training
from experiments.training.nonfinite import NonFiniteError
from experiments.training.optimizer import learning_rate, make_optimizer
from experiments.training.state import TrainState, place, stream
from experiments.training.step import make_group_step


class ShapesDifferError(ValueError):
    """The batches of one step have other shapes for other seeds; the message is one line."""


class Plain:
    """Standard output as a pipe would take it: no progress bars, of which there would be one for each seed."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()

    def isatty(self) -> bool:
        return False


class SeedDisplay(Display):
    """Shows the rows of one of several runs, with its seed."""

    def __init__(self, steps: int, done: int, seed: int):
        """See `Display`."""
        super().__init__(steps, done, Plain())  # type: ignore[arg-type]
        self.seed = seed

    def line(self, text: str) -> None:
        super().line(f"seed {self.seed}  {text}")


def make_mesh(runs: int, batch_size: int, most: int | None) -> Mesh:
    """Lays out the devices for so many runs: their number divides that of the runs."""
    shared = math.gcd(runs, batch_size)
    return devices.make_mesh(shared, devices.largest_divisor(shared, most or len(jax.devices())))


def mapped_here() -> bool:
    """Whether the runs of one device share its products: on accelerators, not on a CPU."""
    return jax.default_backend() != "cpu"


def train(
    members: Sequence[Member],
    task: Task,
    starts: Sequence[Run],
    mesh: Mesh,
    stop: Callable[[], bool],
    mapped: bool | None = None,
) -> list[Run | NonFiniteError]:
    """Trains runs that stand at the same step from there to the end, or until asked to stop.

    Args:
      members: they differ in the seed alone.
      task: made from their common configuration.
      starts: from `loop.load`, one for each member; their states' arrays are consumed.
      mesh: from `make_mesh`.
      stop: asked after every step.
      mapped: whether the runs of one device share its products; None for `mapped_here`.

    Returns:
      for each member the run as it ended, `progress.finished` false where it was stopped, or why it failed.

    Raises:
      ShapesDifferError: the task's batches cannot be stacked; the last checkpoints are unharmed.
    """
    config = members[0].config
    stopping = False
    trainings = [
        Training(
            member.config,
            task,
            member.folder,
            start,
            mesh,
            SeedDisplay(config.train.steps, start.progress.step, member.config.seed),
            (),
            lambda: stopping,
        )
        for member, start in zip(members, starts, strict=True)
    ]
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    schedule = learning_rate(config.optimizer, config.train.steps)
    mapped = mapped_here() if mapped is None else mapped
    step_all = make_group_step(task, starts[0].graph, optimizer, schedule, mesh, config.train.accumulate, mapped)
    keys = devices.spread(jnp.stack([stream(member.config.seed, "dropout") for member in members]), mesh)
    failures: dict[int, NonFiniteError] = {}
    try:
        for training in trainings:
            training.evaluator = trainings[0].evaluator  # compiled once for all
            if training.progress.due:
                training.mark(logs=False, evaluates=True, saves=True)
        states = devices.spread(stacked([training.state for training in trainings]), mesh)
        active = {number: training for number, training in enumerate(trainings) if not training.progress.finished}
        step = starts[0].progress.step
        while active and not stopping:
            batches = [task.train_batch(member.config.seed, step) for member in members]
            states, sums = step_all(states, devices.spread(side_by_side(batches), mesh), keys)
            of_each, step, stopping = parted(sums, len(members)), step + 1, stop()
            for number, training in list(active.items()):
                if stopping or any(training.due(step)):
                    training.state = place(picked(states, number), mesh)
                try:
                    training.took(of_each[number])
                except NonFiniteError as error:
                    failures[number] = error
                if number in failures or training.progress.finished:
                    del active[number]
    finally:
        for training in trainings:
            training.metrics_file.close()
    return [
        failures.get(number) or Run(starts[number].graph, training.state, training.best, training.progress)
        for number, training in enumerate(trainings)
    ]


def side_by_side(batches: Sequence[Batch]) -> Batch:
    """Stacks batches, the first axis for the runs."""
    for name in batches[0]:
        shapes = {batch[name].shape for batch in batches}
        if len(shapes) > 1:
            raise ShapesDifferError(f"batches of one step differ in the shape of {name!r}: {sorted(shapes)}")
    return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


@jax.jit
def stacked(states: Sequence[TrainState]) -> TrainState:
    """Stacks states, the first axis for the runs."""
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)


@jax.jit
def picked(tree: Any, number: int) -> Any:
    """Returns what belongs to one run."""
    return jax.tree.map(lambda array: array[number], tree)


@partial(jax.jit, static_argnums=1)
def parted(sums: Any, count: int) -> list[Any]:
    """Returns the sums of each run."""
    return [picked(sums, number) for number in range(count)]
