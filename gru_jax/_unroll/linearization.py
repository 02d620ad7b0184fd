"""Functions with a custom gradient that also support forward mode.

`jax.custom_vjp` does not support forward mode. This module uses `jax.custom_jvp` instead. The output tangents are a
linear map of the argument tangents, bound as one primitive. Evaluating the primitive applies `jax.jvp` to the function.
Transposing it, as reverse mode does, runs the custom gradient.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from gru_jax._types import Array, PyTree
from gru_jax._unroll.sharding import zeros_like

Arrays: TypeAlias = Sequence[Array]


class Function(Protocol):
    """A pure function of arrays with a custom gradient. It must be hashable.

    Attributes:
      outline: `(*arguments) -> outputs`. It has the structure, shapes and dtypes of `evaluate`, is fast to trace, and
        its values are not used.
      evaluate: `(*arguments) -> outputs`. JAX must be able to differentiate it.
      forward: `(*arguments) -> (outputs, kept)`. `backward` needs `kept` in addition to the arguments.
      backward: `(arguments, kept, cotangents) -> the arguments' cotangents`, None for integers and booleans. The
        cotangent of an unused output is None.
    """

    @property
    def outline(self) -> Callable[..., PyTree]: ...
    @property
    def evaluate(self) -> Callable[..., PyTree]: ...
    @property
    def forward(self) -> Callable[..., tuple[PyTree, PyTree]]: ...
    @property
    def backward(self) -> Callable[..., tuple[PyTree, ...]]: ...


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def call(function: Function, *arguments: PyTree) -> PyTree:
    """Returns `function.evaluate(*arguments)`.

    Reverse mode runs `function.forward` and `function.backward`. Forward mode differentiates `function.evaluate`.
    """
    return function.evaluate(*arguments)


@partial(call.defjvp, symbolic_zeros=True)
def _call_jvp(function: Function, arguments: Any, tangents: Any):
    outputs, kept = function.forward(*arguments)
    tangents = [None if _is_zero(tangent) else tangent for tangent in jax.tree.leaves(tangents)]
    residuals, structure = jax.tree.flatten((arguments, kept))
    linear = Linear(function, structure, tuple(tangent is not None for tangent in tangents))
    out = linear_p.bind(*residuals, *(tangent for tangent in tangents if tangent is not None), linear=linear)
    return outputs, jax.tree.unflatten(jax.tree.structure(outputs), out)


def _is_zero(tangent: Any) -> bool:
    return isinstance(tangent, SymbolicZero) or tangent.dtype == jax.dtypes.float0


def fill_zeros(tree: PyTree, cotangents: PyTree) -> PyTree:
    """Returns the cotangents of a tree of arrays, with zeros in place of None."""
    leaves, structure = jax.tree.flatten(tree)
    given = structure.flatten_up_to(cotangents)
    return structure.unflatten(zeros_like(a) if g is None else g for a, g in zip(leaves, given, strict=True))


@dataclass(frozen=True)
class Linear:
    """The derivative of a function: a linear map from argument tangents to output tangents, given the residuals.

    Attributes:
      function: the function.
      structure: the tree structure of the residuals, `(arguments, kept)`.
      perturbed: whether each leaf of the arguments has a tangent.
    """

    function: Function
    structure: Any
    perturbed: tuple[bool, ...]

    @property
    def number(self) -> int:
        """The number of residuals."""
        return self.structure.num_leaves

    def outline(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """Returns arrays with the shapes and dtypes of the outputs."""
        arguments, _ = self.structure.unflatten(residuals)
        return jax.tree.leaves(self.function.outline(*arguments))

    def push(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """Returns the output tangents."""
        arguments, _ = self.structure.unflatten(residuals)
        leaves, structure = jax.tree.flatten(arguments)

        def outputs(*changed: Any):
            rest = iter(changed)
            mixed = [next(rest) if p else a for p, a in zip(self.perturbed, leaves, strict=True)]
            return jax.tree.leaves(self.function.evaluate(*structure.unflatten(mixed)))

        at = [a for p, a in zip(self.perturbed, leaves, strict=True) if p]
        return jax.jvp(outputs, at, list(tangents))[1]

    def pull(self, residuals: Arrays, cotangents: Sequence[Array | None]) -> Arrays:
        """Returns the cotangents of the perturbed arguments. The cotangent of an output is None if it is zero."""
        arguments, kept = self.structure.unflatten(residuals)
        outputs = jax.tree.structure(jax.eval_shape(self.function.outline, *arguments))
        gradients = self.function.backward(arguments, kept, outputs.unflatten(cotangents))
        leaves = jax.tree.structure(arguments).flatten_up_to(gradients)
        return [gradient for p, gradient in zip(self.perturbed, leaves, strict=True) if p]


@dataclass(frozen=True)
class Batched:
    """A linear map under `vmap`. The mapped axis is the first axis of its outputs.

    Attributes:
      linear: the map.
      axis: the mapped axis, as described by JAX.
      of_residuals: the position of the mapped axis in each residual; None if the residual is not mapped.
      of_tangents: the position of the mapped axis in each tangent; None if the tangent is not mapped.
    """

    linear: "Linear | Batched"
    axis: Any
    of_residuals: tuple[int | None, ...]
    of_tangents: tuple[int | None, ...]

    @property
    def number(self) -> int:
        """The number of residuals."""
        return self.linear.number

    def outline(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """Returns arrays with the shapes and dtypes of the outputs."""
        return self._map(self.linear.outline, list(self.of_tangents))(list(residuals), list(tangents))

    def push(self, residuals: Arrays, tangents: Arrays) -> Arrays:
        """Returns the output tangents."""
        return self._map(self.linear.push, list(self.of_tangents))(list(residuals), list(tangents))

    def pull(self, residuals: Arrays, cotangents: Sequence[Array | None]) -> Arrays:
        """Returns the cotangents of the tangents, summed over the mapped axis for tangents that are not mapped."""
        gradients = self._map(self.linear.pull, 0)(list(residuals), list(cotangents))
        return [
            gradient.sum(0) if at is None else jnp.moveaxis(gradient, 0, at)
            for gradient, at in zip(gradients, self.of_tangents, strict=True)
        ]

    def _map(self, function: Callable[..., Any], second: Any) -> Callable[..., Any]:
        axis = {"axis_size": self.axis.size, "axis_name": self.axis.name, "spmd_axis_name": self.axis.spmd_name}
        return jax.vmap(function, (list(self.of_residuals), second), **axis)


def _push(*operands: Any, linear: Any):
    return linear.push(operands[: linear.number], operands[linear.number :])


def _outline(*operands: Any, linear: Any):
    def outline(*operands: Any):
        return linear.outline(operands[: linear.number], operands[linear.number :])

    return jax.make_jaxpr(outline)(*operands).out_avals


def _jvp(operands: Any, tangents: Any, *, linear: Any):
    """Differentiates in the residuals as well, which reverse mode over forward mode needs."""
    residuals, at = operands[: linear.number], operands[linear.number :]
    of_residuals, of_tangents = tangents[: linear.number], tangents[linear.number :]
    terms = []
    if not all(isinstance(t, ad.Zero) for t in of_tangents):
        terms.append(linear_p.bind(*residuals, *map(ad.instantiate_zeros, of_tangents), linear=linear))
    moving = [k for k, t in enumerate(of_residuals) if not isinstance(t, ad.Zero)]
    if moving:

        def push(*changed: Any):
            mixed = list(residuals)
            for k, residual in zip(moving, changed, strict=True):
                mixed[k] = residual
            return linear.push(mixed, at)

        terms.append(jax.jvp(push, [residuals[k] for k in moving], [of_residuals[k] for k in moving])[1])
    out = terms[0] if len(terms) == 1 else map(jnp.add, *terms)
    return linear_p.bind(*operands, linear=linear), list(out)


def _transpose(cotangents: Any, *operands: Any, linear: Any):
    residuals, tangents = operands[: linear.number], operands[linear.number :]
    given = [None if isinstance(cotangent, ad.Zero) else cotangent for cotangent in cotangents]
    gradients = linear.pull(residuals, given)
    wanted = map(ad.is_undefined_primal, tangents)
    return [None] * len(residuals) + [g if wants else None for g, wants in zip(gradients, wanted, strict=True)]


def _batch(axis: Any, operands: Any, axes: Any, *, linear: Any):
    if all(at is None for at in axes):
        out = linear_p.bind(*operands, linear=linear)
        return out, [None] * len(out)
    batched = Batched(linear, axis, tuple(axes[: linear.number]), tuple(axes[linear.number :]))
    out = linear_p.bind(*operands, linear=batched)
    return out, [0] * len(out)


linear_p = Primitive("linear")
linear_p.multiple_results = True
linear_p.def_impl(_push)
linear_p.def_abstract_eval(_outline)
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.fancy_primitive_batchers[linear_p] = _batch
mlir.register_lowering(linear_p, mlir.lower_fun(_push, multiple_results=True))
