"""Compiles a layer for an accelerator that this machine does not have, and prints what the programs do.

JAX_PLATFORMS=cpu python -m experiments.benchmarks.ahead_of_time --platform=tpu      # pip install 'gru_jax[aot]'
JAX_PLATFORMS=cpu python -m experiments.benchmarks.ahead_of_time --platform=cuda     # needs JAX's CUDA plugin

The targets are a TPU v5e and an H100. Forward and forward+backward are compiled with all backends, both resets and
both precisions. Nothing runs: the number of loops, matrix products, transpositions and kernels per step is read from
the text of the compiled programs.
"""

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies

import gru_jax
from experiments.benchmarks.settings import Precision, Sizes, Work, mean_square
from experiments.runner import cli
from experiments.schema import UserError

# libtpu reads these when it is loaded: it must not look for a TPU or lock one for this process.
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

PLATFORM = flags.DEFINE_enum("platform", "tpu", list(PACKAGES), "The accelerator to compile for.")


# Reading compiled programs.

KERNELS = ("fusion", "dot", "convolution", "custom-call", "copy", "reduce", "sort", "scatter", "transpose")
"""Instructions that are launched as kernels; the others compute addresses and loop counters."""

_SHAPE = re.compile(r"^\(?(\w+)\[([\d,]*)\](?:\{([\d,]*))?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\((.*)$")
_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"(?:calls|body|to_apply|condition)=%?([\w.\-]+)")


