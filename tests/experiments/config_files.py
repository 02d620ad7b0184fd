"""The names of the config files."""

from experiments.runner.config import CONFIGS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
GENERATED = {"adding", "cells", "copying", "digits", "event_xor"}
"""Configs whose smoke variants have generated or bundled data."""
