"""The suite "loop_overhead": what the training loop adds to its compiled step, and what seeds side by side save.

The bare loop repeats the compiled step on one batch that is already on the devices, and waits at the end. The training
loop also makes a batch for each step, transfers it, fetches the sums of each step, shows progress and writes rows.
Validation and checkpoints are not measured. The model is a character-level language model.

For `experiments.sweep`, the bare loop of one run is compared with that of several seeds in one program, which are
sharded over the devices; times are per run and step.
"""

import dataclasses
import io
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.harness import Candidate, Measurement, Outcome, Program, measure
from experiments.benchmarks.libraries import OURS
from experiments.benchmarks.settings import Settings, Sizes
from experiments.benchmarks.training_step import LOSS, experiment
from experiments.runner import sweep
from experiments.runner.checkpoints import Progress
from experiments.runner.config import TrainConfig
from experiments.runner.devices import largest_divisor, make_mesh, spread
from experiments.runner.logging import Display
from experiments.runner.loop import Run, Training
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import initial_state, make_group_step, place, stream

SHAPES = (Sizes(64, 128, 96, 448), Sizes(32, 64, 32, 64))
"""The model of configs/char_lm.py, and a small one with short steps."""
SEED_SHAPES = (Sizes(32, 64, 32, 64), Sizes(64, 64, 64, 128))
LOOP, BARE = "training loop", "bare loop"
BURST, CHECKED_STEPS, SEEDS = 10, 3, 4
SETTINGS = TrainConfig(steps=10**9, log_every=50, eval_every=10**9, checkpoint_every=10**9)


def run(settings: Settings) -> list[Measurement]:
    """Measures every size in float32, on all devices."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"loop_overhead {sizes}: {BURST} steps of the training loop and of a bare loop")
        rows += compared(sizes, LOOP, training_loop, settings)
    for sizes in settings.shapes or SEED_SHAPES:
        settings.say(f"loop_overhead {sizes}: one seed, and {SEEDS} seeds side by side")
        rows += compared(sizes, f"{SEEDS} seeds", seeds_side_by_side, settings)
    return rows


def compared(sizes: Sizes, work: str, ours: Callable[[Training], Program], settings: Settings) -> Sequence[Measurement]:
    """Times a program beside the bare loop."""
    with tempfile.TemporaryDirectory() as folder:
        training = make_training(sizes, largest_divisor(sizes.B, settings.devices), pathlib.Path(folder))
        programs = ours(training), bare_loop(training)
        expected = programs[1].outcome()
        found = [Candidate(program, expected, loss=LOSS) for program in programs]
        rows = measure(sizes, work, "after", found, settings.seconds, settings.min_rounds)
        training.metrics_file.close()
    return rows


def make_training(sizes: Sizes, devices: int, folder: pathlib.Path) -> Training:
    """Returns a new run without a last step."""
    task, config = experiment(sizes, "float32")
    config = dataclasses.replace(config, train=SETTINGS)
    mesh = make_mesh(sizes.B, devices)
    graph, state = initial_state(task, config, make_optimizer(config.optimizer, SETTINGS.steps))
    start = Run(graph, place(state, mesh), (), Progress())
    return Training(config, task, RunFolder(folder), start, mesh, Display(SETTINGS.steps, 0, io.StringIO()), (), never)


def never() -> bool:
    return False


def training_loop(training: Training) -> Program:
    """Steps of the training loop."""

    def call() -> None:
        for _ in range(BURST):
            training.advance()
        jax.block_until_ready(training.state)

    def outcome() -> Outcome:
        losses = []
        for _ in range(CHECKED_STEPS):
            training.advance()
            total, weight = training.pending["loss"]
            losses.append(float(total) / float(weight))
        return {"loss": np.array(losses)}

    return Program(OURS, "float32", call, outcome, training.mesh.size, calls=BURST)


def bare_loop(training: Training) -> Program:
    """The compiled step of the training loop, on one batch that is already on the devices."""
    task, mesh, seed = training.task, training.mesh, training.config.seed
    # A step donates its state, so each loop starts from a copy.
    start: Any = jax.tree.map(np.array, training.state)
    state = place(start, mesh)
    batch = spread(task.train_batch(seed, 0), mesh)

    def call() -> None:
        nonlocal state
        for _ in range(BURST):
            state, _ = training.train_step(state, batch)
        jax.block_until_ready(state)

    def outcome() -> Outcome:
        losses, now = [], place(start, mesh)
        for step in range(CHECKED_STEPS):
            now, sums = training.train_step(now, spread(task.train_batch(seed, step), mesh))
            losses.append(float(sums["loss"][0]) / float(sums["loss"][1]))
        return {"loss": np.array(losses)}

    return Program(BARE, "float32", call, outcome, mesh.size, calls=BURST)


def seeds_side_by_side(training: Training) -> Program:
    """Steps of several seeds in one program; each has its own dropout, and all share the batch when timed."""
    task, config = training.task, training.config
    mesh = sweep.make_mesh(SEEDS, task.batch_size, training.mesh.size)
    optimizer = make_optimizer(config.optimizer, SETTINGS.steps)
    schedule = learning_rate(config.optimizer, SETTINGS.steps)
    step_all = make_group_step(task, training.evaluator.graph, optimizer, schedule, mesh, 1, sweep.mapped_here())
    keys = spread(jnp.stack([stream(seed, "dropout") for seed in range(SEEDS)]), mesh)
    start: Any = jax.tree.map(lambda array: np.stack([np.array(array)] * SEEDS), training.state)

    def batches(step: int) -> Any:
        return spread(sweep.side_by_side([task.train_batch(config.seed, step)] * SEEDS), mesh)

    states, batch = spread(start, mesh), batches(0)

    def call() -> None:
        nonlocal states
        for _ in range(BURST):
            states, _ = step_all(states, batch, keys)
        jax.block_until_ready(states)

    def outcome() -> Outcome:
        losses, now = [], spread(start, mesh)
        for step in range(CHECKED_STEPS):
            now, sums = step_all(now, batches(step), keys)
            losses.append(float(sums["loss"][0][0]) / float(sums["loss"][1][0]))
        return {"loss": np.array(losses)}

    return Program(OURS, "float32", call, outcome, mesh.size, calls=BURST * SEEDS)
