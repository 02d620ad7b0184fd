"""The suite "streaming_step": the latency of one step at batch size 1, and of a step if a call runs several."""

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import gru_jax
from experiments.benchmarks.harness import Candidate, Measurement, Outcome, Program, measure
from experiments.benchmarks.libraries import OURS
from experiments.benchmarks.settings import Problem, Settings, Sizes, make_problem
from experiments.runner.devices import available_cores
from experiments.schema import UserError

SHAPES = tuple(Sizes(1, 1, H, H) for H in (128, 256, 512, 1024))
BURST = 100
"""The number of consecutive steps of one library, so that its code and weights are in the caches."""
PACKET = 20
"""The number of steps of a call in the programs that run several, e.g. 200 ms of speech in frames of 10 ms."""

Step = Callable[[Any], Any]
"""Maps a state to the state after one step or a packet and waits for the result; the input is fixed."""


def run(settings: Settings) -> list[Measurement]:
    """Measures every width with reset="after"; each step waits for its result, as a streaming program does."""
    if jax.default_backend() != "cpu":
        raise UserError(f"--suite=streaming_step: expected a CPU, got {jax.default_backend()}")
    rows = []
    for sizes in settings.shapes or SHAPES:
        settings.say(f"streaming_step {sizes}: reset=after")
        problem = make_problem(sizes, "after", "step")
        programs = [ours(problem), ours_in_packets(problem)]
        programs += [program for name, make in PEERS.items() if name in settings.peers for program in make(problem)]
        expected = reference(problem)
        found = [Candidate(program, expected, loss="none") for program in programs]
        rows += measure(sizes, "step", "after", found, settings.seconds, settings.min_rounds)
    return rows


def reference(problem: Problem) -> Outcome:
    """Returns the state after a burst, computed by the plain scan."""
    xs = jnp.broadcast_to(jnp.asarray(problem.xs), (BURST, problem.sizes.B, problem.sizes.I))
    h = gru_jax.unroll(problem.cell, problem.params, xs, time_major=True, backend="scan")[1]
    return {"h": np.asarray(h)}


def ours(problem: Problem) -> Program:
    """`gru_jax.gru_step` under `jit`."""

    def step(params, h, x):
        return gru_jax.gru_step(params, h, x, reset=problem.reset)

    return jax_step(problem, OURS, step, problem.params)


def ours_in_packets(problem: Problem) -> Program:
    """`gru_jax.unroll` under `jit`, on packets of steps."""

    def run(params, h, x):
        xs = jnp.broadcast_to(x, (PACKET, *x.shape))
        return gru_jax.unroll(problem.cell, params, xs, h, time_major=True)[1]

    return jax_step(problem, f"{OURS}, {PACKET} steps a call", run, problem.params, PACKET)


def equinox_step(problem: Problem) -> list[Program]:
    """`equinox.nn.GRUCell` under `jit`, mapped over the batch."""
    weights = importlib.import_module("gru_jax.interop.equinox").to_cell(problem.cell, problem.params)
    return [jax_step(problem, "equinox", lambda weights, h, x: jax.vmap(weights)(x, h), weights)]


def jax_step(problem: Problem, library: str, function: Callable[..., Any], weights: Any, steps: int = 1) -> Program:
    """Makes a program from a JAX function `function(weights, h, x)` that returns the state after some steps."""
    x, h0 = jnp.asarray(problem.xs[0]), jnp.zeros((problem.sizes.B, problem.sizes.H))
    compiled = jax.jit(function)
    memory = compiled.lower(weights, h0, x).compile().memory_analysis()
    temp_bytes = None if memory is None else memory.temp_size_in_bytes
    return step_program(library, h0, lambda h: compiled(weights, h, x).block_until_ready(), steps, temp_bytes)


def torch_step(problem: Problem) -> list[Program]:
    """`torch.nn.GRUCell`."""
    torch = importlib.import_module("torch")
    interop = importlib.import_module("gru_jax.interop.torch")
    torch.set_num_threads(available_cores())
    cell = torch.nn.GRUCell(problem.sizes.I, problem.sizes.H)
    arrays = interop.to_state_dict(problem.cell, problem.params)
    cell.load_state_dict({name.removesuffix("_l0"): torch.tensor(array) for name, array in arrays.items()})
    x, h0 = torch.tensor(problem.xs[0]), torch.zeros(problem.sizes.B, problem.sizes.H)

    def step(h):
        with torch.inference_mode():
            return cell(x, h)

    return [step_program("torch", h0, step)]


def onnxruntime_step(problem: Problem) -> list[Program]:
    """The operator GRU of ONNX in onnxruntime, on a sequence of one step and on packets of steps."""
    runtime = importlib.import_module("onnxruntime")
    interop = importlib.import_module("gru_jax.interop.onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    model = interop.to_model(problem.cell, problem.params, h0=True, time_major=True).SerializeToString()
    session = runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    h0 = np.zeros((1, problem.sizes.B, problem.sizes.H), np.float32)

    def run(h, xs):
        return session.run(["h_last"], {"xs": xs, "h0": h})[0]

    packet = np.repeat(problem.xs, PACKET, axis=0)
    return [
        step_program("onnxruntime", h0, lambda h: run(h, problem.xs)),
        step_program(f"onnxruntime, {PACKET} steps a call", h0, lambda h: run(h, packet), PACKET),
    ]


def step_program(library: str, h0: Any, step: Step, steps: int = 1, temp_bytes: int | None = None) -> Program:
    """Makes a program that performs a burst of steps from the state h0 (B, H), some of them in each call."""

    def burst():
        h = h0
        for _ in range(BURST // steps):
            h = step(h)
        return h

    def outcome():
        h = np.asarray(burst())
        return {"h": h.reshape(h.shape[-2:])}

    return Program(library, "float32", burst, outcome, temp_bytes=temp_bytes, calls=BURST)


PEERS: dict[str, Callable[[Problem], list[Program]]] = {
    "torch": torch_step,
    "equinox": equinox_step,
    "onnxruntime": onnxruntime_step,
}
