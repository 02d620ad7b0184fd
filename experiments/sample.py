"""Lets a trained model go on: text from a character model, music from a music model.

python -m experiments.sample --workdir=runs/char_lm --prompt="ROMEO:" --temperature=0.8
python -m experiments.sample --workdir=runs/jsb --length=64
"""

import math
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import nnx

from experiments import files
from experiments.runner import cli, run
from experiments.schema import UserError
from experiments.tasks.music import compose
from experiments.tasks.music.model import Polyphony
from experiments.tasks.music.task import OPENING_STEPS, Music
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.corpus import Vocabulary
from experiments.tasks.text.model import LanguageModel
from experiments.tasks.text.ptb_char import PTBChar

WORKDIR = cli.define_workdir("The run's folder.")
PROMPT = flags.DEFINE_string(
    "prompt",
    None,
    "Of text: what to go on from. Else a line end, in a vocabulary without one a space, without either a character "
    "that --seed draws.",
)
OPENING = flags.DEFINE_integer(
    "opening", 8, "Of music: how many steps of a validation piece to go on from.", 1, OPENING_STEPS
)
LENGTH = flags.DEFINE_integer("length", 500, "How many characters or steps to draw.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float(
    "temperature",
    0.8,
    "What logits are divided by: 1 for the model's own probabilities, 0 for the likeliest.",
    lower_bound=0,
)
flags.register_validator(TEMPERATURE, math.isfinite, "expected a finite number")
SEED = flags.DEFINE_integer(
    "seed", 0, "Another seed draws another text, and begins with another piece.", lower_bound=0, upper_bound=2**32 - 1
)
DATA_DIR = cli.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Loads the run; streams text to standard output, or writes music into the run's folder."""
    del arguments
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (CharLM, PTBChar, Music))
    key = jax.random.key(SEED.value)
    if isinstance(task, Music):
        for path in write_music(task, model, pathlib.Path(WORKDIR.value), key):
            print(f"wrote {path}")
        return
    prompt = default_prompt(task.vocabulary, SEED.value) if PROMPT.value is None else cli.given(PROMPT.value)
    for character in generate(model, task.vocabulary, prompt, LENGTH.value, TEMPERATURE.value, key):
        print(character, end="", flush=True)
    print()


def default_prompt(vocabulary: Vocabulary, seed: int) -> str:
    """Returns what a text may begin after: a line end, else a space, else the character that the seed draws."""
    for character in "\n ":
        if character in vocabulary.symbols:
            return character
    return vocabulary.symbols[seed % len(vocabulary)]


def write_music(task: Music, model: Polyphony, folder: pathlib.Path, key: jax.Array) -> list[pathlib.Path]:
    """Composes as the flags say; returns the MIDI file and the picture."""
    opening = task.opening(SEED.value, OPENING.value)
    roll = compose.compose(model, opening, LENGTH.value, TEMPERATURE.value, key)
    paths = [folder / f"sample_{SEED.value}{ending}" for ending in (".mid", ".png")]
    files.write_bytes(paths[0], compose.midi(roll, task.beats_per_step))
    files.write_bytes(paths[1], compose.picture(roll, len(opening)))
    return paths


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
        raise UserError("--prompt: expected at least one character, got none")
    try:
        codes = vocabulary.encode(prompt)
    except ValueError as error:
        raise UserError(f"--prompt: {error}") from None
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
        noise = temperature * jax.random.gumbel(key, logits.shape, logits.dtype)
        return jnp.argmax(logits + noise, axis=-1), state

    compiled = jax.jit(step)
    return lambda code, state, key: compiled(params, code, state, key)


if __name__ == "__main__":
    cli.run(main)
