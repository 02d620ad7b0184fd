"""Derivatives of the fused backend in every mode, compared with the scan backend."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads

from gru_jax import GRU, unroll
from gru_jax._unroll.linearization import call
from tests.gru_jax.problems import (
    CELLS,
    draw,
    library_decay,
    library_params,
    library_reset_state,
    library_state,
    library_zoneout,
)


class At(NamedTuple):
    """The point and the direction of a derivative: parameters `p`, `dp` and inputs `x`, `dx`."""

    p: dict
    x: jax.Array
    dp: dict
    dx: jax.Array

    @property
    def primals(self):
        return self.p, self.x

    @property
    def tangents(self):
        return self.dp, self.dx


def losses(name, zoneout=None, **options):
    """Returns the loss with the fused and with the scan backend, and a point with a direction."""
    resets = "state per mark" if name == "lstm" else "state"
    steps = {"resets": resets, "mask": zoneout is not None, "decay": "one" if zoneout == "training" else zoneout}
    problem = draw(name, (2,), T=5, I=2, H=2, lengths=True, zoneout=zoneout, **steps, seed=6)
    arrays = jax.tree.map(jnp.asarray, problem.arrays)
    rng = np.random.default_rng(7)
    xs = arrays.pop("xs")
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), (arrays, xs))

    def loss_on(backend, **chosen):
        def loss(arrays, xs):
            params, h0 = library_params(name, arrays), library_state(name, arrays)
            steps = {"lengths": problem.lengths, "mask": problem.mask, "resets": problem.resets}
            steps |= {"reset_state": library_reset_state(name, arrays), "decay": library_decay(name, arrays)}
            steps |= library_zoneout(problem)
            ys, h_last = unroll(CELLS[name], params, xs, h0, backend=backend, reverse=True, **steps, **chosen)
            return (ys**2 * problem.weights[0]).sum() + sum((a**3).sum() for a in jax.tree.leaves(h_last))

        return loss

    return loss_on("fused", **options), loss_on("scan"), At(arrays, xs, *direction)


def twice(tree):
    return jax.tree.map(lambda a: jnp.stack([a, 2 * a]), tree)


def forward_in_a_scan(loss, at):
    def total(p, x):
        return lax.scan(lambda c, x: (c + loss(p, x), loss(p, c * x)), 1.0, twice(x))

    return jax.jvp(total, at.primals, at.tangents)


def forward_in_a_branch(loss, at):
    def branch(p, x):
        return lax.cond(x.sum() > 0, lambda p, x: loss(p, 2 * x), loss, p, x)

    return jax.jvp(branch, at.primals, at.tangents)


def gradient_in_a_scan(loss, at):
    def total(p, x):
        return lax.scan(lambda c, x: (c + loss(p, c * x), None), 1.0, twice(x))[0]

    return jax.grad(total, argnums=(0, 1))(*at.primals)


def gradient_over_forward(loss, at):
    def slopes(p):
        return lax.map(lambda x: jax.jvp(lambda p: loss(p, x), (p,), (at.dp,))[1], twice(at.x)).sum()

    return jax.grad(slopes)(at.p)


def three_times_forward(loss, at):
    def slope(f):
        return lambda x: jax.jvp(f, (x,), (at.dx,))[1]

    return slope(slope(slope(lambda x: loss(at.p, x))))(at.x)


def gradient_over_mapped_axes(loss, at):
    """Returns the gradient through `vmap` over parameters and over the last axis of inputs, nested."""

    def total(p, x):
        over_inputs = jax.vmap(loss, (None, -1))
        return jax.vmap(over_inputs, (0, None))(twice(p), jnp.stack([x, 3 * x], -1)).sum()

    return jax.grad(total, argnums=(0, 1))(*at.primals)


WAYS = {
    "jvp": lambda f, at: jax.jvp(f, at.primals, at.tangents),
    "jvp in inputs alone": lambda f, at: jax.jvp(lambda x: f(at.p, x), (at.x,), (at.dx,)),
    "jacfwd": lambda f, at: jax.jacfwd(f, argnums=(0, 1))(*at.primals),
    "jacrev": lambda f, at: jax.jacrev(f, argnums=(0, 1))(*at.primals),
    "jvp of jit": lambda f, at: jax.jvp(jax.jit(f), at.primals, at.tangents),
    "jacfwd of jit": lambda f, at: jax.jacfwd(jax.jit(f))(*at.primals),
    "jvp of checkpoint": lambda f, at: jax.jvp(jax.checkpoint(f), at.primals, at.tangents),
    "gradient of checkpoint": lambda f, at: jax.grad(jax.checkpoint(f), argnums=(0, 1))(*at.primals),
    "jvp of nnx.jit": lambda f, at: jax.jvp(nnx.jit(f), at.primals, at.tangents),
    "jvp of scan": forward_in_a_scan,
    "jvp of cond": forward_in_a_branch,
    "jvp of a loop": lambda f, at: jax.jvp(
        lambda p, x: lax.fori_loop(0, 2, lambda _, c: f(p, c * x), 0.1), at.primals, at.tangents
    ),
    "gradient of scan": gradient_in_a_scan,
    "linearize": lambda f, at: jax.linearize(f, *at.primals)[1](*at.tangents),
    "linearize, mapped": lambda f, at: jax.vmap(jax.linearize(f, *at.primals)[1], (None, 0))(at.dp, twice(at.dx)),
    "linear_transpose of jvp": lambda f, at: jax.linear_transpose(
        lambda dx: jax.jvp(lambda x: f(at.p, x), (at.x,), (dx,))[1], at.x
    )(2.0),
    "vmap of jvp": lambda f, at: jax.vmap(lambda x, dx: jax.jvp(f, (at.p, x), (at.dp, dx)), -1)(
        *(jnp.stack([a, 2 * a], -1) for a in (at.x, at.dx))
    ),
    "gradient over vmap": gradient_over_mapped_axes,
    "hessian": lambda f, at: jax.hessian(f, argnums=(0, 1))(*at.primals),
    "jacfwd of jacfwd": lambda f, at: jax.jacfwd(jax.jacfwd(f, argnums=(0, 1)), argnums=1)(*at.primals),
    "gradient over forward": gradient_over_forward,
    "three times forward": three_times_forward,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", WAYS)
def test_derivatives_equal_the_scan_backend(way):
    fused, scan, at = losses("gru_before", "training", memory="save", block_length=2)
    got, expected = jax.jit(lambda at: [WAYS[way](loss, at) for loss in (fused, scan)])(at)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 1e-2
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("name", "zoneout", "memory"),
    [
        ("gru_after", "training", "checkpoint"),
        ("lstm", "expectation", "recompute"),
        ("elman", "expectation", "save"),
        ("minimal", None, "save"),
    ],
)
def test_both_modes_equal_finite_differences(name, zoneout, memory):
    fused, _, at = losses(name, zoneout, memory=memory, block_length=3)
    check_grads(jax.jit(fused), at.primals, order=1, modes=("fwd", "rev"), rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", ["jvp", "jacfwd", "linearize"])
def test_derivatives_outside_jit_equal_the_scan_backend(way):
    fused, scan, at = losses("lstm", block_length=2)
    for a, b in zip(*(jax.tree.leaves(WAYS[way](loss, at)) for loss in (fused, scan)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("check_vma", [True, False])
def test_forward_mode_in_shard_map_equals_one_device(check_vma):
    """Inputs differ between devices. The parameters and their tangents are replicated."""
    fused, scan, at = losses("gru_after", "expectation")
    mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])

    def on_each(loss, p, x, dp, dx):
        value, slope = jax.jvp(lambda p, x: loss(p, x), (p, x[0]), (dp, dx[0]))
        return value[None], slope[None]

    specs = {"in_specs": (P(), P("rows"), P(), P("rows")), "out_specs": P("rows"), "check_vma": check_vma}
    given = at.p, twice(at.x), at.dp, twice(at.dx)
    got = jax.jit(jax.shard_map(lambda *a: on_each(fused, *a), mesh=mesh, **specs))(*given)
    expected = jax.vmap(lambda x, dx: jax.jvp(scan, (at.p, x), (at.dp, dx)))(twice(at.x), twice(at.dx))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_forward_mode_on_an_explicit_mesh_equals_one_device():
    cell, mesh = GRU(), jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
    params, xs = cell.init(jax.random.key(0), 3, 4), jax.random.normal(jax.random.key(1), (4, 6, 3))

    def slopes(backend, xs):
        ys, dys = jax.jvp(lambda xs: unroll(cell, params, xs, backend=backend)[0], (xs,), (jnp.cos(xs),))
        return ys * dys

    sharded = jax.jit(lambda xs: slopes("fused", xs))(jax.device_put(xs, NamedSharding(mesh, P("rows"))))
    assert jax.typeof(sharded).sharding.spec == P("rows", None, None)
    np.testing.assert_allclose(sharded, slopes("scan", xs), rtol=1e-5, atol=1e-6)


def loops(function, *arguments):
    return str(jax.make_jaxpr(function)(*arguments)).count(" scan[")


def test_reverse_mode_has_one_forward_and_one_backward_loop():
    """This also holds around `vmap`. Forward mode adds one loop to the loop of the values."""
    cell = GRU()
    params, xs = cell.init(jax.random.key(0), 2, 3), jnp.ones((4, 5, 2))

    def loss(params, xs):
        return (unroll(cell, params, xs, backend="fused")[0] ** 2).sum()

    def mapped(params, xs):
        return jax.vmap(loss, (None, 0))(params, xs).sum()

    assert loops(loss, params, xs) == 1
    assert loops(jax.grad(loss, argnums=(0, 1)), params, xs) == 2
    assert loops(jax.grad(mapped), params, xs) == 2
    assert loops(lambda *at: jax.jvp(loss, at, at)[1], params, xs) == 1
    compiled = jax.jit(lambda *at: jax.jvp(loss, at, at)).lower(params, xs).compile()
    assert str(compiled.as_text()).count(" while(") == 2


@dataclass(frozen=True)
class Marked:
    """A function that returns (x y, x), with a wrong gradient that is easy to recognize."""

    def outline(self, x, y, mask):
        return {"product": x, "x": x}

    def evaluate(self, x, y, mask):
        return {"product": jnp.where(mask, x * y, 0), "x": x}

    def forward(self, x, y, mask):
        return self.evaluate(x, y, mask), jnp.sin(x)

    def backward(self, arguments, kept, cotangents):
        x, _, _ = arguments
        np.testing.assert_allclose(kept, np.sin(x))
        return tuple(100 * n + jnp.zeros_like(x) if g is None else g for n, g in enumerate(cotangents.values())) + (
            None,
        )


def test_only_reverse_mode_uses_the_custom_gradient():
    """The cotangent of an unused output is None. Masks have neither tangents nor cotangents."""
    x, y, mask = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([True, False])

    def product(x, y):
        return call(Marked(), x, y, mask)["product"]

    np.testing.assert_array_equal(product(x, y), [3, 0])
    np.testing.assert_array_equal(jax.jvp(product, (x, y), (y, x))[1], [3 * 3 + 1 * 1, 0])
    _, vjp = jax.vjp(product, x, y)
    np.testing.assert_array_equal(vjp(jnp.array([5.0, 6.0])), [[5, 6], [100, 100]])
    (alone,) = jax.vjp(lambda y: product(x, y), y)[1](x)
    np.testing.assert_array_equal(alone, [100, 100])
