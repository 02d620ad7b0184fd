"""Loops over time as kernels of a TPU, compared with plain scans.

Kernels run in JAX's interpreter, which simulates the memories of a TPU. Memory is NaN until it is written, and races
are reported. What a TPU's compiler makes of them is tested in tests/aot.
"""

import inspect
import types
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jax.extend import core as jaxpr_core
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from gru_jax import GRU, LSTM, Elman, unroll
from gru_jax._unroll import kernel
from gru_jax._unroll.tuning import MIB, VMEM, Core
from gru_jax._unroll.unroll import _core
from tests.gru_jax.minimal_gated_unit import Minimal
from tests.gru_jax.problems import Answer, Problem, assert_answers_agree, draw, library_answer

CORE = Core(
    128 * MIB, most_rows=8, most_steps=8, interpret=pltpu.InterpretParams(detect_races=True, uninitialized_memory="nan")
)
PLAIN = replace(CORE, interpret=True)
"""The interpreter of all platforms. Only it supports `vmap` and `jax.checkpoint`."""

T, I, H = 13, 3, 100
"""Two blocks of time, the last one shorter; an odd number of lanes."""


def interpret(monkeypatch, core: Core) -> None:
    """Makes `unroll` run kernels in the interpreter, for a platform that it takes for a TPU."""
    monkeypatch.setattr("gru_jax._unroll.unroll._platform", lambda: "tpu")
    monkeypatch.setattr("gru_jax._unroll.unroll._core", lambda dtype: core)


@pytest.fixture(autouse=True)
def interpreter(monkeypatch, capfd):
    interpret(monkeypatch, CORE)
    yield
    assert "RACE DETECTED" not in capfd.readouterr().out


@dataclass(frozen=True)
class Case:
    """A cell, the options of `unroll`, and those of `draw`."""

    name: str
    memory: str
    reverse: bool = False
    matmul_dtype: Any = None
    block_length: int | None = None
    batch_shape: tuple[int, ...] = (5,)
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.name, self.memory, *self.given))


CASES = [
    Case("gru_before", "save"),
    Case("gru_before", "recompute", True, given={"lengths": True, "resets": "state", "zoneout": "training"}),
    Case("gru_before", "checkpoint", False, jnp.bfloat16, given={"lengths": True, "resets": "state per mark"}),
    Case("gru_after", "save", True, jnp.bfloat16, given={"lengths": True, "mask": True, "resets": True}),
    Case("gru_after", "recompute", given={"resets": "state", "decay": "one", "zoneout": "training"}),
    Case("gru_after", "checkpoint", True, block_length=5, given={"lengths": True}),
    Case("lstm", "save", True, given={"lengths": True, "resets": "state per mark", "decay": True}),
    Case("lstm", "recompute", False, jnp.bfloat16, given={"mask": True, "zoneout": "expectation"}),
    Case("lstm", "save", batch_shape=(11,), given={"lengths": True, "resets": "state"}),
    Case("elman", "checkpoint", True, given={"lengths": True, "resets": True}),
    Case("elman_relu", "save", False, jnp.bfloat16),
    Case("lru", "recompute", given={"lengths": True, "resets": "state per mark"}),
    Case("minimal", "save", True, batch_shape=(1,), given={"lengths": True, "resets": "state", "decay": "one"}),
    Case("block_gru", "recompute", False, jnp.bfloat16),
]


def problem_of(case: Case) -> Problem:
    """Draws a problem with moderate matrices U and C, so that rounding errors do not grow over time and in sums."""
    problem = draw(case.name, case.batch_shape, T, I, H, **case.given)
    moderate = {key: array * (0.1 if key[0] in "UC" else 1) for key, array in problem.arrays.items()}
    return problem._replace(arrays=moderate)


def answers(case: Case, problem: Problem, backend: str) -> Answer:
    options = {"memory": case.memory, "block_length": case.block_length, "matmul_dtype": case.matmul_dtype}
    return library_answer(problem, jnp.float32, backend=backend, reverse=case.reverse, **options)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_equal_those_of_a_scan(case):
    """In bfloat16 the backend "scan" rounds cotangents as well, so the backend "fused" is the reference."""
    problem = problem_of(case)
    expected = answers(case, problem, "scan" if case.matmul_dtype is None else "fused")
    assert_answers_agree(answers(case, problem, "pallas"), expected, jnp.float32, 1e-6, 1e-5)


