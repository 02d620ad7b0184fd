"""The names of the config files."""

from experiments.runner.config import CONFIGS

NAMES = sorted(path.stem for path in CONFIGS.glob("*.py"))
OF_TASKS = [name for name in NAMES if name != "cells"]
"""Configs of one task, which has the same name; `cells` is of several."""
GENERATED = {"adding", "cells", "copying", "digits", "event_xor"}
"""Configs whose smoke variants have generated or bundled data."""
