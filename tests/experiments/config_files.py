"""The config files that there are, and what the tests of several of them need."""

from experiments.runner.config import CONFIGS, NOT_EXPERIMENTS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in NOT_EXPERIMENTS)
GENERATED = {"adding", "copying", "digits"}
"""Those whose data need not be looked for."""
