"""Prepares the library for mkdocstrings: its docstrings, and the classes that are made when a module is imported."""

import importlib
import inspect
import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:(?: (.*))?\n", re.MULTILINE)
RETURNS = re.compile(r"^(Returns|Yields):\n((?:  .*\n?|\n)+)", re.MULTILINE)
NAMED = re.compile(r"  \w+: ")
INDEXED = re.compile(r"(?<![`\w])(\w+(?:\[\w+\]){2,})")


class Library(griffe.Extension):
    """Completes what griffe reads from the sources."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrites the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Adds the public classes that a module makes on import, such as the layers of every cell in `gru_jax.nnx`."""
        for module in pkg.modules.values():
            if module.name.startswith("_"):
                continue
            runtime = importlib.import_module(module.path)
            exported = runtime.__all__
            for name in exported:
                if name not in module.members:
                    module.set_member(name, described(name, getattr(runtime, name)))
            module.exports = list(exported)


def described(name: str, kind: type[Any]) -> griffe.Class:
    """Returns a class with its docstring and its constructor."""
    found = griffe.Class(name, docstring=griffe.Docstring(rewritten(inspect.getdoc(kind) or "")))
    parameters = [
        griffe.Parameter(
            parameter.name,
            kind=griffe.ParameterKind[parameter.kind.name.lower()],
            default=None if parameter.default is parameter.empty else repr(parameter.default),
        )
        for parameter in inspect.signature(kind).parameters.values()
    ]
    found.set_member("__init__", griffe.Function("__init__", parameters=griffe.Parameters(*parameters)))
    return found


def rewritten(docstring: str) -> str:
    """Returns a docstring in the form that Google's style and Markdown have for the same.

    A section `Example:` becomes `Examples:`, which is the name for code with its output. The lines that continue an
    item of `Returns:` are indented, so that only `name: text` starts another. An element `a[i][j]` becomes code, since
    it would be a link.
    """
    text = EXAMPLE.sub(lambda match: f"Examples:\n  {match[1]}\n\n" if match[1] else "Examples:\n", docstring)
    text = RETURNS.sub(lambda match: f"{match[1]}:\n{_items(match[2])}", text)
    lines = text.split("\n")
    return "\n".join(line if ">>>" in line or "`" in line else INDEXED.sub(r"`\1`", line) for line in lines)


def _items(lines: str) -> str:
    first, *rest = lines.split("\n")
    return "\n".join([first, *(line if NAMED.match(line) or not line else f"  {line}" for line in rest)])
