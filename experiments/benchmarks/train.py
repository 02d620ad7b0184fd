"""The suite "train": a whole training step of a character-level language model, against the same in PyTorch.

Embedding, two layers of GRU with reset="after", softmax over 65 characters; the state carried from batch to batch;
gradients clipped at norm 1, Adam. Ours is the trainer's own step.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.benchmarks.harness import Candidate, Measurement, Outcome, Program, measure, peak_growth
from experiments.benchmarks.libraries import AUTOCAST, FLOAT32, OURS, torch_program, training_step
from experiments.benchmarks.problem import Precision, Sizes
from experiments.benchmarks.settings import Settings
from experiments.runner.config import ExperimentConfig, OptimizerConfig, TrainConfig
from experiments.runner.devices import largest_divisor, make_mesh, replicate, spread
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import TrainState, initial_state, make_train_step, model_parts
from experiments.tasks.base import SPLITS
from experiments.tasks.text.char_lm import CharLM, CharLMConfig
from experiments.tasks.text.model import LanguageModelConfig
from gru_jax.interop.torch import to_state_dict

SHAPES = (Sizes(64, 128, 512, 512),)
LAYERS, VOCABULARY, CHECKED_STEPS = 2, 65, 10
OPTIMIZER = OptimizerConfig(name="adam", learning_rate=1e-3, clip_norm=1.0)
LOSS = "cross entropy"


class RandomText(CharLM):
    """`CharLM` on characters drawn at random."""

    def __init__(self, sizes: Sizes):
        """Draws ten batches' worth."""
        letters = "".join(map(chr, range(VOCABULARY)))
        drawn = np.random.default_rng(0).integers(VOCABULARY, size=10 * sizes.B * sizes.T)
        self.parts = dict.fromkeys(SPLITS, letters + "".join(letters[code] for code in drawn))
        super().__init__(CharLMConfig(length=sizes.T, batch_size=sizes.B), None)

    def learn(self) -> dict[str, Any]:
        return {"vocabulary": "".join(map(chr, range(VOCABULARY)))}


def run(settings: Settings) -> list[Measurement]:
    """Measures our step in both precisions, on one device and on all, and PyTorch's."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"train {sizes}: a training step of {LAYERS} layers, reset=after")
        devices = largest_divisor(sizes.B, settings.devices)
        programs = [
            our_program(sizes, precision, count)
            for count in ((1, devices) if devices > 1 else (1,))
            for precision in ("float32", "bfloat16")
        ]
        expected = programs[0].outcome()
        found = [Candidate(program, expected, loss=LOSS) for program in programs]
        if "torch" in settings.peers:
            weights, batch = torch_inputs(sizes)
            for library in (FLOAT32, AUTOCAST):
                arguments = library, weights, batch, LAYERS, OPTIMIZER
                resident = partial(peak_growth, training_step, *arguments) if settings.resident else None
                program = torch_program(*arguments, checked)
                found.append(Candidate(program, expected, loss=LOSS, resident_bytes=resident))
        rows += measure(sizes, "training step", "after", found, settings.seconds, settings.least_rounds)
    return rows


def experiment(sizes: Sizes, precision: Precision) -> tuple[RandomText, ExperimentConfig]:
    """Returns the task, and the configuration of the model that is trained."""
    task = RandomText(sizes)
    model = LanguageModelConfig(
        cell="gru",
        reset="after",
        hidden_size=sizes.H,
        num_layers=LAYERS,
        embedding_size=sizes.I,
        matmul_dtype=precision,
    )
    return task, ExperimentConfig(task.config, model, OPTIMIZER, TrainConfig(), seed=0)


def our_program(sizes: Sizes, precision: Precision, devices: int) -> Program:
    """The trainer's step, over and over on one batch."""
    task, config = experiment(sizes, precision)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    graph, start = initial_state(task, config, optimizer)
    # What a step is given is consumed: `start` stays outside.
    start = jax.tree.map(np.asarray, start)
    mesh = make_mesh(sizes.B, devices)
    schedule = learning_rate(config.optimizer, config.train.steps)
    step: Any = make_train_step(task, graph, optimizer, schedule, mesh, config.seed)
    batch = spread(task.train_batch(0, 0), mesh)

    def fresh() -> TrainState:
        rest: TrainState = replicate(start._replace(carry=()), mesh)
        return rest._replace(carry=spread(start.carry, mesh))

    state = fresh()
    begin = time.perf_counter()
    executable = step.lower(state, batch).compile()
    seconds = time.perf_counter() - begin

    def call() -> float:
        nonlocal state
        state, sums = executable(state, batch)
        total, weight = sums["loss"]
        return float(total) / float(weight)

    def outcome() -> Outcome:
        nonlocal state
        state = fresh()
        return checked(call)

    temp_bytes = devices * executable.memory_analysis().temp_size_in_bytes
    return Program(OURS, precision, call, outcome, devices, temp_bytes, seconds)


def checked(step: Callable[[], float]) -> Outcome:
    """What a training step computes, as its losses tell: the first, and how it falls over the next steps."""
    losses = np.array([step() for _ in range(CHECKED_STEPS)])
    return {"loss": losses[:1], "progress": losses[1:] - losses[0]}


def torch_inputs(sizes: Sizes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns our model's fresh weights under the names of the PyTorch model, and the batch."""
    task, config = experiment(sizes, "float32")
    model: Any = nnx.merge(*model_parts(task, config))
    gru = {
        f"gru.{name}": array
        for name, array in to_state_dict(model.recurrent.cell, model.recurrent.parameters()).items()
    }
    weights = gru | {
        "embedding.weight": np.asarray(model.embedding.embedding[...]),
        "softmax.weight": np.asarray(model.softmax.kernel[...]).T.copy(),
        "softmax.bias": np.asarray(model.softmax.bias[...]),
    }
    return weights, {name: np.asarray(array) for name, array in task.train_batch(0, 0).items()}
