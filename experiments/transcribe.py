"""Transcribes audio files.

python -m experiments.transcribe --workdir=runs/fsdd mine.wav            a digit, from a WAV file
python -m experiments.transcribe --workdir=runs/fsdd --chunk_ms=100 7_jackson_3
python -m experiments.transcribe --workdir=runs/an4 mine.wav             a text, from a WAV file
python -m experiments.transcribe --workdir=runs/an4 mine.mfc             or from a Sphinx feature file

An argument that is not a file is the name of a recording of the run's data set, and its true text is printed too. AN4
is distributed as mel-cepstra. For WAV files, preferably at 16 kHz or more, an AN4 run computes the same features.
"""

from collections.abc import Sequence

from absl import flags

from experiments.runner import cli, run
from experiments.schema import UserError
from experiments.tasks.speech.an4 import An4
from experiments.tasks.speech.fsdd import Fsdd
from experiments.tasks.speech.transcribe import digit_lines, text_lines

WORKDIR = cli.define_workdir("The run folder or an exported model, of task 'an4' or 'fsdd'.")
CHUNK_MS = flags.DEFINE_integer(
    "chunk_ms", 0, "Of digits: chunk length in milliseconds, with a result after each; 0 for one chunk.", lower_bound=0
)
ALTERNATIVES = flags.DEFINE_integer("alternatives", 1, "Number of results, most likely first.", lower_bound=1)
DATA_DIR = cli.define_data_dir()


def main(arguments: Sequence[str]) -> None:
    """Loads the run and prints the results of each file."""
    names = arguments[1:]
    if not names or not all(names):
        got = "an empty name" if names else "none"
        raise UserError(f"expected at least one audio file, or the name of a recording of the data set, got {got}")
    task, model = run.load_trained(WORKDIR.value, DATA_DIR.value, (An4, Fsdd))
    if CHUNK_MS.value and isinstance(task, An4):
        raise UserError(
            "--chunk_ms: expected a model of digits, got one of texts, which hears the whole recording first"
        )
    for name in names:
        if isinstance(task, An4):
            lines = text_lines(task, model, name, ALTERNATIVES.value)
        else:
            lines = digit_lines(model, name, DATA_DIR.value, ALTERNATIVES.value, CHUNK_MS.value)
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    cli.run(main, takes_words=True)
