"""Packages that only some tasks need. Each belongs to an extra of pyproject.toml and is imported where it is used."""

import importlib.util

EXTRAS = {
    "music": ("mido", "scipy"),
    "speech": ("jiwer", "scipy"),
    "tensorboard": ("tensorboardX",),
    "translation": ("sacrebleu", "sentencepiece"),
}


class MissingExtraError(ImportError):
    """A package of an extra is not installed. The message is one line with the command that installs it."""


def require(extra: str) -> None:
    """Checks that the packages of an extra are installed. Called before any work, not at the first import.

    Args:
      extra: a key of `EXTRAS`.

    Raises:
      MissingExtraError: one of them is missing.
    """
    for package in EXTRAS[extra]:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(f"{extra} needs {package}: pip install 'gru_jax[{extra}]'", name=package)
