"""The suite "training_step": a training step of a character-level language model, and the same step in PyTorch.

The model is an embedding, two GRU layers with reset="after" and a softmax over 65 characters. Its state is carried from
batch to batch. Gradients are clipped at norm 1, the optimizer is Adam. Ours is the step of `experiments.train`.
"""

import importlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments.benchmarks.harness import Candidate, Measurement, Outcome, Program, measure, peak_growth
from experiments.benchmarks.libraries import AUTOCAST, OURS, TORCH, torch_device
from experiments.benchmarks.settings import Precision, Settings, Sizes
from experiments.runner.config import ExperimentConfig, OptimizerConfig, TrainConfig
from experiments.runner.devices import available_cores, largest_divisor, make_mesh, replicate, shard_batch
from experiments.runner.optimizer import learning_rate, make_optimizer
from experiments.runner.step import TrainState, initial_state, make_train_step, split_model
from experiments.tasks.base import SPLITS
from experiments.tasks.text.char_lm import CharLM, CharLMConfig
from experiments.tasks.text.model import LanguageModelConfig
from gru_jax.interop.torch import to_state_dict

SHAPES = (Sizes(64, 128, 512, 512),)
LAYERS, VOCABULARY, CHECKED_STEPS = 2, 65, 10
OPTIMIZER = OptimizerConfig(name="adam", learning_rate=1e-3, clip_norm=1.0)
LOSS = "cross entropy"


class RandomText(CharLM):
    """The task `CharLM` on random characters."""

    def __init__(self, sizes: Sizes):
        """Draws the text of ten batches."""
        letters = "".join(map(chr, range(VOCABULARY)))
        drawn = np.random.default_rng(0).integers(VOCABULARY, size=10 * sizes.B * sizes.T)
        self.parts = dict.fromkeys(SPLITS, letters + "".join(letters[code] for code in drawn))
        super().__init__(CharLMConfig(length=sizes.T, batch_size=sizes.B), None)

    def learn(self) -> dict[str, Any]:
        return {"vocabulary": "".join(map(chr, range(VOCABULARY)))}


def run(settings: Settings) -> list[Measurement]:
    """Measures our step in both precisions, on one device and on all devices, and PyTorch's."""
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"training_step {sizes}: {LAYERS} layers, reset=after")
        devices = largest_divisor(sizes.B, settings.devices)
        programs = [
            our_program(sizes, precision, count)
            for count in ((1, devices) if devices > 1 else (1,))
            for precision in ("float32", "bfloat16")
        ]
        expected = programs[0].outcome()
        found = [Candidate(program, expected, loss=LOSS) for program in programs]
        if "torch" in settings.peers:
            for library in (TORCH, AUTOCAST):
                arguments = library, *torch_inputs(sizes)
                resident = partial(peak_growth, torch_training_step, *arguments) if settings.resident else None
                found.append(Candidate(torch_program(*arguments), expected, loss=LOSS, resident_bytes=resident))
        rows += measure(sizes, "training step", "after", found, settings.seconds, settings.min_rounds)
    return rows


def experiment(sizes: Sizes, precision: Precision) -> tuple[RandomText, ExperimentConfig]:
    """Returns the task and the config of the run."""
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
    """Compiles our training step; each call repeats it on one batch."""
    task, config = experiment(sizes, precision)
    optimizer = make_optimizer(config.optimizer, config.train.steps)
    graphdef, start = initial_state(task, config, optimizer)
    # A step donates its state, so the first one is kept in NumPy.
    start = jax.tree.map(np.asarray, start)
    mesh = make_mesh(sizes.B, devices)
    schedule = learning_rate(config.optimizer, config.train.steps)
    step: Any = make_train_step(task, graphdef, optimizer, schedule, mesh, config.seed)
    batch = shard_batch(task.train_batch(0, 0), mesh)

    def fresh() -> TrainState:
        rest: TrainState = replicate(start._replace(carry=()), mesh)
        return rest._replace(carry=shard_batch(start.carry, mesh))

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
        return losses_of(call)

    temp_bytes = devices * executable.memory_analysis().temp_size_in_bytes
    return Program(OURS, precision, call, outcome, devices, temp_bytes, seconds)


def losses_of(step: Callable[[], float]) -> Outcome:
    """Returns the loss of the first training step, and the differences of the next losses from it."""
    losses = np.array([step() for _ in range(CHECKED_STEPS)])
    return {"loss": losses[:1], "progress": losses[1:] - losses[0]}


def torch_inputs(sizes: Sizes) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the initial weights of our model under PyTorch's names, and the batch."""
    task, config = experiment(sizes, "float32")
    model: Any = nnx.merge(*split_model(task, config))
    gru = {
        f"gru.{name}": array
        for name, array in to_state_dict(model.recurrent.stack, model.recurrent.parameters()).items()
    }
    weights = gru | {
        "embedding.weight": np.asarray(model.embedding.embedding[...]),
        "softmax.weight": np.asarray(model.softmax.kernel[...]).T.copy(),
        "softmax.bias": np.asarray(model.softmax.bias[...]),
    }
    return weights, {name: np.asarray(array) for name, array in task.train_batch(0, 0).items()}


def torch_program(library: str, weights: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> Program:
    """Makes the program of `torch_training_step`, and takes the same arguments."""

    def outcome():
        return losses_of(torch_training_step(library, weights, batch, one_bias=True))

    call = torch_training_step(library, weights, batch)
    return Program(library, "float32" if library == TORCH else "bfloat16", call, outcome)


def torch_training_step(
    library: str,
    weights: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray],
    one_bias: bool = False,
) -> Callable[[], float]:
    """Returns a function that performs the next training step on the batch and returns its loss.

    Args:
      library: `TORCH`, in float32, or `AUTOCAST`.
      weights: "embedding.weight" (V, I), "softmax.weight" (V, H), "softmax.bias" (V,), and the GRU's with the prefix
        "gru.".
      batch: "inputs" and "targets" (B, T).
      one_bias: whether to freeze the second bias of r and z, so that the model has the same parameters as ours.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(available_cores())
    device, autocast = torch_device(), library == AUTOCAST
    V, I = weights["embedding.weight"].shape
    H = weights["softmax.weight"].shape[1]
    model = torch.nn.ModuleDict(
        {
            "embedding": torch.nn.Embedding(V, I),
            "gru": torch.nn.GRU(I, H, num_layers=LAYERS, batch_first=True),
            "softmax": torch.nn.Linear(H, V),
        }
    )
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    model.to(device)
    if one_bias:
        trained = (torch.arange(3 * H, device=device) >= 2 * H).float()
        for layer in range(LAYERS):
            getattr(model["gru"], f"bias_hh_l{layer}").register_hook(lambda gradient: gradient * trained)
    optimizer = torch.optim.Adam(
        model.parameters(),
        lr=OPTIMIZER.learning_rate,
        betas=(OPTIMIZER.beta1, OPTIMIZER.beta2),
        eps=OPTIMIZER.epsilon,
        fused=True,
    )
    inputs, targets = (torch.tensor(batch[name]).long().to(device) for name in ("inputs", "targets"))
    carry = torch.zeros(LAYERS, inputs.shape[0], H, device=device)

    def step() -> float:
        nonlocal carry
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=autocast):
            ys, carry = model["gru"](model["embedding"](inputs), carry)
            logits = model["softmax"](ys)
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), OPTIMIZER.clip_norm)
        optimizer.step()
        carry = carry.detach()
        return loss.item()

    return step
