"""Compiles a layer for an accelerator that is not there, and says what the compiled programs do.

JAX_PLATFORMS=cpu python -m experiments.benchmarks.ahead_of_time --platform=tpu      # pip install gru_jax[aot]
JAX_PLATFORMS=cpu python -m experiments.benchmarks.ahead_of_time --platform=cuda     # where JAX's CUDA plugin is

For a TPU v5e or an H100: forward and forward+backward, both backends, both resets, both precisions. Nothing runs.

What a compiled program does, read from its text: loops, matrix products, transpositions, kernels a step.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies

import gru_jax
from experiments.benchmarks.problem import BenchmarkError, Precision, Sizes, Work, mean_square
from experiments.runner import cli

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


# Before libtpu starts: no TPU is looked for, and another process may use it at the same time.
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_WORKER_ID", "0")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


SIZES = Sizes(64, 128, 256, 512)

H100 = """
gpu_device_info { threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536 }
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

PACKAGES = {"tpu": ("libtpu",), "cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin")}
BACKENDS = {"tpu": "tpu", "cuda": "gpu"}
"""What `jax.default_backend()` is on a machine that has the accelerator."""

PLATFORM = flags.DEFINE_enum("platform", "tpu", list(PACKAGES), "What to compile for.")


class Layer(NamedTuple):
    """What is compiled: `gru_jax.unroll` of a GRU, time-major.

    Attributes:
      backend, memory, block_length: see `gru_jax.unroll`.
      reset: where the reset gate acts.
      precision: of the matrix products.
      work: the outputs, or the gradients of their mean square in all parameters and inputs.
    """

    backend: str
    reset: str
    precision: Precision
    work: Work
    memory: str = "auto"
    block_length: int | None = None

    def __str__(self) -> str:
        return f"{self.backend:5}  reset={self.reset:6}  {self.precision:8}  {self.work:8}"


class Compiled(NamedTuple):
    """A compiled program.

    Attributes:
      module: what it does.
      temp_bytes: its temporary memory.
    """

    module: Module
    temp_bytes: int

    def kernels_a_step(self) -> list[int]:
        """Of each loop over steps."""
        return [kernels(self.module, body) for body in step_loops(self.module)]


def find_device(platform: str) -> Any:
    """Returns a device of the platform's topology, to compile for.

    Raises:
      BenchmarkError: its compiler is not installed.
    """
    if not any(importlib.util.find_spec(package) for package in PACKAGES[platform]):
        extra = "pip install gru_jax[aot]" if platform == "tpu" else "pip install 'jax[cuda12]'"
        raise BenchmarkError(
            f"--platform: expected the compiler for {platform!r} ({' or '.join(PACKAGES[platform])}) to be installed "
            f"({extra}), it is not"
        )
    if platform == "tpu":
        return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices[0]


def compile_layer(layer: Layer, platform: str, device: Any, sizes: Sizes = SIZES) -> Compiled:
    """Compiles a layer for a device that is not there."""
    cell = gru_jax.GRU(reset=layer.reset)
    sharding = jax.sharding.SingleDeviceSharding(device)

    def forward(params, xs):
        return gru_jax.unroll(
            cell,
            params,
            xs,
            time_major=True,
            backend=layer.backend,
            matmul_dtype=jnp.bfloat16 if layer.precision == "bfloat16" else None,
            memory=layer.memory,
            block_length=layer.block_length,
        )[0]

    def loss(params, xs):
        return mean_square(forward(params, xs))

    function = forward if layer.work == "forward" else jax.grad(loss, argnums=(0, 1))
    params = jax.eval_shape(lambda key: cell.init(key, sizes.I, sizes.H), jax.random.key(0))
    xs = jax.ShapeDtypeStruct((sizes.T, sizes.B, sizes.I), jnp.float32)
    described = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding), (params, xs))
    # The library asks JAX what it runs on, which is a CPU here, to choose the length of a block.
    with mock.patch.object(jax, "default_backend", return_value=BACKENDS[platform]):
        executable = jax.jit(function).lower(*described).compile()
    text, memory = executable.as_text(), executable.memory_analysis()
    if text is None or memory is None:
        raise BenchmarkError(f"--platform: expected a compiler that tells of its programs, {platform} does not")
    return Compiled(parse(text), memory.temp_size_in_bytes)


def layers() -> Iterator[Layer]:
    """Every backend, reset, precision and kind of work."""
    for backend in ("scan", "fused"):
        for reset in ("after", "before"):
            for precision in ("float32", "bfloat16"):
                for work in ("forward", "gradient"):
                    yield Layer(backend, reset, precision, work)


def main(arguments: Sequence[str]) -> int:
    """Compiles all and prints a line on each."""
    del arguments
    device = find_device(PLATFORM.value)
    print(f"{device.device_kind}: B, T, I, H = {SIZES}")
    for layer in layers():
        compiled = compile_layer(layer, PLATFORM.value, device)
        kernels = ", ".join(map(str, compiled.kernels_a_step()))
        print(f"{layer}  kernels a step {kernels:5}  temporary MB {compiled.temp_bytes / 1e6:.1f}", flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