class Instruction(NamedTuple):
    """An instruction of a compiled program.

    Attributes:
      name: unique within the program.
      opcode: "fusion", "dot", ...
      dtype, shape: of its first result.
      layout: the order of the axes in memory, the fastest first; empty if the text does not contain it.
      operands: the names of the operands.
      called: the names of the computations that it calls.
      body: the name of the loop's body, for a "while".
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
"""A program: the instructions of each computation, by name."""


def parse(text: str) -> Module:
    """Parses the text of a compiled program, `compiled.as_text()`."""
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
    """Removes layouts, since their letters and parentheses look like opcodes."""
    return re.sub(r"\]\{[^}]*\}", "]", text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def reached(module: Module, computation: str) -> Iterator[Instruction]:
    """Yields the instructions of a computation and of all computations that it calls."""
    for instruction in module.get(computation, ()):
        yield instruction
        for called in instruction.called:
            yield from reached(module, called)


def step_loops(module: Module) -> list[str]:
    """Returns the names of the bodies of the innermost loops, which are the loops over time steps."""
    bodies = {i.body for instructions in module.values() for i in instructions if i.body is not None}
    return sorted(body for body in bodies if not any(i.body is not None for i in reached(module, body)))


def products(module: Module, computation: str) -> list[Instruction]:
    """Returns the matrix products in a computation, including fused ones."""
    return [i for i in reached(module, computation) if i.opcode in ("dot", "convolution")]


def kernels(module: Module, computation: str) -> int:
    """Returns the number of kernels that one run of a computation launches."""
    return sum(instruction.opcode in KERNELS for instruction in module[computation])


def transpositions(module: Module, min_size: int) -> list[Instruction]:
    """Returns the instructions that change the order of axes in memory, of arrays with at least `min_size` numbers."""
    found = []
    for instructions in module.values():
        layouts = {i.name: (i.shape, i.layout) for i in instructions}
        for i in instructions:
            size = 1
            for axis in i.shape:
                size *= axis
            if size < min_size or i.opcode not in ("transpose", "copy") or not i.operands:
                continue
            shape, layout = layouts.get(i.operands[0], ((), ()))
            if layout and _order(i.shape, i.layout) != _order(shape, layout):
                found.append(i)
    return found


_PALLAS_CALL = re.compile(
    r'custom_call_target="tpu_custom_call".*"used_scoped_memory_configs":\[\{"memory_space":"1",.*?"size":"(\d+)"'
)


def pallas_kernels(text: str) -> list[int]:
    """Returns the bytes of VMEM that each Pallas kernel of a program for a TPU uses."""
    return [int(match.group(1)) for match in map(_PALLAS_CALL.search, text.splitlines()) if match]


def _order(shape: tuple[int, ...], layout: tuple[int, ...]) -> list[int]:
    """Returns the sizes of the axes in their order in memory, without axes of size 1."""
    return [shape[axis] for axis in layout if shape[axis] > 1]


# Compiling.


class Layer(NamedTuple):
    """A time-major GRU layer to compile.

    Attributes:
      backend, memory, block_length: see `gru_jax.unroll`.
      reset: whether the reset gate acts before or after the recurrent product.
      precision: of the matrix products' operands.
      work: the outputs, or the gradients of `mean(ys**2)` in all parameters and inputs.
    """

    backend: str
    reset: str
    precision: Precision
    work: Work
    memory: str = "auto"
    block_length: int | None = None

    def __str__(self) -> str:
        return f"{self.backend:6}  reset={self.reset:6}  {self.precision:8}  {self.work:8}"


class Compiled(NamedTuple):
    """A compiled program.

    Attributes:
      module: its instructions.
      temp_bytes: its temporary memory.
      pallas_kernels: the bytes of VMEM that each of its Pallas kernels uses.
    """

    module: Module
    temp_bytes: int
    pallas_kernels: list[int]

    def kernels_per_step(self) -> list[int]:
        """Returns the number of kernels per step of each loop over time."""
        return [kernels(self.module, body) for body in step_loops(self.module)]


def find_device(platform: str) -> Any:
    """Returns a device description of the platform, for which programs can be compiled.

    Raises:
      UserError: if the compiler is not installed.
    """
    if not any(importlib.util.find_spec(package) for package in PACKAGES[platform]):
        extra = "pip install gru_jax[aot]" if platform == "tpu" else "pip install 'jax[cuda12]'"
        raise UserError(
            f"--platform: expected an installed compiler, {' or '.join(PACKAGES[platform])}, got none; {extra}"
        )
    if platform == "tpu":
        return topologies.get_topology_desc("v5e:2x2", platform="tpu").devices[0]
    return topologies.get_topology_desc(platform="cuda", target_config=H100, topology="1x1x1").devices[0]


def compile_layer(layer: Layer, platform: str, device: Any, sizes: Sizes = SIZES) -> Compiled:
    """Compiles a layer for a device description from `find_device`."""
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
    with jax.default_device(device):  # The library chooses block lengths for this device.
        executable = jax.jit(function).lower(*described).compile()
    text, memory = executable.as_text(), executable.memory_analysis()
    if text is None or memory is None:
        raise UserError(f"--platform: expected a compiler that returns the text of programs, got {platform}")
    return Compiled(parse(text), memory.temp_size_in_bytes, pallas_kernels(text))


def layers(*backends: str) -> Iterator[Layer]:
    """Yields layers with each of the backends, and every reset, precision and kind of work."""
    for backend in backends:
        for reset in ("after", "before"):
            for precision in ("float32", "bfloat16"):
                for work in ("forward", "gradient"):
                    yield Layer(backend, reset, precision, work)


def main(arguments: Sequence[str]) -> int:
    """Compiles all layers and prints a line for each."""
    del arguments
    device = find_device(PLATFORM.value)
    print(f"{device.device_kind}: B, T, I, H = {SIZES}")
    backends = ("scan", "fused", "pallas") if PLATFORM.value == "tpu" else ("scan", "fused")
    for layer in layers(*backends):
        compiled = compile_layer(layer, PLATFORM.value, device)
        kernels = ", ".join(map(str, compiled.kernels_per_step()))
        if compiled.pallas_kernels:
            kernels = f"{len(compiled.pallas_kernels)} for all steps"
        print(f"{layer}  kernels per step {kernels:15}  temporary MB {compiled.temp_bytes / 1e6:.1f}", flush=True)
    return 0


if __name__ == "__main__":
    cli.run(main)
