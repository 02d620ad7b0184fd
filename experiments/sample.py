"""Prints text from a trained character model, one character at a time.

python -m experiments.sample --workdir=runs/char_lm --prompt="ROMEO:" --temperature=0.8
"""

import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx

from experiments import command_line, tasks
from experiments.data.text import Vocabulary
from experiments.models.language_model import LanguageModel
from experiments.run_folder import RunFolder, RunFolderError
from experiments.schema import ConfigError
from experiments.tasks.char_lm import CharLM
from experiments.training import devices, loop

WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
PROMPT = flags.DEFINE_string("prompt", "\n", "The text to go on from.")
LENGTH = flags.DEFINE_integer("length", 500, "How many characters to print.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float(
    "temperature",
    0.8,
    "What logits are divided by: 1 for the model's own probabilities, 0 for the likeliest.",
    lower_bound=0,
)
SEED = flags.DEFINE_integer("seed", 0, "Another seed draws another text.", lower_bound=0)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where data sets are looked for; else $GRU_JAX_DATA, else a cache.")


def main(arguments: Sequence[str]) -> None:
    """Loads the run and streams text to standard output."""
    del arguments
    folder = RunFolder(pathlib.Path(WORKDIR.value))
    config = folder.load_config()
    task = tasks.find(config.task.name)(config.task, DATA_DIR.value)
    if not isinstance(task, CharLM):
        raise ConfigError(f"task.name: expected a run of 'char_lm', got one of {config.task.name!r}")
    run = loop.load(config, task, folder, devices.make_mesh(1))
    if run.progress.best_value is None:
        raise RunFolderError(f"{folder.path} holds no evaluated parameters yet")
    model = nnx.merge(run.graph, run.best)
    key = jax.random.key(SEED.value)
    for character in generate(model, task.vocabulary, PROMPT.value, LENGTH.value, TEMPERATURE.value, key):
        sys.stdout.write(character)
        sys.stdout.flush()
    sys.stdout.write("\n")


def generate(
    model: LanguageModel, vocabulary: Vocabulary, prompt: str, length: int, temperature: float, key: jax.Array
) -> Iterator[str]:
    """Yields the prompt, then `length` characters drawn from the model, each fed back to it.

    Args:
      model: over the vocabulary.
      vocabulary: the characters and their codes.
      prompt: at least one character of the vocabulary.
      length: how many characters to draw.
      temperature: divides the logits; 0 takes the likeliest character.
      key: consumed.
    """
    if not prompt:
        raise ConfigError("--prompt: expected at least one character, got none")
    try:
        codes = vocabulary.encode(prompt)
    except ValueError as error:
        raise ConfigError(f"--prompt: {error}") from None
    step, state = make_step(model, temperature), model.initial_state(1)
    code = jnp.asarray(codes[:1])
    for place in range(len(codes) - 1 + length):
        yield vocabulary.symbols[int(code[0])]
        code, state = step(code, state, jax.random.fold_in(key, place))
        if place + 1 < len(codes):
            code = jnp.asarray(codes[place + 1 : place + 2])
    yield vocabulary.symbols[int(code[0])]


def make_step(model: LanguageModel, temperature: float) -> Callable[..., tuple[jax.Array, Any]]:
    """Returns `(code (1,), state, key) -> (next code (1,), next state)`, compiled."""
    graph, params = nnx.split(model)

    def step(params: Any, code: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        logits, state = nnx.merge(graph, params).step(code, state)
        likeliest = jnp.argmax(logits, axis=-1)
        drawn = jax.random.categorical(key, logits / temperature) if temperature > 0 else likeliest
        return drawn, state

    compiled = jax.jit(step)
    return lambda code, state, key: compiled(params, code, state, key)


if __name__ == "__main__":
    command_line.run(main)
