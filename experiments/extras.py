"""Packages that only some tasks need. Each belongs to an extra of pyproject.toml and is imported where it is used."""

import importlib.util

from experiments.schema import UserError

EXTRAS = {
    "music": ("mido", "scipy"),
    "speech": ("jiwer", "scipy"),
    "tensorboard": ("tensorboardX",),
    "translation": ("sacrebleu", "sentencepiece"),
}


def require(extra: str) -> None:
    """Checks that the packages of an extra are installed. Called before any work, not at the first import.

    Args:
      extra: a key of `EXTRAS`.

    Raises:
      UserError: one of them is missing.
    """
    for package in EXTRAS[extra]:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{extra} needs {package}: pip install 'gru_jax[{extra}]'")
