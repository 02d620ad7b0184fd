"""The suite "loop_overhead": the time that the training loop adds to its compiled step.

The bare loop repeats the compiled step on one batch that is already on the devices, and waits at the end. The training
loop also makes a batch for each step, transfers it, fetches the sums of each step, shows progress and writes rows.
Validation and checkpoints are not measured. The model is a character-level language model.
"""

import dataclasses
import io
import pathlib
import tempfile
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.harness import Candidate, Measurement, Outcome, Program, measure
from experiments.benchmarks.libraries import OURS
from experiments.benchmarks.settings import Settings, Sizes
from experiments.benchmarks.training_step import LOSS, experiment
from experiments.runner.checkpoints import Progress
from experiments.runner.config import TrainConfig
from experiments.runner.devices import largest_divisor, make_mesh, shard_batch
from experiments.runner.logging import Display
from experiments.runner.loop import Run, Trainer
from experiments.runner.optimizer import make_optimizer
from experiments.runner.run_folder import RunFolder
from experiments.runner.step import initial_state, shard_state

SHAPES = (Sizes(64, 128, 96, 448), Sizes(32, 64, 32, 64))
"""The model of configs/char_lm.py, and a small one with short steps."""
LOOP, BARE = "training loop", "bare loop"
BURST, CHECKED_STEPS = 10, 3
SETTINGS = TrainConfig(steps=10**9, log_every=50, eval_every=10**9, checkpoint_every=10**9)


def run(settings: Settings) -> list[Measurement]:
    """Measures every size in float32, on all devices."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"loop_overhead {sizes}: {BURST} steps of the training loop and of a bare loop")
        with tempfile.TemporaryDirectory() as folder:
            trainer = make_trainer(sizes, largest_divisor(sizes.B, settings.devices), pathlib.Path(folder))
            programs = training_loop(trainer), bare_loop(trainer)
            expected = programs[1].outcome()
            found = [Candidate(program, expected, loss=LOSS) for program in programs]
            rows += measure(sizes, LOOP, "after", found, settings.seconds, settings.min_rounds)
            trainer.metrics_file.close()
    return rows


def make_trainer(sizes: Sizes, devices: int, folder: pathlib.Path) -> Trainer:
    """Returns a new run without a last step."""
    task, config = experiment(sizes, "float32")
    config = dataclasses.replace(config, train=SETTINGS)
    mesh = make_mesh(sizes.B, devices)
    graphdef, state = initial_state(task, config, make_optimizer(config.optimizer, SETTINGS.steps))
    start = Run(graphdef, shard_state(state, mesh), (), Progress())
    return Trainer(config, task, RunFolder(folder), start, mesh, Display(SETTINGS.steps, 0, io.StringIO()), (), never)


def never() -> bool:
    return False


def training_loop(trainer: Trainer) -> Program:
    """Steps of the training loop."""

    def call() -> None:
        for _ in range(BURST):
            trainer.train_one_step()
        jax.block_until_ready(trainer.state)

    def outcome() -> Outcome:
        losses = []
        for _ in range(CHECKED_STEPS):
            trainer.train_one_step()
            total, weight = trainer.pending["loss"]
            losses.append(float(total) / float(weight))
        return {"loss": np.array(losses)}

    return Program(OURS, "float32", call, outcome, trainer.mesh.size, calls=BURST)


def bare_loop(trainer: Trainer) -> Program:
    """The compiled step of the training loop, on one batch that is already on the devices."""
    task, mesh, seed = trainer.task, trainer.mesh, trainer.config.seed
    # A step donates its state, so each loop starts from a copy.
    start: Any = jax.tree.map(np.array, trainer.state)
    state = shard_state(start, mesh)
    batch = shard_batch(task.train_batch(seed, 0), mesh)

    def call() -> None:
        nonlocal state
        for _ in range(BURST):
            state, _ = trainer.train_step(state, batch)
        jax.block_until_ready(state)

    def outcome() -> Outcome:
        losses, now = [], shard_state(start, mesh)
        for step in range(CHECKED_STEPS):
            now, sums = trainer.train_step(now, shard_batch(task.train_batch(seed, step), mesh))
            losses.append(float(sums["loss"][0]) / float(sums["loss"][1]))
        return {"loss": np.array(losses)}

    return Program(BARE, "float32", call, outcome, mesh.size, calls=BURST)
