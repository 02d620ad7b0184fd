"""Every task by name. A new one is one file with the face of `base.Task`, and one entry here."""

from typing import Any

from experiments.schema import ConfigError, nearest
from experiments.tasks.base import Task
from experiments.tasks.forecasting.task import Forecasting
from experiments.tasks.images.digits import Digits
from experiments.tasks.images.mnist import MNIST
from experiments.tasks.music.task import Music
from experiments.tasks.speech.an4 import An4
from experiments.tasks.speech.fsdd import Fsdd
from experiments.tasks.speech.japanese_vowels import JapaneseVowels
from experiments.tasks.synthetic.adding import Adding
from experiments.tasks.synthetic.copying import Copying
from experiments.tasks.text.char_lm import CharLM
from experiments.tasks.text.ptb_char import PTBChar
from experiments.tasks.translation.task import Multi30k

TASKS: dict[str, type[Task]] = {
    "adding": Adding,
    "an4": An4,
    "char_lm": CharLM,
    "copying": Copying,
    "digits": Digits,
    "forecasting": Forecasting,
    "fsdd": Fsdd,
    "japanese_vowels": JapaneseVowels,
    "mnist": MNIST,
    "multi30k": Multi30k,
    "music": Music,
    "ptb_char": PTBChar,
}


def find(name: Any) -> type[Task]:
    """Returns the task of that name, or raises a `ConfigError` that lists the known ones."""
    if not isinstance(name, str) or name not in TASKS:
        near = nearest(name, TASKS) if isinstance(name, str) else ""
        raise ConfigError(f"task.name: expected one of {', '.join(map(repr, TASKS))}{near}, got {name!r}")
    return TASKS[name]
