"""Every task by name. A new one is one file with the face of `base.Task`, and one entry here."""

from typing import Any

from experiments.schema import ConfigError, nearest
from experiments.tasks import (
    adding,
    an4,
    char_lm,
    copying,
    digits,
    forecasting,
    fsdd,
    japanese_vowels,
    mnist,
    multi30k,
    music,
    ptb_char,
)
from experiments.tasks.base import Task

TASKS: dict[str, type[Task]] = {
    "adding": adding.Adding,
    "an4": an4.An4,
    "char_lm": char_lm.CharLM,
    "copying": copying.Copying,
    "digits": digits.Digits,
    "forecasting": forecasting.Forecasting,
    "fsdd": fsdd.Fsdd,
    "japanese_vowels": japanese_vowels.JapaneseVowels,
    "mnist": mnist.MNIST,
    "multi30k": multi30k.Multi30k,
    "music": music.Music,
    "ptb_char": ptb_char.PTBChar,
}


def find(name: Any) -> type[Task]:
    """Returns the task of that name, or raises a `ConfigError` that lists the known ones."""
    if not isinstance(name, str) or name not in TASKS:
        near = nearest(name, TASKS) if isinstance(name, str) else ""
        raise ConfigError(f"task.name: expected one of {', '.join(map(repr, TASKS))}{near}, got {name!r}")
    return TASKS[name]
