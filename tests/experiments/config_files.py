"""The names of the config files."""

from experiments.runner.config import CONFIGS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
GENERATED = {"adding", "copying", "digits", "event_xor"}
"""Configs with generated or bundled data."""
