"""The config files that there are, as modules, and what the tests of several of them need."""

import importlib.util
import pathlib
from types import ModuleType

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.py") if path.stem not in ("saved", "__init__"))
GENERATED = {"adding", "copying", "digits"}
"""Those whose data need not be looked for."""


def load(name: str) -> ModuleType:
    """Imports configs/<name>.py."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
