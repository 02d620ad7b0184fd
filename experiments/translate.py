"""Translates sentences with a trained model, and draws its attention.

python -m experiments.translate --workdir=runs/multi30k "Zwei Männer stehen am Herd und bereiten Essen zu."
"""

import io
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from experiments import files
from experiments.figures import heat_map
from experiments.runner import cli, run
from experiments.schema import UserError
from experiments.tasks.text.corpus import decode
from experiments.tasks.translation.multi30k import Multi30k

WORKDIR = cli.define_workdir("The run folder, or an exported model.")
BEAM_WIDTH = flags.DEFINE_integer(
    "beam_width", None, "Hypotheses of the beam search; by default the run's own.", lower_bound=1
)
HEAT_MAPS = flags.DEFINE_string("heat_maps", None, "Folder for pictures of the attention: 1.png, 2.png, ...")


def main(arguments: Sequence[str]) -> None:
    """Prints the translation of each argument or, if there are none, of each line of standard input."""
    task, model = run.load_trained(WORKDIR.value, None, (Multi30k,))
    if HEAT_MAPS.value and model.attention is None:
        raise UserError("--heat_maps: expected a run with attention, got one without")
    words = [cli.given(word) for word in arguments[1:]]
    if not words and sys.stdin is None:
        raise UserError("expected sentences as arguments or on standard input, which is closed")
    lines = words or input_lines(sys.stdin.buffer.read())
    translations = task.translate(model, lines, BEAM_WIDTH.value or task.config.beam_width) if lines else []
    for number, translation in enumerate(translations, 1):
        print(translation.text)
        if HEAT_MAPS.value:
            path = pathlib.Path(HEAT_MAPS.value) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, heat_map(*task.alignment(model, translation)))


def input_lines(data: bytes) -> list[str]:
    """Returns the lines of standard input, decoded as UTF-8 in every locale."""
    return [line.rstrip("\n") for line in io.StringIO(decode(data, "standard input"), newline=None)]


if __name__ == "__main__":
    cli.run(main, takes_words=True)
