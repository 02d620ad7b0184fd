"""The structure of the project: which module may import which, and how files are named."""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

# The layers (floors) of the project, lowest first. A module may import from its own floor and from lower ones.
FLOORS = {
    "types and checks": (
        "gru_jax._types",
        "gru_jax._arguments",
        "gru_jax._precision",
        "gru_jax._random",
        "gru_jax._zoneout",
    ),
    "cells": ("gru_jax.cells",),
    "the loop over time": ("gru_jax._unroll",),
    "stacks": ("gru_jax._stack", "gru_jax._flax_conventions"),
    "modules and converters": ("gru_jax.nnx", "gru_jax.linen", "gru_jax.interop", "gru_jax.export"),
    "the library": ("gru_jax",),
    "files and figures": ("experiments.schema", "experiments.files", "experiments.extras", "experiments.figures"),
    "data": ("experiments.data",),
    "tasks": ("experiments.tasks",),
    "runner": ("experiments.runner",),
    "commands, studies, benchmarks, reporting": ("experiments",),
}
# What experiments may import from the library: its public modules.
PUBLIC = ("gru_jax", "gru_jax.nnx", "gru_jax.linen", "gru_jax.interop", "gru_jax.export")
# Where the library may import packages other than JAX and NumPy, at the top of a file or inside a function.
AT_TOP = {"gru_jax.nnx": {"flax"}, "gru_jax.linen": {"flax"}}
IN_FUNCTIONS = {
    "gru_jax.interop": {"equinox", "flax", "haiku", "keras", "onnx", "safetensors", "torch"},
    "gru_jax.export": {"flatbuffers", "safetensors"},
}
NO_CELLS = {f"gru_jax.cells.{module}" for module in ("base", "gates", "initializers", "normalization")}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "misc"}


class Import(NamedTuple):
    """An import of module `what` by module `of`; `lazy` if inside a function, or for a type checker only."""

    of: str
    what: str
    lazy: bool
    where: str


def source_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, known: set[str]) -> Iterator[Import]:
    """Yields the imports of a file; `from package import module` is an import of the module."""

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, lazy, where)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where}: relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield Import(module, name if name in known else str(node.module), lazy, where)
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            lazy = True
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy)

    module = module_name(path)
    yield from visit(ast.parse(path.read_text(encoding="utf-8")), lazy=False)


FILES = source_files("gru_jax", "experiments")
MODULES = {module_name(path) for path in FILES}
IMPORTS = [found for path in FILES for found in imports_of(path, MODULES)]


def within(module: str, packages: str | tuple[str, ...] | set[str]) -> bool:
    packages = (packages,) if isinstance(packages, str) else packages
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def floor_of(module: str) -> int:
    """Returns the floor of a module, or of its nearest parent package."""
    floors = {package: floor for floor, packages in enumerate(FLOORS.values()) for package in packages}
    while module not in floors:
        module = module.rpartition(".")[0]
    return floors[module]


def test_modules_and_imports_are_found():
    assert {"gru_jax", "gru_jax.cells.gru", "gru_jax._unroll.unroll", "experiments.data.fetch"} <= MODULES
    assert len(IMPORTS) > 100


def test_modules_import_from_their_own_floor_or_below():
    inside = [found for found in IMPORTS if within(found.what, ("gru_jax", "experiments"))]
    wrong = {
        f"{found.where}: {found.of} must not import {found.what}"
        for found in inside
        if floor_of(found.what) > floor_of(found.of)
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_every_module_of_the_library_has_a_floor():
    named = {package for packages in FLOORS.values() for package in packages}
    assert {".".join(module.split(".")[:2]) for module in MODULES if within(module, "gru_jax")} <= named


def test_imports_have_no_cycles():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        if found.what in MODULES and found.what != found.of:
            graph[found.of].add(found.what)
    graphlib.TopologicalSorter(graph).prepare()


def test_library_does_not_import_its_top_module():
    wrong = [found for found in IMPORTS if within(found.of, "gru_jax") and found.what == "gru_jax"]
    assert not wrong, wrong


def test_no_backend_names_a_cell():
    of_cells = {module for module in MODULES if within(module, "gru_jax.cells")} - NO_CELLS
    wrong = [found for found in IMPORTS if within(found.of, "gru_jax._unroll") and found.what in of_cells]
    assert not wrong, wrong


def test_library_needs_only_jax_numpy_and_flax():
    wrong = []
    for found in IMPORTS:
        package = found.what.partition(".")[0]
        if not within(found.of, "gru_jax") or package in {"gru_jax", "jax", "numpy"} | sys.stdlib_module_names:
            continue
        tables = (AT_TOP, IN_FUNCTIONS) if found.lazy else (AT_TOP,)
        if not any(package in names for table in tables for at, names in table.items() if within(found.of, at)):
            wrong.append(f"{found.where}: {found.of} must not import {found.what} here")
    assert not wrong, "\n".join(wrong)


def test_experiments_import_public_modules_only():
    wrong = [
        f"{found.where}: {found.what} is not public"
        for found in IMPORTS
        if within(found.of, "experiments")
        and within(found.what, "gru_jax")
        and found.what != "gru_jax"
        and not within(found.what, PUBLIC[1:])
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_named_for_what_they_hold():
    paths = source_files("gru_jax", "experiments", "configs", "tests")
    wrong = [str(path) for path in paths if NAMELESS & {path.stem, *path.relative_to(ROOT).parts}]
    assert not wrong, wrong


def locale_bound(tree: ast.AST) -> Iterator[int]:
    """Yields the lines of calls that read or write text in the encoding of the locale."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        owner = ast.unparse(node.func).rpartition(".")[0]
        modes = [argument.value for argument in node.args[:2] if isinstance(argument, ast.Constant)]
        modes += [keywords["mode"].value] if isinstance(keywords.get("mode"), ast.Constant) else []
        if name == "open" and owner in ("os", "tarfile", "wave"):
            opens = False  # These do not open text.
        elif name in ("open", "fdopen"):
            mode = next((mode for mode in modes if isinstance(mode, str) and set(mode) <= set("rwxabt+")), "r")
            opens = "t" in mode if owner == "gzip" else "b" not in mode
        elif name in ("read_text", "write_text"):
            opens = isinstance(node.func, ast.Attribute)
        elif name in ("run", "Popen", "check_output", "check_call") and owner == "subprocess":
            opens = bool({"text", "universal_newlines"} & set(keywords))
        else:
            opens = name == "TextIOWrapper"
        if opens and "encoding" not in keywords:
            yield node.lineno


def test_text_is_read_and_written_as_utf8():
    program = "open(p)\nopen(p, 'rb')\nopen(p, 'w', encoding='utf-8')\nq.open('w')\nq.read_text()\nos.open(p, 'r')\n"
    program += "subprocess.run(c, text=True)\nsubprocess.run(c)\ngzip.open(p, 'rt')\ngzip.open(p, 'rb')"
    assert list(locale_bound(ast.parse(program))) == [1, 4, 5, 7, 9]
    paths = source_files("gru_jax", "experiments", "configs")
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    assert [f"{path.relative_to(ROOT)}:{line}" for path, tree in trees.items() for line in locale_bound(tree)] == []


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("gru_jax", {"absl", "experiments", "flax", "matplotlib", "optax", "orbax", "safetensors", "tqdm", "torch"}),
        ("experiments.data", {"absl", "flax", "jax", "matplotlib", "optax", "orbax", "torch"}),
    ],
)
def test_importing_loads_no_more_than_needed(module, unwanted):
    program = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.split())
    assert module.partition(".")[0] in loaded
    assert not loaded & unwanted
