"""Every task by name. A new one is one file with the face of `base.Task`, and one entry here."""

from typing import Any

from experiments.schema import ConfigError, nearest
from experiments.tasks import adding, char_lm, digits, forecasting, multi30k
from experiments.tasks.base import Task

TASKS: dict[str, type[Task]] = {
    "adding": adding.Adding,
    "char_lm": char_lm.CharLM,
    "digits": digits.Digits,
    "forecasting": forecasting.Forecasting,
    "multi30k": multi30k.Multi30k,
}


def find(name: Any) -> type[Task]:
    """Returns the task of that name, or raises a `ConfigError` that lists the known ones."""
    if not isinstance(name, str) or name not in TASKS:
        near = nearest(name, TASKS) if isinstance(name, str) else ""
        raise ConfigError(f"task.name: expected one of {', '.join(map(repr, TASKS))}{near}, got {name!r}")
    return TASKS[name]
