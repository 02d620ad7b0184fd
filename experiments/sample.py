"""Samples a trained model: text from a character language model, music from a music model.

python -m experiments.sample --workdir=runs/char_lm --prompt="ROMEO:" --temperature=0.8
python -m experiments.sample --workdir=runs/jsb --length=64

Text is printed. Music is written to the run folder, as a MIDI file and as a picture; if the model is an exported one,
to the current folder.
"""

import pathlib
from collections.abc import Sequence

import jax
from absl import flags

from experiments.runner import cli, run
from experiments.runner.run_folder import RunFolder
from experiments.schema import UserError
from experiments.tasks.music.compose import write_composition
from experiments.tasks.music.task import OPENING_STEPS, Music
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.generate import default_prompt, generate

HOTTEST = 1e30
"""Higher temperatures would overflow in float32."""

WORKDIR = cli.define_workdir("The run folder, or an exported model.")
PROMPT = flags.DEFINE_string("prompt", None, "Of text: the beginning; by default a line feed or a space.")
OPENING = flags.DEFINE_integer(
    "opening", 8, "Of music: how many steps of a validation piece to continue.", 1, OPENING_STEPS
)
LENGTH = flags.DEFINE_integer("length", 500, "Number of characters or steps to sample.", lower_bound=0)
TEMPERATURE = flags.DEFINE_float(
    "temperature",
    0.8,
    "Divisor of the logits: 1 for the model's own probabilities, 0 for the most likely symbols.",
    lower_bound=0,
)
flags.register_validator(
    TEMPERATURE, lambda value: value <= HOTTEST, f"expected a number of at most {HOTTEST:g}, at which all are alike"
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the sample; of music, it also selects the piece.", lower_bound=0, upper_bound=2**32 - 1
)
DATA_DIR = cli.define_data_dir()
OUTPUT_DIR = cli.define_output_dir()


def main(arguments: Sequence[str]) -> None:
    """Loads the run; streams text to standard output, or writes music to files."""
    del arguments
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (CharLM, Music))
    key, options = jax.random.key(SEED.value), (LENGTH.value, TEMPERATURE.value)
    is_music = isinstance(task, Music)
    for flag, of_music in ((PROMPT, False), (OPENING, True), (OUTPUT_DIR, True)):
        if flag.present and of_music != is_music:
            expected, got = ("music", "text") if of_music else ("text", "music")
            raise UserError(f"--{flag.name}: expected a model of {expected}, got one of {got}")
    if isinstance(task, Music):
        stem = RunFolder(pathlib.Path(WORKDIR.value)).output(f"sample_{SEED.value}", OUTPUT_DIR.value)
        opening = task.opening(SEED.value, OPENING.value)
        for path in write_composition(model, opening, *options, key, task.beats_per_step, stem):
            print(f"wrote {path}")
        return
    prompt = default_prompt(task.vocabulary, SEED.value) if PROMPT.value is None else cli.given(PROMPT.value)
    for character in generate(model, task.vocabulary, prompt, *options, key):
        print(character, end="", flush=True)
    print()


if __name__ == "__main__":
    cli.run(main)
