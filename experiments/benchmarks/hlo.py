"""What a compiled program does, read from its text: loops, matrix products, transpositions, kernels a step."""

import re
from collections.abc import Iterator
from typing import NamedTuple

KERNELS = ("fusion", "dot", "convolution", "custom-call", "copy", "reduce", "sort", "scatter", "transpose")
"""Instructions of which each is launched for itself; what is left is arithmetic on addresses and loop counters."""

_SHAPE = re.compile(r"^\(?(\w+)\[([\d,]*)\](?:\{([\d,]*))?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\((.*)$")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|body|to_apply|condition)=%?([\w.\-]+)")


class Instruction(NamedTuple):
    """One line of a program.

    Attributes:
      name: unique within the program.
      opcode: "fusion", "dot", ...
      dtype, shape: of its result; of the first one where there are several.
      layout: the order of the axes in memory, the fastest first; empty where the text does not tell.
      operands: names.
      called: the computations that it runs.
      body: the loop's body, for a "while".
    """

    name: str
    opcode: str
    dtype: str
    shape: tuple[int, ...]
    layout: tuple[int, ...]
    operands: tuple[str, ...]
    called: tuple[str, ...]
    body: str | None


Module = dict[str, list[Instruction]]
"""A program: its computations by name."""


def parse(text: str) -> Module:
    """Reads the text of a compiled program, `compiled.as_text()`."""
    module: Module = {}
    current: list[Instruction] | None = None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = module.setdefault(header.group(1), [])
        elif line.startswith("}"):
            current = None
        elif current is not None:
            instruction = _instruction(line)
            if instruction is not None:
                current.append(instruction)
    return module


def _instruction(line: str) -> Instruction | None:
    match = _INSTRUCTION.match(line)
    if match is None:
        return None
    name, rest = match.groups()
    shape, opcode = _SHAPE.match(rest), _OPCODE.search(" " + _without_layouts(rest))
    if shape is None or opcode is None:
        return None
    operands = re.findall(r"%([\w.\-]+)", opcode.group(2).split("), ")[0])
    body = re.search(r"body=%?([\w.\-]+)", rest) if opcode.group(1) == "while" else None
    return Instruction(
        name,
        opcode.group(1),
        shape.group(1),
        _numbers(shape.group(2)),
        _numbers(shape.group(3) or ""),
        tuple(operands),
        tuple(_CALLED.findall(rest)),
        None if body is None else body.group(1),
    )


def _without_layouts(text: str) -> str:
    """Layouts have letters and parentheses that look like opcodes."""
    return re.sub(r"\]\{[^}]*\}", "]", text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def reached(module: Module, computation: str) -> Iterator[Instruction]:
    """All instructions of a computation and of those that it calls."""
    for instruction in module.get(computation, ()):
        yield instruction
        for called in instruction.called:
            yield from reached(module, called)


def step_loops(module: Module) -> list[str]:
    """The bodies of the loops in which there is no other: those over steps."""
    bodies = {i.body for instructions in module.values() for i in instructions if i.body is not None}
    return sorted(body for body in bodies if not any(i.body is not None for i in reached(module, body)))


def products(module: Module, computation: str) -> list[Instruction]:
    """The matrix products in a computation, fused ones too."""
    return [i for i in reached(module, computation) if i.opcode in ("dot", "convolution")]


def kernels(module: Module, computation: str) -> int:
    """How many kernels one run of a computation launches."""
    return sum(instruction.opcode in KERNELS for instruction in module[computation])


def transpositions(module: Module, least: int) -> list[Instruction]:
    """Where arrays of at least so many numbers change the order of their axes in memory."""
    found = []
    for instructions in module.values():
        layouts = {i.name: (i.shape, i.layout) for i in instructions}
        for i in instructions:
            size = 1
            for axis in i.shape:
                size *= axis
            if size < least or i.opcode not in ("transpose", "copy") or not i.operands:
                continue
            shape, layout = layouts.get(i.operands[0], ((), ()))
            if layout and _order(i.shape, i.layout) != _order(shape, layout):
                found.append(i)
    return found


def _order(shape: tuple[int, ...], layout: tuple[int, ...]) -> list[int]:
    """The sizes of the axes in the order in which they lie in memory, axes of size 1 left out."""
    return [shape[axis] for axis in layout if shape[axis] > 1]
