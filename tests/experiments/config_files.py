"""The config files that there are, and what the tests of several of them need."""

from experiments.runner.config import CONFIGS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
GENERATED = {"adding", "copying", "digits"}
"""Those whose data need not be looked for."""