MISTAKES = {
    "steps in the wrong order": ("steps - 1 - k if reverse else k", "k"),
    "blocks in the wrong order": ("time_blocks - 1 - t if reverse else t", "t"),
    "steps past the end": ("jnp.minimum(S, T - time_block(t) * S)", "S"),
    "the carry of the first block in every block": ("pl.when(t == 0)", "pl.when(t >= 0)"),
    "the carry is not initialized": ("_copy(first_refs, carry_refs)", "pass"),
    "the carry is not updated": ("ref[...] = a", "pass"),
    "the final carry is not written": ("_copy(carry_refs, last_refs)", "pass"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_kernel_is_found(mistake, monkeypatch):
    right, wrong = MISTAKES[mistake]
    source = inspect.getsource(kernel)
    assert source.count(right) == 1
    mistaken = types.ModuleType("mistaken")
    exec(source.replace(right, wrong), mistaken.__dict__)
    monkeypatch.setattr(kernel, "scan", mistaken.scan)
    # Another core, so that no program traced without the mistake is used.
    interpret(monkeypatch, replace(CORE, vmem_bytes=CORE.vmem_bytes + 1 + list(MISTAKES).index(mistake)))
    params, xs = layer(GRU())
    run = jax.jit(partial(unroll, GRU(), reverse=True), static_argnames="backend")
    expected = run(params, xs, backend="fused")
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        jax.tree.map(
            partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), run(params, xs, backend="pallas"), expected
        )


def layer(cell: Any, batch_shape: tuple[int, ...] = (3,), T: int = T, H: int = 8) -> tuple[Any, jax.Array]:
    """Returns parameters and inputs."""
    return cell.init(jax.random.key(0), I, H), jax.random.normal(jax.random.key(1), (*batch_shape, T, I))


def loss(cell: Any, params: Any, xs: jax.Array, backend: str = "pallas", **options: Any) -> jax.Array:
    return (unroll(cell, params, xs, backend=backend, **options)[0] ** 2).mean()


def kernels(function: Any, *arguments: Any) -> list[Any]:
    """Returns the equations that call kernels, and asserts that there are no loops beside them."""

    def equations(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name != "pallas_call":
                for inner in jaxpr_core.jaxprs_in_params(equation.params):
                    yield from equations(inner)
            yield equation

    found = list(equations(jax.make_jaxpr(function)(*arguments).jaxpr))
    assert not [equation for equation in found if equation.primitive.name in ("scan", "while")]
    return [equation for equation in found if equation.primitive.name == "pallas_call"]


@pytest.mark.parametrize("cell", [GRU(), Elman(), Minimal()])
def test_every_loop_is_one_kernel(cell):
    params, xs = layer(cell)
    assert len(kernels(partial(loss, cell), params, xs)) == 1
    assert len(kernels(jax.grad(partial(loss, cell)), params, xs)) == 2
    assert len(kernels(jax.grad(partial(loss, cell, memory="checkpoint")), params, xs)) == 3


def test_kernels_read_only_what_every_step_needs():
    """Slices and casts of weights are applied before the loop, and unused arrays are not passed."""

    def step(shared, rows, carry, x):
        U = shared["U"].astype(jnp.bfloat16)
        update = jnp.dot(carry.astype(U.dtype), U[:, :H], preferred_element_type=jnp.float32)
        return jnp.where(x[..., None], carry + update + shared["b"], carry), ()

    shared = {"U": jnp.ones((H, 2 * H)), "W": jnp.ones((I, H)), "b": jnp.ones((1, H))}
    loop = kernel.trace(step, shared, None, jnp.ones((3, H)), jnp.ones((T, 3), bool), 3)
    assert [(a.shape, a.dtype) for a in loop.shared] == [((1, H), jnp.float32), ((H, H), jnp.bfloat16)]


def test_a_loop_that_does_not_fit_is_a_scan_with_a_warning(monkeypatch):
    interpret(monkeypatch, replace(CORE, vmem_bytes=2**16))
    cell = GRU()
    params, xs = layer(cell)
    message = r'^backend: expected arrays of at most 0.05 MiB in VMEM for "pallas", got 0.\d\d MiB; .* a plain loop$'
    with pytest.warns(UserWarning, match=message):
        program = str(jax.make_jaxpr(partial(loss, cell))(params, xs))
    assert "scan[" in program
    assert "pallas_call" not in program


@pytest.mark.parametrize("budget", [CORE.budget, 2**21, 2**18])
@pytest.mark.parametrize("cell", [GRU(), LSTM()])
def test_blocks_are_the_largest_that_fit(cell, budget):
    core = Core(budget * 4 // 3)
    B, T, H = 600, 50, 40
    state, xs = cell.initial_state(H, (B,)), jnp.zeros((T, B, H))
    loop = kernel.trace(lambda U, _, h, x: (jax.tree.map(lambda a: a @ U + x, h), x), jnp.eye(H), None, state, xs, B)
    blocks = kernel.choose_blocks(loop, T, B, core)
    assert blocks.nbytes <= core.budget
    assert blocks.rows % 8 == 0
    assert blocks == (32, 256, blocks.nbytes) or blocks.nbytes > core.budget / 3


def test_vmem_is_as_jax_has_it():
    versions = {"TPU v5 lite": "V5E", "TPU v5e": "V5E", "TPU v5": "V5P", "TPU v6 lite": "V6E", "TPU7x": "7X"}
    for kind, nbytes in VMEM.items():
        version = versions.get(kind, kind.removeprefix("TPU ").upper())
        assert pltpu.get_tpu_info_for_chip(pltpu.ChipVersion[f"TPU_{version}"], 1).vmem_capacity_bytes == nbytes


def test_float64_is_refused():
    with pytest.raises(
        ValueError, match=r'^backend: expected parameters of at most 32 bits for "pallas", got float64$'
    ):
        _core(jnp.dtype("float64"))


# Composition with transformations.


def assert_gradients_agree(function: Any, *arguments: Any) -> None:
    """Compares gradients of `function(*arguments, backend)` with kernels and with scans."""
    got, expected = (jax.jit(jax.grad(partial(function, backend=b), (0, 1)))(*arguments) for b in ("pallas", "fused"))
    chex.assert_trees_all_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("axes", [(None, 0), (0, None)], ids=["batch", "parameters"])
def test_vmap(axes, monkeypatch):
    interpret(monkeypatch, PLAIN)
    cell = LSTM()
    params, xs = layer(cell, (2, 3) if axes[1] == 0 else (3,))
    if axes[0] == 0:
        params = jax.tree.map(lambda a: jnp.stack((a, 2 * a)), params)

    def total(params, xs, backend):
        return jax.vmap(partial(loss, cell, backend=backend), axes)(params, xs).sum()

    assert_gradients_agree(total, params, xs)


@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map(check_vma):
    cell = GRU("after")
    params, xs = layer(cell, (4,))
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))

    def total(params, xs, backend):
        def mean(params, xs):
            return lax.pmean(loss(cell, params, xs, backend), "rows")

        return jax.shard_map(mean, mesh=mesh, in_specs=(P(), P("rows")), out_specs=P(), check_vma=check_vma)(params, xs)

    assert_gradients_agree(total, params, xs)


def test_checkpoint(monkeypatch):
    interpret(monkeypatch, PLAIN)
    cell = GRU()
    assert_gradients_agree(
        lambda params, xs, backend: jax.checkpoint(partial(loss, cell, backend=backend))(params, xs), *layer(cell)
    )


def test_forward_over_reverse_runs_scans():
    """A kernel has no derivative. Where one is needed, the loop is a scan."""
    cell = GRU()
    params, xs = layer(cell, T=4)

    def curvature(params, xs, backend):
        gradient = jax.grad(partial(loss, cell, backend=backend))
        return jax.jvp(lambda params: gradient(params, xs), (params,), (params,))[1]

    got, expected = (curvature(params, xs, backend) for backend in ("pallas", "scan"))
    chex.assert_trees_all_close(got, expected, rtol=1e-4, atol=1e-6)
