"""The configs that there are: listed with what their docstrings say first, named, loaded."""

import ast
import importlib.util
import pathlib
from types import ModuleType

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
NOT_EXPERIMENTS = ("__init__", "saved")


def catalogue(folder: pathlib.Path = CONFIGS) -> str:
    """Returns a line for each config file: its path and the first line of its docstring. No file is run."""
    paths = [path for path in sorted(folder.glob("*.py")) if path.stem not in NOT_EXPERIMENTS]
    width = max((len(path.name) for path in paths), default=0)
    return "\n".join(f"{folder.name}/{path.name:<{width}}  {first_line(path)}" for path in paths)


def first_line(path: pathlib.Path) -> str:
    """Returns the first line of a Python file's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def load(name: str) -> ModuleType:
    """Imports configs/<name>.py, by its path."""
    spec = importlib.util.spec_from_file_location(f"configs_{name}", CONFIGS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_variant(config: str, root: pathlib.Path = CONFIGS.parent) -> str:
    """Returns a config as flags name it, `configs/x.py:variant`, with the variant that is meant where none is named."""
    path = root / config
    if ":" in config or path.suffix != ".py" or not path.exists():
        return config
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == "get_config" and node.args.defaults:
            return f"{config}:{ast.literal_eval(node.args.defaults[0])}"
    return config
